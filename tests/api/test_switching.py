"""Switchover and failover by the API: which are refused and how, what is written, and what is answered when."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from rivha.agent.brain.view import View
from rivha.api import control
from rivha.dcs.base import Delete, Put
from rivha.model import FailoverRequest, LeaderKey, Outcome, PostgresStatus
from tests.api.controlling import call, later, recording
from tests.api.views import END, NOW, a_cluster, a_desk, a_member, a_primary, a_standby, a_view, silent_etcd, voters

LEADERLESS = a_view("b", cluster=a_cluster(None))
ALONE = a_view("a", cluster=a_cluster(members=(a_member("a", role="primary"),)))
SYNC = a_view("a", policy={"synchronous_mode": "on"}, cluster=a_cluster(sync=voters("b")))
ORPHANED = a_view("c", policy={"synchronous_mode": "quorum"}, cluster=a_cluster(None, sync=voters("b")))
VOTERLESS = a_view("c", policy={"synchronous_mode": "quorum"}, cluster=a_cluster(None, sync=voters()))
LEFTOVER = a_view("c", cluster=a_cluster(None, sync=voters("b")))  # the mode was turned off, and its leader died before it said so
GARBAGE = a_view("a", policy={"synchronous_mode": "quorum"}, cluster=a_cluster(complaints=("sync: is not JSON",)))
PAUSED = a_view("a", policy={"paused": True})
FAR_BEHIND = (a_member("a", role="primary"), a_member("b", xlog_location=END - (2 << 20)))
LAGGING = a_view("a", a_primary(replication=()), cluster=a_cluster(members=FAR_BEHIND))
PENDING = a_view("a", cluster=a_cluster(failover=FailoverRequest("a", "b", None, 4)))


@pytest.mark.parametrize(
    ("action", "body", "view", "status", "text"),
    [
        ("switchover", {}, a_view(), 400, "Switchover could be performed only from a specific leader"),
        ("failover", {}, a_view(), 400, "Failover could be performed only to a specific candidate"),
        ("failover", {"candidate": ""}, a_view(), 400, "Failover could be performed only to a specific candidate"),
        ("failover", {"candidate": "b", "scheduled_at": "2099-01-01T00:00+00:00"}, a_view(), 400, "Failover can't be scheduled"),
        ("switchover", {"leader": "a", "candidate": "a"}, a_view(), 400, "Switchover target and source are the same"),
        ("switchover", {"leader": 5}, a_view(), 400, "leader: "),
        ("switchover", {"leader": "a", "scheduled_at": "tomorrow"}, a_view(), 400, "Unable to parse scheduled timestamp"),
        ("switchover", {"leader": "a", "scheduled_at": "2099-01-01T00:00"}, a_view(), 400, "Timezone information is mandatory"),
        ("switchover", {"leader": "a", "scheduled_at": "2001-01-01T00:00Z"}, a_view(), 400, "Cannot schedule switchover in the past"),
        ("switchover", {"leader": "a", "scheduled_at": "2099-01-01T00:00Z"}, PAUSED, 400, "Can't schedule switchover in the paused state"),
        ("switchover", {"leader": "a"}, PAUSED, 400, "Switchover is possible only to a specific candidate in a paused state"),
        ("switchover", {"leader": "b"}, a_view(), 412, "switchover is not possible: leader name does not match: a leads"),
        ("switchover", {"leader": "a"}, LEADERLESS, 412, "switchover is not possible: leader name does not match: nobody leads"),
        ("switchover", {"leader": "a", "candidate": "x"}, a_view(), 412, "switchover is not possible: candidate does not exists"),
        ("switchover", {"leader": "a"}, ALONE, 412, "switchover is not possible: cluster does not have members except leader"),
        ("switchover", {"leader": "a", "candidate": "c"}, SYNC, 412, "candidate name does not match with sync_standby"),
        ("switchover", {"leader": "a", "candidate": "b"}, LAGGING, 412, "no good candidates have been found: b lags"),
        ("failover", {"candidate": "a"}, a_view(), 412, "failover is not possible: a is the leader already"),
        ("failover", {"candidate": "a"}, LEADERLESS, 200, "Successfully failed over"),
        ("failover", {"candidate": "b"}, LAGGING, 200, "Successfully failed over"),
        ("switchover", {"leader": "a", "accept_loss": True}, a_view(), 400, "accept_loss is for a failover"),
        ("failover", {"candidate": "b", "accept_loss": "sure"}, a_view(), 400, "accept_loss: "),
        ("failover", {"candidate": "c"}, SYNC, 412, "failover is not possible: c is no synchronous standby and may lack"),
        ("failover", {"candidate": "c", "accept_loss": True}, SYNC, 200, "Successfully failed over"),
        ("failover", {"candidate": "b"}, SYNC, 200, "Successfully failed over"),
        ("failover", {"candidate": "c"}, ORPHANED, 412, "acknowledged commits, which b held last; accept_loss"),
        ("failover", {"candidate": "c", "accept-loss": True}, ORPHANED, 200, "Successfully failed over"),
        ("failover", {"candidate": "b"}, ORPHANED, 200, "Successfully failed over"),
        ("failover", {"candidate": "a"}, ORPHANED, 200, "Successfully failed over"),
        ("failover", {"candidate": "c"}, VOTERLESS, 412, "acknowledged commits, which only a held last"),
        ("failover", {"candidate": "c"}, LEFTOVER, 412, "c is no synchronous standby"),
        ("switchover", {"leader": "a"}, GARBAGE, 412, "who holds the commits cannot be read: sync: is not JSON"),
        ("switchover", {"leader": "a"}, PENDING, 503, "DELETE /switchover withdraws it"),
        ("switchover", {"leader": "a"}, silent_etcd(a_view()), 503, "etcd does not answer this node"),
    ],
)
async def test_a_switch_is_refused_with_what_is_in_the_way(
    action: str, body: dict[str, object], view: View, status: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ETCD_S", 0.05)
    desk = a_desk(view)
    target = str(body.get("candidate"))
    recording(desk, lambda: later(view, leader=LeaderKey(target, 5, 101)))
    reply = await call(desk, "POST", f"/{action}", body)
    assert reply.status == status
    assert text in reply.text


@pytest.mark.parametrize(
    ("tags", "state", "why"),
    [
        ({"nofailover": True}, "running", "b has the tag nofailover"),
        ({"failover_priority": 0}, "running", "b has the tag nofailover"),
        ({}, "starting", "b is no running replica"),
    ],
)
@pytest.mark.parametrize("leader", ["a", None])
async def test_no_candidate_is_good_without_a_reason(leader: str | None, tags: dict[str, object], state: str, why: str) -> None:
    members = (a_member("a", role="primary"), a_member("b", tags=tags, state=state))
    reply = await call(a_desk(a_view(cluster=a_cluster(leader, members))), "POST", "/failover", {"candidate": "b"})
    assert reply.status == 412
    assert reply.text == f"failover is not possible: no good candidates have been found: {why}"


async def test_a_switchover_is_filed_and_answered_when_the_leader_has_changed() -> None:
    view = a_view("b")
    desk = a_desk(view)
    written = recording(desk, lambda: later(view, leader=LeaderKey("c", 5, 101)))

    reply = await call(desk, "POST", "/switchover", {"leader": "a", "candidate": "c"})

    assert (reply.status, reply.text) == (200, 'Successfully switched over to "c"')
    (put,) = written[0].then
    assert isinstance(put, Put)
    assert (put.key, json.loads(put.value)) == ("failover", {"leader": "a", "member": "c"})


@pytest.mark.parametrize(
    ("body", "postgres", "me"),
    [
        ({"leader": "a"}, a_primary(), "a"),
        ({"leader": "a"}, a_primary(replication=()), "a"),
        ({"leader": "a"}, a_standby(), "c"),
        ({"leader": "a", "candidate": "b"}, a_primary(replication=()), "a"),
    ],
)
async def test_a_switchover_asked_of_a_leader_that_has_just_taken_over_waits_for_its_voters(
    body: dict[str, str], postgres: PostgresStatus, me: str
) -> None:
    new = a_view(me, postgres, policy={"synchronous_mode": "quorum"}, cluster=a_cluster(sync=voters()))
    settled = a_view("a", policy={"synchronous_mode": "quorum"}, cluster=a_cluster(sync=voters("b")))
    desk = a_desk(new)
    written = recording(desk, lambda: later(settled, leader=LeaderKey("b", 78, 101)))
    asking = asyncio.create_task(call(desk, "POST", "/switchover", body))
    await asyncio.sleep(0)

    assert not asking.done()
    desk.publish(settled)

    assert (await asking).status == 200
    assert len(written) == 1


@pytest.mark.parametrize("why", ["nofailover", "down", "nobody there", "the wrong leader"])
async def test_a_switchover_that_no_waiting_would_make_possible_is_refused_at_once(why: str) -> None:
    tags, state = {"nofailover": why == "nofailover"}, "stopped" if why == "down" else "running"
    others = () if why == "nobody there" else (a_member("b", state=state, tags=tags),)
    cluster = a_cluster(sync=voters(), members=(a_member("a", role="primary"), *others))
    desk = a_desk(a_view("a", a_primary(replication=()), policy={"synchronous_mode": "quorum"}, cluster=cluster))

    body = {"leader": "c" if why == "the wrong leader" else "a"}
    async with asyncio.timeout(control.SETTLE_S / 2):
        assert (await call(desk, "POST", "/switchover", body)).status == 412


async def test_an_accepted_loss_is_part_of_the_request() -> None:
    desk = a_desk(ORPHANED)
    written = recording(desk, lambda: later(ORPHANED, leader=LeaderKey("c", 5, 101)))
    assert (await call(desk, "POST", "/failover", {"candidate": "c", "accept_loss": True})).status == 200
    assert json.loads(getattr(written[0].then[0], "value", "")) == {"member": "c", "accept_loss": True}


async def test_patronis_word_for_the_candidate_is_taken_as_well() -> None:
    desk = a_desk(a_view("b"))
    written = recording(desk, lambda: later(a_view("b"), leader=LeaderKey("b", 5, 101)))
    reply = await call(desk, "POST", "/failover", {"member": "b"})
    assert (reply.status, reply.text) == (200, 'Successfully failed over to "b"')
    assert json.loads(getattr(written[0].then[0], "value", "")) == {"member": "b"}


async def test_the_answer_names_who_took_over_instead() -> None:
    desk = a_desk(a_view("b"))
    recording(desk, lambda: later(a_view("b"), leader=LeaderKey("b", 5, 101)))
    reply = await call(desk, "POST", "/switchover", {"leader": "a", "candidate": "c"})
    assert (reply.status, reply.text) == (200, 'Switched over to "b" instead of "c"')


async def test_a_request_that_the_leader_dropped_is_a_failure() -> None:
    desk = a_desk(a_view("b"))
    recording(desk, lambda: later(a_view("b"), failover=None))
    reply = await call(desk, "POST", "/switchover", {"leader": "a", "candidate": "c"})
    assert reply.status == 503
    assert "a dropped the request" in reply.text


async def test_a_view_from_before_the_filing_decides_nothing() -> None:
    view = a_view("b")
    desk = a_desk(view)
    recording(desk, lambda: replace(view, cluster_seen_at=NOW - 1))
    waiting = asyncio.create_task(call(desk, "POST", "/switchover", {"leader": "a", "candidate": "c"}))
    await desk.next_view(15)
    desk.publish(later(view, leader=LeaderKey("c", 5, 101)))
    assert (await waiting).status == 200


async def test_a_switchover_that_nobody_carries_out_is_unknown_in_the_end() -> None:
    view = a_view("b")
    desk = a_desk(view)
    recording(desk)
    waiting = asyncio.create_task(call(desk, "POST", "/switchover", {"leader": "a", "candidate": "c"}))
    await asyncio.sleep(0)
    desk.clock = lambda: NOW + 1000
    desk.publish(later(view, failover=FailoverRequest("a", "c", None, 101)))
    reply = await waiting
    assert reply.status == 503
    assert "status unknown" in reply.text


@pytest.mark.parametrize(
    ("outcome", "text"), [(Outcome.UNKNOWN, "unknown whether it happened"), (Outcome.REFUSED, "another request came first")]
)
async def test_a_write_that_etcd_did_not_confirm_is_never_called_done(outcome: Outcome, text: str) -> None:
    reply = await call(a_desk(a_view(), outcome=outcome), "POST", "/switchover", {"leader": "a"})
    assert reply.status == 503
    assert text in reply.text


async def test_a_scheduled_switchover_is_accepted_and_can_be_withdrawn() -> None:
    desk = a_desk(a_view())
    written = recording(desk)
    at = "2099-01-01T00:00:00+00:00"
    assert (await call(desk, "POST", "/switchover", {"leader": "a", "scheduled_at": at})).status == 202
    assert json.loads(getattr(written[0].then[0], "value", "")) == {"leader": "a", "scheduled_at": at}

    assert (await call(desk, "DELETE", "/switchover")).status == 404
    desk.latest = a_view(cluster=a_cluster(failover=FailoverRequest("a", None, at, 4), failover_revision=4))
    assert (await call(desk, "DELETE", "/switchover")).status == 200
    assert written[1].then == (Delete("failover"),)
    assert written[1].when[0].mod_revision == 4
    recording(desk, outcome=Outcome.REFUSED)
    assert (await call(desk, "DELETE", "/switchover")).status == 409
    recording(desk, outcome=Outcome.UNKNOWN)
    assert (await call(desk, "DELETE", "/switchover")).status == 503
