"""Example tests show, enumeration proves: laws that hold in every View of a large product of facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from rivha.agent.brain import actions as do
from rivha.agent.brain.decide import POSTGRES, decide
from rivha.agent.brain.holding import LEASE, why_my_primary_may_not_lead
from rivha.agent.brain.upkeep import Housekeeping, describe, upkeep
from rivha.agent.brain.view import Situation, View
from rivha.model import Data, Role, State
from tests.brain import synchronous_worlds
from tests.build import ME, MEMBER_LEASE, NOW, PRIMARY, STANDBY, World, a_member, a_view

LEADERS = (
    "mine",
    "mine, lease over",
    "mine, lease unknown",
    "mine, in doubt",
    "db1",
    "db1 promoting",
    "nobody",
    "nobody for long",
    "etcd silent",
    "bootstrap",
    "new",
)
POSTGRESES = tuple(product((PRIMARY, STANDBY, Role.UNKNOWN), State)) + tuple((Data.EMPTY, x) for x in ("", "clone", "rewind", "bootstrap"))
EXTRAS = (
    "",
    "pledged",
    "paused",
    "stopping",
    "switchover",
    "failover to me",
    "diverged",
    "same",
    "holder",
    "wishes",
    "foreign",
    "failed",
    "away",
    "resigned",
    "starved",
)
JOBS = ("", "promote", "stop", "start", "pledge", "clone", "handover", "bootstrap")


def worlds() -> Iterator[World]:
    for leader, postgres, extra, job in product(LEADERS, POSTGRESES, EXTRAS, JOBS):
        w = _leader(_postgres(a_view(), postgres), leader)
        w = _extra(w, extra, leader)
        yield w.busy(job, "primary" if job == "start" else "") if job else w


def _postgres(w: World, kind: tuple[object, object]) -> World:
    if kind[0] is Data.EMPTY:
        return w.no_data(Data.UNFINISHED if kind[1] else Data.EMPTY, str(kind[1]))
    role, state = kind
    assert isinstance(role, Role)
    assert isinstance(state, State)
    since = {"silent_since": NOW - 60} if state is State.SILENT else {"starting_since": NOW - 400} if state is State.STARTING else {}
    return w.me(role, state, clean=state is not State.CRASHED).remembers(**since)


def _leader(w: World, leader: str) -> World:
    match leader:
        case "mine":
            return w.leads(9.0)
        case "mine, lease over":
            return w.leads(-1.0)
        case "mine, lease unknown":
            w.leads()
            w.lease = None
            return w
        case "mine, in doubt":
            w.leads()
            assert w.lease is not None
            w.lease = replace(w.lease, expires_at=NOW, doubtful=True)
            return w
        case "db1":
            return w.leader("db1")
        case "db1 promoting":
            return w.leader("db1", "replica")
        case "nobody":
            return w.leaderless(0.1)
        case "nobody for long":
            return w.leaderless(60.0)
        case "etcd silent":
            return w.leads(1.0).etcd_silent(8.0)
        case "bootstrap":
            return w.leaderless().initialize("", lease_id=MEMBER_LEASE).holder(None)
        case _:
            return w.leaderless().initialize(None).holder(None).without("db1", "db3")


def _extra(w: World, extra: str, leader: str) -> World:
    silent = leader == "etcd silent"
    match extra:
        case "pledged" if not silent:
            return w.pledged(lsn=200)
        case "paused":
            return w.paused()
        case "stopping":
            return w.stopping()
        case "switchover" if not silent:
            return w.wanted(ME, "db3")
        case "failover to me" if not silent:
            return w.wanted(None, ME).pledged()
        case "diverged" | "same":
            w.status = replace(w.status, upstream="10.0.0.1:5432" if w.status.role is STANDBY else None)
            return w.compared(extra).remembers(not_streaming_since=NOW - 60)
        case "resigned" if not silent:
            return w.resigned(ME, "db3").holder(ME)
        case "holder" if not silent:
            return w.holder(ME)
        case "starved" if w.status.role is STANDBY:
            w.status = replace(w.status, upstream="10.0.0.1:5432", streaming=True, too_small={"max_connections": (50, 100)})
        case "wishes":
            return w.wish("reinitialize")
        case "foreign" if not silent and leader not in ("bootstrap", "new"):
            return w.etcd(initialize="1")
        case "failed":
            return w.failures("start", 4).failures("rewind", 3).failures("set_aside", 0).remembers(crashes=(NOW - 3, NOW - 2, NOW - 1))
        case "away" if not silent:
            return w.member(a_member("db3", state="stopped")).resigned("db1", ME)
    return w


@pytest.fixture(scope="module")
def views() -> list[View]:
    return [w.view() for w in worlds()]


def test_there_is_always_an_answer_and_it_gives_its_reason(views: list[View]):
    for v in views:
        d = decide(v)
        assert d.lease.reason
        assert d.lease.rule
        assert d.postgres.reason
        assert d.postgres.rule
        upkeep(v, describe(v, a_member(ME)), Housekeeping())


def test_promotion_implies_leadership_on_a_live_lease(views: list[View]):
    promoted = [v for v in views if isinstance(decide(v).postgres.action, do.Promote)]

    assert promoted
    assert all(v.i_lead for v in promoted)


def test_a_primary_starts_only_with_leadership_or_within_its_lease(views: list[View]):
    started = [v for v in views if (a := decide(v).postgres.action) == do.Start(True, None, getattr(a, "start_before", None))]

    assert started
    assert all(v.i_lead or (v.cluster is None and v.lease_is_live) for v in started)


def test_a_pause_changes_no_role_unless_an_operator_asks_and_keeps_the_key_of_a_primary(views: list[View]):
    changes = (do.Promote, do.Stop, do.Start, do.Rewind, do.Clone, do.HandOver)
    for v in (v for v in views if v.policy.paused):
        assert not isinstance(decide(v).postgres.action, changes)
        if v.key_is_mine and v.is_primary:
            assert isinstance(decide(v).lease.action, (do.Renew, do.Rebind))


def test_a_primary_that_another_leads_is_always_being_stopped(views: list[View]):
    seen = 0
    for v in views:
        if v.situation is Situation.FOLLOWING and v.is_primary:
            seen += 1
            if v.data_is_of_this_cluster:
                assert isinstance(decide(v).postgres.action, do.Stop) or v.busy_with("stop")
            else:
                assert isinstance(decide(v).postgres.action, do.GiveUp)  # it is no primary of this cluster: not ours to stop
    assert seen


def test_a_primary_past_its_lease_is_always_being_stopped(views: list[View]):
    """By a rule within the tick; the fence does it when the rules do not."""
    seen = 0
    for v in views:
        if (
            v.is_primary
            and v.lease is not None
            and v.now >= v.lease.expires_at
            and not v.policy.paused
            and v.situation is not Situation.PAUSED
        ):
            seen += 1
            assert isinstance(decide(v).postgres.action, do.Stop) or v.busy_with("stop", "handover")
    assert seen


def test_nothing_streams_while_my_pledge_stands(views: list[View]):
    for v in views:
        action = decide(v).postgres.action
        if v.my_pledge is not None:
            assert not isinstance(action, do.Follow)
            assert not (isinstance(action, do.Start) and action.upstream is not None)


def test_who_resigns_starts_no_primary_in_the_same_tick(views: list[View]):
    for v in views:
        d = decide(v)
        if isinstance(d.lease.action, do.Resign):
            assert not isinstance(d.postgres.action, do.Promote)
            assert not (isinstance(d.postgres.action, do.Start) and d.postgres.action.primary)


def test_destructive_work_is_never_done_on_foreign_or_running_data(views: list[View]):
    for v in views:
        action = decide(v).postgres.action
        if isinstance(action, do.Rewind | do.Clone):
            assert v.down
            assert v.data_is_of_this_cluster


def test_an_unfinished_directory_is_never_started(views: list[View]):
    for v in views:
        if v.postgres.data is not Data.VALID:
            assert not isinstance(decide(v).postgres.action, do.Start | do.Promote)


def test_the_free_key_is_taken_only_by_who_may(views: list[View]):
    for v in views:
        action = decide(v).lease.action
        if isinstance(action, do.Acquire | do.Win):
            assert v.nobody_leads
        if isinstance(action, do.Acquire):
            assert v.postgres.role is Role.PRIMARY
            assert why_my_primary_may_not_lead(v) is None
        if isinstance(action, do.Win):
            assert v.my_pledge is not None
            assert v.postgres.role is Role.STANDBY


def test_resigning_needs_that_no_postgres_is_left(views: list[View]):
    resigned = [v for v in views if isinstance(decide(v).lease.action, do.Resign) and not v.policy.paused]

    assert resigned
    assert all(v.down and not v.busy for v in resigned)


def test_no_rule_is_unreachable(views: list[View]):
    fired: Counter[str] = Counter()
    for v in (*views, *(w.view() for w in synchronous_worlds.worlds())):
        d = decide(v)
        fired.update((d.lease.rule, d.postgres.rule))
    rules = {rule.__name__ for table in (LEASE, *POSTGRES.values()) for rule in table}
    # These need a fact that the product above leaves out; each has a test of its own.
    elsewhere = {
        "compare_when_it_does_not_stream",
        "compare_what_streams_already",
        "move_to_a_lease_of_the_new_ttl",
        "stand_still_on_what_cannot_be_read",
        "take_my_claim_back_after_a_failed_bootstrap",
        "lead_what_i_bootstrapped",
        "restart_on_request",
        "leave_what_cannot_be_used",
        "wait_for_a_leader_that_can_be_reached",
        "stop_a_primary_of_unknown_right",
        "restart_in_place_while_my_lease_lives",
        "promote_whom_the_operator_named",
        "stop_what_cannot_be_promoted",
        "stop_a_postgres_without_its_directory",
        "stop_what_is_unfinished",
        "start_again_with_the_leader",
        "let_a_key_run_out_that_i_did_not_win",
        "leave_a_voter_that_somebody_promoted",
    }
    assert rules - set(fired) <= elsewhere
