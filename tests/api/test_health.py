"""Which check says yes to which node. One row per promise."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from rivha.agent.brain.view import Job, Lease, View
from rivha.api.health import CHECKS, PROBE, Bodies, answer, freshness_limit_s
from rivha.model import State
from tests.api.views import END, MB, NOW, a_cluster, a_primary, a_standby, a_view, replied, silent_etcd, voters


def ask(path: str, view: View | None, *, now: float = NOW, out: bool = False, **query: str) -> int:
    found = answer(path, query, view, now, out, Bodies("demo"))
    assert found is not None
    json.loads(found[1])
    return found[0]


PRIMARY = a_view("a")
REPLICA = a_view("b")
SYNC = a_view("b", policy={"synchronous_mode": "on"}, cluster=a_cluster(sync=voters("b")))
QUORUM = a_view("b", policy={"synchronous_mode": "quorum"}, cluster=a_cluster(sync=voters("b")))
BESIDE = a_view("c", policy={"synchronous_mode": "quorum"}, cluster=a_cluster(sync=voters("b")))
ALL = set(CHECKS) - {PROBE}  # which is for agents, not for routing
ALWAYS = {"/health", "/liveness", "/readiness", "/patroni", "/rivha"}
WRITES = {"/", "/primary", "/read-write", "/master", "/leader"}
READS = {"/read-only", "/read-only-sync", "/read-only-quorum"}


@pytest.mark.parametrize(
    ("view", "yes"),
    [
        pytest.param(PRIMARY, ALWAYS | WRITES | READS, id="primary"),
        pytest.param(REPLICA, ALWAYS | {"/replica", "/read-only", "/async", "/asynchronous"}, id="asynchronous replica"),
        pytest.param(SYNC, ALWAYS | {"/replica", "/read-only", "/read-only-sync", "/sync", "/synchronous"}, id="synchronous replica"),
        pytest.param(QUORUM, ALWAYS | {"/replica", *READS, "/sync", "/synchronous", "/quorum"}, id="quorum replica"),
        pytest.param(BESIDE, ALWAYS | {"/replica", "/read-only", "/async", "/asynchronous"}, id="no voter among voters"),
    ],
)
def test_each_role_answers_its_own_checks_and_no_others(view: View, yes: set[str]) -> None:
    assert {path for path in ALL if ask(path, view) == 200} == yes
    assert {path for path in ALL if ask(path, view) == 503} == ALL - yes


def test_an_unknown_path_is_no_check() -> None:
    assert answer("/primaries", {}, PRIMARY, NOW, False, Bodies("demo")) is None


@pytest.mark.parametrize(
    ("view", "now", "out", "status"),
    [
        pytest.param(PRIMARY, NOW + 3, False, 200, id="a lease that lives"),
        pytest.param(replace(PRIMARY, postgres_seen_at=NOW + 10), NOW + 10, False, 503, id="a lease that ran out since the tick"),
        pytest.param(replace(PRIMARY, lease=None), NOW, False, 503, id="no lease of mine"),
        pytest.param(replace(PRIMARY, cluster=a_cluster("b")), NOW, False, 503, id="somebody else's key"),
        pytest.param(replace(PRIMARY, cluster=a_cluster(None)), NOW, False, 503, id="nobody's key"),
        pytest.param(a_view("a", a_standby()), NOW, False, 503, id="leads, not yet promoted"),
        pytest.param(a_view("a", a_primary(pid=1)), NOW, True, 503, id="about to stop"),
        pytest.param(a_view("a", replace(a_primary(), state=State.SILENT)), NOW, False, 503, id="hung"),
        pytest.param(a_view("a", replace(a_primary(), state=State.CRASHED)), NOW, False, 503, id="crashed"),
        pytest.param(a_view("a", replace(a_primary(), state=State.STARTING)), NOW, False, 503, id="starting"),
        pytest.param(silent_etcd(PRIMARY), NOW, False, 200, id="etcd silent, the lease lives"),
        pytest.param(silent_etcd(replace(PRIMARY, lease=None)), NOW, False, 503, id="etcd silent, no lease"),
        pytest.param(silent_etcd(a_view("a", policy={"paused": True}, lease=None)), NOW, False, 200, id="paused and etcd silent: by role"),
        pytest.param(a_view("a", policy={"paused": True}, lease=None), NOW, False, 503, id="paused, etcd answers: by lease"),
        pytest.param(silent_etcd(a_view("b", policy={"paused": True})), NOW, False, 503, id="a standby, paused and etcd silent"),
    ],
)
def test_primary_is_who_leads_and_takes_writes_now(view: View, now: float, out: bool, status: int) -> None:
    assert ask("/primary", view, now=now, out=out) == status


WINDOW = a_view("a").proof_window_s


def synchronous(*, leader: str | None = "a", sync: Any = None, held: int = 8, now: float = NOW, **more: Any) -> View:
    """`a` as the primary of a cluster in mode `quorum`, etcd silent; looked at Postgres at `now`, its lease over unless said otherwise."""
    cluster = a_cluster(leader, sync=voters("b") if sync is None else sync, held_revision=held)
    return silent_etcd(a_view("a", **{"policy": {"synchronous_mode": "quorum"}, "lease": None, "cluster": cluster, "now": now, **more}))


@pytest.mark.parametrize(
    ("view", "now", "status"),
    [
        pytest.param(synchronous(memory=replied(b=NOW)), NOW + WINDOW - 0.1, 200, id="the voter's reply is fresh"),
        pytest.param(synchronous(memory=replied(b=NOW)), NOW + WINDOW + 0.1, 503, id="the voter's reply is old"),
        pytest.param(synchronous(memory=replied(c=NOW)), NOW, 503, id="only who is no voter replies"),
        pytest.param(synchronous(sync=voters("b", "c", "d", quorum=1), memory=replied(b=NOW, d=NOW)), NOW, 200, id="all but q replied"),
        pytest.param(synchronous(sync=voters("b", "c", "d", quorum=1), memory=replied(b=NOW)), NOW, 503, id="too few replied"),
        pytest.param(synchronous(sync=voters()), NOW, 200, id="no voters: nobody else may lead"),
        pytest.param(synchronous(sync=voters(), policy={}), NOW, 503, id="the same in mode off"),
        pytest.param(synchronous(sync=voters(), held=0), NOW, 503, id="nobody was told that it goes on without a lease"),
        pytest.param(synchronous(sync=voters("a", leader="b"), memory=replied(b=NOW)), NOW, 503, id="somebody else held the commits last"),
        pytest.param(synchronous(leader=None, memory=replied(b=NOW)), NOW, 200, id="the key is gone, not the proof"),
        pytest.param(synchronous(memory=replied(b=NOW), postgres=a_standby()), NOW, 503, id="a standby, whatever it could prove"),
        pytest.param(synchronous(memory=replied(b=NOW), postgres=a_primary(pid=None)), NOW + 9, 503, id="proof does not replace a look"),
    ],
)
def test_voters_prove_a_primary_when_etcd_is_silent_for_longer_than_its_lease(view: View, now: float, status: int) -> None:
    assert ask("/primary", view, now=now) == ask("/leader", view, now=now) == status


@pytest.mark.parametrize(
    ("names", "confirmed", "now", "status"),
    [
        pytest.param(("b",), NOW, NOW + WINDOW - 0.1, 200, id="etcd confirmed it lately"),
        pytest.param(("b",), NOW, NOW + WINDOW + 0.1, 503, id="voters may have elected another meanwhile"),
        pytest.param(("b",), None, NOW, 503, id="never confirmed"),
        pytest.param((), NOW, NOW + 6, 200, id="without voters the lease counts whole"),
    ],
)
def test_with_voters_a_lease_counts_no_longer_than_their_proof_would(
    names: tuple[str, ...], confirmed: float | None, now: float, status: int
) -> None:
    view = synchronous(sync=voters(*names), lease=Lease(77, NOW + 10, 10.0), memory=replied(confirmed))
    for mode in ("quorum", "on", "off"):
        assert ask("/primary", replace(view, policy=replace(view.policy, synchronous_mode=mode)), now=now) == status


def test_another_leader_in_etcd_ends_every_proof() -> None:
    view = a_view("a", policy={"synchronous_mode": "on"}, cluster=a_cluster("b", sync=voters("b")), memory=replied(NOW, b=NOW))
    assert ask("/primary", view) == 503


@pytest.mark.parametrize("path", sorted(ALL - {"/patroni", "/rivha", "/liveness"}))
def test_a_view_that_is_too_old_convinces_no_check(path: str) -> None:
    for view in (PRIMARY, REPLICA, SYNC, QUORUM):
        assert ask(path, view, now=NOW + freshness_limit_s(view) + 0.1) == 503


def test_a_slow_etcd_alone_does_not_make_a_view_stale() -> None:
    view = a_view("a", policy={"ttl_s": 10.0, "loop_wait_s": 1.0, "retry_timeout_s": 3.0})
    assert freshness_limit_s(view) == 7.0
    assert freshness_limit_s(a_view(policy={"loop_wait_s": 0.5, "retry_timeout_s": 0.5})) == 3.0


@pytest.mark.parametrize("path", sorted(ALL - {"/patroni", "/rivha"}))
def test_before_the_first_tick_nothing_is_healthy(path: str) -> None:
    assert ask(path, None) == 503
    assert ask("/patroni", None) == 200


def behind(lag: int, **more: Any) -> View:
    return a_view("b", a_standby(replay_lsn=END - lag, receive_lsn=END, **more))


@pytest.mark.parametrize(
    ("view", "query", "status"),
    [
        (behind(10), {"lag": "10"}, 200),
        (behind(11), {"lag": "10"}, 503),
        (behind(10 * MB), {"lag": "10MB"}, 200),
        (behind(10 * MB + 1), {"lag": "10MB"}, 503),
        (behind(1024), {"lag": "1kB"}, 200),
        (behind(5, latest_end_lsn=END + 100), {"lag": "100"}, 503),
        (a_view("b", a_standby(replay_lsn=None)), {"lag": "100"}, 503),
        (a_view("b", a_standby(replay_lsn=None)), {}, 200),
        (a_view("b", a_standby(latest_end_lsn=None), cluster=a_cluster(optime=0)), {"lag": "100"}, 503),
        (REPLICA, {"lag": "ten"}, 400),
        (REPLICA, {"lag": "-1"}, 400),
        (REPLICA, {"lag": ""}, 400),
        (REPLICA, {"replication_state": "streaming"}, 200),
        (REPLICA, {"replication_state": "in archive recovery"}, 503),
        (a_view("b", a_standby(streaming=False, archive_recovery=True)), {"replication_state": "in archive recovery"}, 200),
        (a_view("b", tags={"noloadbalance": True}), {}, 503),
        (a_view("b", tags={"zone": "north", "fast": True}), {"tag_zone": "north", "tag_fast": "true"}, 200),
        (a_view("b", tags={"zone": "north"}), {"tag_zone": "south"}, 503),
        (a_view("b", tags={}), {"tag_zone": "south"}, 503),
        (a_view("b", replace(a_standby(), state=State.STARTING)), {}, 503),
    ],
)
def test_a_replica_is_near_enough_and_of_the_kind_asked_for(view: View, query: dict[str, str], status: int) -> None:
    assert ask("/replica", view, **query) == status


@pytest.mark.parametrize(
    ("view", "now", "status"),
    [
        (PRIMARY, NOW + 10, 200),
        (PRIMARY, NOW + 10.1, 503),
        (REPLICA, NOW + 20, 200),
        (REPLICA, NOW + 20.1, 503),
        (a_view("a", policy={"paused": True}), NOW + 1000, 200),
    ],
)
def test_the_agent_is_alive_while_its_loop_turns(view: View, now: float, status: int) -> None:
    assert ask("/liveness", view, now=now) == status


@pytest.mark.parametrize(
    ("view", "query", "status"),
    [
        (PRIMARY, {}, 200),
        (a_view("a", a_standby()), {}, 503),
        (behind(MB), {}, 200),
        (behind(MB + 1), {}, 503),
        (behind(MB + 1), {"mode": "write"}, 200),
        (behind(MB + 1), {"lag": "2MB"}, 200),
        (a_view("b", a_standby(streaming=False)), {}, 503),
        (REPLICA, {"mode": "guess"}, 400),
    ],
)
def test_ready_means_that_a_rolling_update_may_go_on(view: View, query: dict[str, str], status: int) -> None:
    assert ask("/readiness", view, **query) == status


def body(view: View, now: float = NOW) -> dict[str, Any]:
    found = answer("/patroni", {}, view, now, False, Bodies("demo"))
    assert found is not None
    document: dict[str, Any] = json.loads(found[1])
    return document


def test_the_body_is_patronis_and_carries_the_age_of_what_it_is_based_on() -> None:
    document = body(PRIMARY, NOW + 1.5)

    assert document["age"] == 1.5
    assert document["state"] == "running"
    assert document["role"] == "primary"
    assert document["xlog"] == {"location": END}
    assert document["replication"][0]["application_name"] == "b"
    assert document["database_system_identifier"] == "7277694203142172922"
    assert document["dcs_last_seen"] == 1_780_000_000
    assert document["patroni"]["scope"] == "demo"
    assert "pause" not in document
    assert "cluster_unlocked" not in document


def test_a_replicas_body_shows_how_far_it_is() -> None:
    document = body(SYNC)

    assert document["role"] == "replica"
    assert document["replication_state"] == "streaming"
    assert document["xlog"] == {"received_location": END, "replayed_location": END, "replayed_timestamp": None, "paused": False}
    assert document["sync_standby"] is True
    assert "replication" not in document


@pytest.mark.parametrize(
    ("view", "key", "value"),
    [
        (a_view("a", policy={"paused": True}), "pause", True),
        (a_view("b", cluster=a_cluster(None)), "cluster_unlocked", True),
        (a_view("a", tags={"nofailover": True}), "tags", {"nofailover": True}),
        (a_view("b", job=Job("clone", NOW)), "state", "creating replica"),
        (a_view("a", replace(a_primary(), state=State.SILENT)), "state", "unknown"),
        (a_view("c", replace(a_primary(), state=State.STOPPED)), "role", "demoted"),
        (
            a_view("a", a_primary(pending_restart={"shared_buffers": ("1GB", "2GB")})),
            "pending_restart_reason",
            {"shared_buffers": {"old_value": "1GB", "new_value": "2GB"}},
        ),
    ],
)
def test_the_body_says_what_is_out_of_the_ordinary(view: View, key: str, value: object) -> None:
    assert body(view)[key] == value


def test_a_view_is_rendered_once() -> None:
    bodies = Bodies("demo")
    first, second = bodies.render(PRIMARY, NOW), bodies.render(PRIMARY, NOW + 1)
    assert first != second
    assert bodies.render(REPLICA, NOW) != first


DOWN = replace(a_primary(), state=State.CRASHED)


@pytest.mark.parametrize(
    ("view", "now", "out", "status"),
    [
        pytest.param(PRIMARY, NOW, False, 200, id="a primary that leads"),
        pytest.param(silent_etcd(PRIMARY), NOW, False, 200, id="cut off from etcd only"),
        pytest.param(silent_etcd(replace(PRIMARY, lease=None)), NOW, False, 200, id="cut off from etcd for longer than its lease"),
        pytest.param(a_view("a", DOWN), NOW, False, 200, id="its Postgres crashed: it restarts it, or resigns"),
        pytest.param(silent_etcd(a_view("a", DOWN)), NOW, False, 200, id="the same, etcd silent: the key as last read"),
        pytest.param(a_view("a", replace(a_primary(), state=State.SILENT)), NOW, False, 200, id="its Postgres hangs"),
        pytest.param(a_view("a", a_standby()), NOW, False, 200, id="leads, is being promoted"),
        pytest.param(a_view("a", DOWN, cluster=a_cluster("b")), NOW, False, 503, id="down, and another leads"),
        pytest.param(a_view("a", DOWN, cluster=a_cluster(None)), NOW, False, 503, id="down, and has resigned"),
        pytest.param(REPLICA, NOW, False, 503, id="a replica"),
        pytest.param(PRIMARY, NOW, True, 503, id="hands over, or is fenced"),
        pytest.param(PRIMARY, NOW + freshness_limit_s(PRIMARY) + 0.1, False, 503, id="its loop hangs"),
        pytest.param(None, NOW, False, 503, id="it has just started"),
    ],
)
def test_a_probe_asks_whether_the_agent_goes_on_as_the_leader(view: View | None, now: float, out: bool, status: int) -> None:
    assert ask(PROBE, view, now=now, out=out) == status
