"""Prometheus metrics: Patroni's names, so that its dashboards work, and Rivha's own, for what Patroni does not show.

Gauges are made from the View when somebody asks, so they cannot disagree with the health checks; only what a View cannot show (how
long ticks take, how often the leader changed) is counted by the tick through `Metrics.tick`. It never asks etcd or Postgres.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from rivha import __version__
from rivha.agent.brain.view import View
from rivha.api.health import lag_bytes
from rivha.api.status import leads_at, replication_state, role_word, state_word, sync_kind
from rivha.model import PostgresStatus, Role, State

TICK_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

# Patroni's fixed numbering (REFERENCE 1.15); -1 for its word "unknown", which has none.
STATE_NUMBERS = {
    "initializing new cluster": 0,
    "creating replica": 4,
    "running": 5,
    "running pg_rewind": 4,  # Patroni has no number for it; from outside it is a replica being made
    "starting": 6,
    "start failed": 8,
    "restarting": 9,
    "stopping": 11,
    "stopped": 12,
    "crashed": 14,
}


class Metrics:
    """One agent's numbers, in a registry of its own."""

    def __init__(self, scope: str, name: str) -> None:
        self._labels = (scope, name)
        self._registry = CollectorRegistry(auto_describe=False)
        names = ("scope", "name")
        tick = Histogram("rivha_tick_seconds", "What a turn of the loop took", names, buckets=TICK_BUCKETS_S, registry=self._registry)
        changes = Counter("rivha_leader_changes", "Failovers and switchovers that this agent watched", names, registry=self._registry)
        takeovers = Counter("rivha_takeovers", "How often this node took over from another", names, registry=self._registry)
        self._tick = tick.labels(*self._labels)
        self._changes, self._takeovers = changes.labels(*self._labels), takeovers.labels(*self._labels)
        self._leader: str | None = None  # the last that was seen; nobody does not count
        self._view: tuple[View, float] | None = None
        self._registry.register(_Gauges(self))

    def tick(self, view: View, seconds: float) -> None:
        """The tick's, once for each turn of the loop, which took `seconds`."""
        self._tick.observe(seconds)
        leader = view.cluster.leader if view.cluster else None
        if leader is None:
            return
        if self._leader is not None and self._leader != leader.name:
            self._changes.inc()
            if leader.name == view.me:
                self._takeovers.inc()
        self._leader = leader.name

    def render(self, view: View | None, now: float) -> bytes:
        """Prometheus' text format. `now` is on the View's clock."""
        self._view = None if view is None else (view, now)
        return generate_latest(self._registry)

    def families(self) -> Iterator[Metric]:
        if self._view is None:
            return
        view, now = self._view
        for name, text, value in (*_patronis(view), *_rivhas(view, now)):
            family = GaugeMetricFamily(name, text, labels=("scope", "name"))
            family.add_metric(self._labels, value)
            yield family
        yield from self._per_subject(view.postgres)

    def _per_subject(self, postgres: PostgresStatus) -> Iterator[Metric]:
        """A primary's view of its replicas and slots."""
        if postgres.role is not Role.PRIMARY or postgres.wal_lsn is None:
            return
        end = postgres.wal_lsn
        replay = {row.application_name: row.replay_lsn for row in postgres.replication}
        flush = {row.application_name: row.flush_lsn for row in postgres.replication}
        for name, text, subject, values in (
            ("rivha_replica_replay_lag_bytes", "WAL that the replica has not applied", "replica", replay),
            ("rivha_replica_flush_lag_bytes", "WAL that the replica has not on its disk", "replica", flush),
            ("rivha_slot_retained_bytes", "WAL kept for the slot", "slot", postgres.slots),
        ):
            family = GaugeMetricFamily(name, text, labels=("scope", "name", subject))
            for key, lsn in values.items():
                if lsn is not None:
                    family.add_metric((*self._labels, key), max(0, end - lsn))
            yield family


class _Gauges:
    """What prometheus-client calls a custom collector."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.families()


Row = tuple[str, str, float]


def _patronis(view: View) -> Iterator[Row]:
    postgres, kind, role = view.postgres, sync_kind(view), role_word(view)
    cluster, stream = view.cluster or view.last_cluster, replication_state(view.postgres)
    standby = postgres.role is Role.STANDBY
    seen_at = 0.0 if view.cluster_seen_at is None else view.wall - (view.now - view.cluster_seen_at)
    yield "patroni_version", "Version without dots", _version_number(__version__)
    yield "patroni_postgres_running", "1 if Postgres answers", postgres.state is State.RUNNING
    yield "patroni_postmaster_start_time", "Seconds since 1970", _timestamp(postgres.postmaster_started)
    yield "patroni_primary", "1 if this node leads", leads_at(view, view.now)
    yield "patroni_standby_leader", "Always 0: no standby clusters", 0
    yield "patroni_replica", "1 if a replica", role == "replica"
    yield "patroni_sync_standby", "1 if a synchronous standby", kind == "sync_standby"
    yield "patroni_quorum_standby", "1 if a quorum standby", kind == "quorum_standby"
    yield "patroni_xlog_location", "Bytes written, 0 on a replica", 0 if standby else postgres.wal_lsn or 0
    yield "patroni_xlog_received_location", "Bytes received, 0 on a primary", (postgres.receive_lsn or 0) if standby else 0
    yield "patroni_xlog_replayed_location", "Bytes replayed, 0 on a primary", (postgres.replay_lsn or 0) if standby else 0
    yield "patroni_xlog_replayed_timestamp", "Of the last replayed transaction, 0 if unknown", _timestamp(postgres.replay_time)
    yield "patroni_xlog_paused", "1 if replay is paused", postgres.replay_paused
    yield "patroni_postgres_streaming", "1 if streaming", stream == "streaming"
    yield "patroni_postgres_in_archive_recovery", "1 if restoring from the archive", stream == "in archive recovery"
    yield "patroni_postgres_server_version", "As 150018", postgres.server_version or 0
    yield "patroni_postgres_timeline", "0 if unknown", postgres.timeline or 0
    yield "patroni_postgres_state", "Patroni's number of the state", STATE_NUMBERS.get(state_word(view), -1)
    yield "patroni_cluster_unlocked", "1 if nobody leads", cluster is None or cluster.leader is None
    yield "patroni_failsafe_mode_is_active", "Always 0: voters prove themselves instead", 0
    yield "patroni_dcs_last_seen", "When etcd answered last, seconds since 1970", seen_at
    yield "patroni_pending_restart", "1 if a setting waits for a restart", bool(postgres.pending_restart)
    yield "patroni_is_paused", "1 if paused", view.policy.paused


def _rivhas(view: View, now: float) -> Iterator[Row]:
    yield "rivha_view_age_seconds", "Age of the last look at Postgres", max(0.0, now - view.postgres_seen_at)
    cluster = view.cluster or view.last_cluster
    yield "rivha_members", "Members published in etcd", 0 if cluster is None else len(cluster.members)
    yield "rivha_etcd_silent", "1 if etcd did not answer the last tick", view.cluster is None
    yield "rivha_voters", "Synchronous standbys that may elect a leader", len(view.voters)
    if view.proven_until is not None and view.postgres.role is Role.PRIMARY:
        proven = "Until the voters' proof that nobody else leads ends; +Inf: nobody else may"
        yield "rivha_proof_remaining_seconds", proven, max(0.0, view.proven_until - now)
    yield "rivha_crashes_in_window", "Crashes of Postgres that still count", len(view.memory.crashes)
    if view.lease is not None:
        yield "rivha_lease_remaining_seconds", "Until the leader's lease ends, by this node's clock", max(0.0, view.lease.expires_at - now)
    if view.postgres.role is Role.STANDBY:
        lag = lag_bytes(view)
        if lag is not None:
            yield "rivha_replay_lag_bytes", "How far this replica is behind", lag
        if view.postgres.replay_age_s is not None:
            yield "rivha_replay_age_seconds", "Age of the last replayed transaction", view.postgres.replay_age_s


def _version_number(version: str) -> int:
    parts = [int(part) if part.isdecimal() else 0 for part in version.split(".")[:3]]
    return sum(part * factor for part, factor in zip(parts, (10_000, 100, 1), strict=False))


def _timestamp(text: str | None) -> float:
    """Postgres' own notation; 0 for what it is not."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
