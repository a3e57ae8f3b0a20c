"""One node as Patroni's JSON: what `GET /patroni` and every health check carry as their body. Pure; called by `health` and `pages`.

It describes what the View holds and never judges: whether a node may be routed to is `health`'s question.
"""

from __future__ import annotations

from collections.abc import Mapping

from rivha import __version__
from rivha.agent.brain import upkeep
from rivha.agent.brain.view import View
from rivha.model import Cluster, Data, PostgresStatus, Role, State

Json = dict[str, object]


def leads_at(view: View, now: float) -> bool:
    """DESIGN 7: legitimate by the lease, or by the voters' proof. `now` is on the View's clock, a little after it was taken."""
    return _leads_by_its_lease(view, now) or _leads_by_proof(view, now)


def _leads_by_its_lease(view: View, now: float) -> bool:
    """The leader key is ours on the lease that we renew, and by our own clock that lease lives at `now`.

    When etcd is silent the key as last read counts: nobody else removes it before the lease ends. But voters need not wait for that end,
    so where there are any it counts only as long as their proof would: a primary that is cut off is out of routing within seconds.
    """
    cluster = view.cluster or view.last_cluster
    if cluster is None or cluster.leader is None or view.lease is None:
        return False
    if (view.voters or view.sync_doubtful) and (view.confirmed_at is None or now > view.confirmed_at + view.proof_window_s):
        return False
    return cluster.leader.name == view.me and cluster.leader.lease_id == view.lease.lease_id and now < view.lease.expires_at


def _leads_by_proof(view: View, now: float) -> bool:
    """Of a Postgres that is up as a primary: where it is down, or a standby, the proof only tells that nobody else leads."""
    until = view.proven_until
    return until is not None and now < until and view.postgres.role is Role.PRIMARY and not view.down


def state_word(view: View) -> str:
    """The word that the member key carries, but a hung Postgres is `unknown` here, as in Patroni's own answer."""
    return "unknown" if view.postgres.state is State.SILENT and not view.busy else upkeep.state_word(view)


def role_word(view: View) -> str:
    """primary, replica, demoted (a stopped primary that does not lead), uninitialized, or unknown."""
    if view.postgres.role is Role.STANDBY:
        return "replica"
    if view.postgres.role is Role.PRIMARY:
        return "demoted" if view.down and not leads_at(view, view.now) else "primary"
    return "uninitialized" if view.postgres.data is Data.EMPTY else "unknown"


def replication_state(postgres: PostgresStatus) -> str | None:
    """How a standby gets its WAL; None on a primary and when it gets none."""
    if postgres.role is not Role.STANDBY or postgres.state is not State.RUNNING:
        return None
    if postgres.streaming:
        return "streaming"
    return "in archive recovery" if postgres.archive_recovery else None


def sync_kind(view: View) -> str | None:
    """`sync_standby` or `quorum_standby` when the cluster counts on this node as such a standby, by what etcd said last."""
    cluster = view.cluster or view.last_cluster
    if view.policy.synchronous_mode == "off" or cluster is None:
        return None
    return sync_kind_of(cluster, view.me, view.policy.synchronous_mode)


def sync_kind_of(cluster: Cluster, name: str, mode: str) -> str | None:
    """The same of any member; `mode` is off, on or quorum."""
    if mode == "off" or cluster.sync is None or name not in cluster.sync.voters:
        return None
    if cluster.leader is not None and cluster.leader.name == name:
        return None
    return "quorum_standby" if mode == "quorum" else "sync_standby"


def describe(view: View, scope: str) -> Json:
    """The document, without `age`: that one depends on when it is sent."""
    postgres = view.postgres
    document: Json = {"state": state_word(view), "role": role_word(view)}
    if postgres.postmaster_started is not None:
        document["postmaster_start_time"] = postgres.postmaster_started
    for key, value in (("server_version", postgres.server_version), ("timeline", postgres.timeline)):
        if value is not None:
            document[key] = value
    if postgres.state is State.RUNNING:
        document["xlog"] = _xlog(postgres)
        document["replication"] = _replication(postgres)
    if not document.get("replication"):
        document.pop("replication", None)
    _add_when_true(document, _extras(view))
    document["patroni"] = {"version": __version__, "scope": scope, "name": view.me}
    return document


def _extras(view: View) -> Json:
    """What Patroni leaves out when there is nothing to say."""
    cluster = view.cluster or view.last_cluster
    member = view.my_member
    kind = sync_kind(view)
    seen_ago = None if view.cluster_seen_at is None else view.now - view.cluster_seen_at
    return {
        "replication_state": replication_state(view.postgres),
        "sync_standby": kind == "sync_standby",
        "quorum_standby": kind == "quorum_standby",
        "tags": dict(view.tags),
        "pause": view.policy.paused,
        "cluster_unlocked": cluster is None or cluster.leader is None,
        "dcs_last_seen": 0 if seen_ago is None else int(view.wall - seen_ago),
        "database_system_identifier": view.postgres.system_id,
        "pending_restart": bool(view.postgres.pending_restart),
        "pending_restart_reason": restart_reasons(view.postgres.pending_restart),
        "scheduled_restart": None if member is None else member.scheduled_restart,
        "problem": view.problem,
    }


def _add_when_true(document: Json, extras: Json) -> None:
    document.update({key: value for key, value in extras.items() if value or key == "dcs_last_seen"})


def restart_reasons(pending: Mapping[str, tuple[str, str]]) -> Json:
    """Patroni's shape of which settings wait for a restart."""
    return {name: {"old_value": old, "new_value": new} for name, (old, new) in sorted(pending.items())}


def _xlog(postgres: PostgresStatus) -> Json:
    if postgres.role is Role.PRIMARY:
        return {"location": postgres.wal_lsn or 0}
    return {
        "received_location": postgres.receive_lsn or 0,
        "replayed_location": postgres.replay_lsn or 0,
        "replayed_timestamp": postgres.replay_time,
        "paused": postgres.replay_paused,
    }


def _replication(postgres: PostgresStatus) -> list[Json]:
    names = ("usename", "application_name", "client_addr", "state", "sync_state", "sync_priority")
    return [{name: getattr(row, name) for name in names} for row in postgres.replication]
