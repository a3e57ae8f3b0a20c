"""The contract of rivha.postgres.base.Postgres, on the model and on real servers. Each test is one promise that both keep."""

from __future__ import annotations

import asyncio

import pytest

from rivha.errors import CommandFailed
from rivha.model import Data, History, Role, State
from tests.contract.databases import AGES_S, Databases
from tests.contract.running import contract
from tests.postgres.nodes import DEADLINE_S, DYNAMIC, caught_up, commit, eventually, has, slots, stays_undone, take_over

# ---- bootstrap


@contract
async def test_bootstrap_makes_a_writable_primary_of_an_empty_directory(nodes: Databases):
    a = nodes.node("a")
    assert (await a.status()).data is Data.EMPTY
    system_id = await a.server.bootstrap()
    status = await a.status()
    assert (status.state, status.role, status.data, status.timeline) == (State.RUNNING, Role.PRIMARY, Data.VALID, 1)
    assert status.system_id == system_id
    assert status.rewindable
    await commit(a, "t")
    with pytest.raises(CommandFailed, match="not empty"):
        await a.server.bootstrap()


# ---- clone, start, stream


@contract
async def test_a_clone_starts_as_a_standby_and_streams(nodes: Databases):
    a = await nodes.primary()
    await commit(a, "before")
    b = await nodes.standby(of=a)
    await commit(a, "after")
    await caught_up(b, a)
    assert await has(b, "before")
    assert await has(b, "after")
    status, of_a = await b.status(), await a.status()
    assert (status.state, status.role, status.timeline, status.upstream) == (State.RUNNING, Role.STANDBY, 1, a.upstream.address)
    assert status.system_id == of_a.system_id
    assert status.replay_age_s is not None
    assert [(r.application_name, r.usename, r.state) for r in of_a.replication] == [(b.name, "replicator", "streaming")]
    assert set(of_a.slots) == {b.name}


@contract
async def test_a_cancelled_clone_leaves_nothing_that_could_be_started_and_can_be_repeated(nodes: Databases):
    a, b = await nodes.primary(), nodes.node("b")
    cloning = asyncio.create_task(b.server.clone(a.upstream))

    async def begun() -> bool:
        return cloning.done() or b.copying

    await eventually(begun)
    cloning.cancel()
    await asyncio.wait([cloning])
    with pytest.raises(CommandFailed):
        await b.server.start(primary=False, upstream=a.upstream)
    await b.server.clone(a.upstream)
    await b.server.start(primary=False, upstream=a.upstream)
    await slots(a, b.name)
    await eventually(b.streams)


@contract
async def test_a_clone_refuses_a_directory_that_holds_data(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    with pytest.raises(CommandFailed, match="running"):
        await b.server.clone(a.upstream)
    await b.server.stop(fast_s=30)
    with pytest.raises(CommandFailed, match="not empty"):
        await b.server.clone(a.upstream)
    assert (await b.status()).data is Data.VALID


@contract
async def test_a_clone_of_somebody_who_is_not_there_leaves_nothing_that_could_be_started(nodes: Databases):
    a = await nodes.primary()
    b = nodes.node("b")
    await a.server.stop(fast_s=30)
    with pytest.raises(CommandFailed):
        await b.server.clone(a.upstream)
    assert (await b.status()).data in (Data.EMPTY, Data.UNFINISHED)
    with pytest.raises(CommandFailed):
        await b.server.start(primary=False, upstream=a.upstream)


# ---- starting and stopping


@contract
async def test_start_leaves_what_runs_in_that_role_alone_and_refuses_the_other(nodes: Databases):
    a = await nodes.primary()
    pid = (await a.status()).pid
    await a.server.start(primary=True, upstream=None)
    with pytest.raises(CommandFailed, match="primary"):
        await a.server.start(primary=False, upstream=None)
    assert (await a.status()).pid == pid


@contract
async def test_a_killed_postmaster_is_noticed_and_started_in_place(nodes: Databases):
    a = await nodes.primary()
    await commit(a, "t")
    await a.status()
    a.kill_postmaster()

    async def noticed() -> bool:
        return bool(a.deaths)

    await eventually(noticed)
    status = await a.status()
    assert (status.state, status.role, status.clean) == (State.CRASHED, Role.PRIMARY, False)
    await a.server.start(primary=True, upstream=None)
    status = await a.status()
    assert (status.state, status.role, status.timeline) == (State.RUNNING, Role.PRIMARY, 1)
    assert await has(a, "t")


@contract
async def test_a_fast_stop_is_clean(nodes: Databases):
    a = await nodes.primary()
    await a.server.stop(fast_s=30)
    status = await a.status()
    assert (status.state, status.role, status.clean) == (State.STOPPED, Role.PRIMARY, True)
    assert not a.runs
    await a.server.stop(fast_s=30)


@contract
async def test_a_fast_stop_gives_its_shutdown_checkpoint_to_the_standbys_and_says_where_that_begins(nodes: Databases):
    """So a candidate of a switchover holds it exactly if its WAL ends after what the stopped one says."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await commit(a, "t")
    before = await a.end_of_wal()
    await a.server.stop(fast_s=30)
    stopped, standby = await a.status(), await b.status()
    assert stopped.wal_lsn is not None
    assert standby.receive_lsn is not None
    assert before <= stopped.wal_lsn < standby.receive_lsn


@contract
@pytest.mark.parametrize("quit_s", [0.0, 1.0], ids=["killed", "immediate"])
async def test_who_hears_nothing_is_not_waited_for_beyond_linger_s_and_all_is_as_after_a_fast_stop(nodes: Databases, quit_s: float):
    """A standby that lives has it all; the directory is clean, and follows without a rewind (HAZARDS C 39)."""
    a = await nodes.primary()
    b, c = await nodes.standby(of=a, name="b"), await nodes.standby(of=a, name="c")
    await commit(a, "t")
    await a.stop_reporting(b)
    async with asyncio.timeout(DEADLINE_S):
        await a.server.stop(fast_s=AGES_S, quit_s=quit_s, linger_s=0.5)
    stopped, standby = await a.status(), await c.status()
    assert (stopped.state, stopped.role, stopped.clean, stopped.problem, a.runs) == (State.STOPPED, Role.PRIMARY, True, "", False)
    assert (stopped.wal_lsn or 0) < (standby.receive_lsn or 0)
    await take_over(c, a.name)
    assert (await a.server.compare(c.upstream))[0] is History.SAME
    await a.server.start(primary=False, upstream=c.upstream)
    await eventually(a.streams)
    assert await has(a, "t")


@contract
async def test_without_linger_s_a_fast_stop_waits_for_a_standby_that_says_nothing_now(nodes: Databases):
    """An asynchronous candidate may lack what was acknowledged."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    b.hang()
    stopping = asyncio.create_task(a.server.stop(fast_s=30))
    await stays_undone(stopping)
    b.go_on()
    await stopping
    stopped, standby = await a.status(), await b.status()
    assert (stopped.wal_lsn or 0) < (standby.receive_lsn or 0)


@contract
async def test_a_stop_that_is_not_heard_kills(nodes: Databases):
    a = await nodes.primary()
    a.hang()
    assert await a.server.is_left()
    await a.server.stop(fast_s=0.2, quit_s=0.2)
    assert not a.runs
    assert not await a.server.is_left()
    assert (await a.status()).state is State.CRASHED


@contract
async def test_silence_is_neither_death_nor_another_role(nodes: Databases):
    a = await nodes.primary()
    assert (await a.status()).role is Role.PRIMARY
    a.hang()
    status = await a.server.status(0.5)
    assert (status.state, status.role) == (State.SILENT, Role.PRIMARY)
    a.go_on()

    async def answers() -> bool:
        return (await a.status()).state is State.RUNNING

    await eventually(answers)


@contract
async def test_a_new_agent_adopts_what_runs(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    pid = (await b.status()).pid
    await b.server.close()
    adopted = b.again()
    await adopted.server.configure(DYNAMIC, reload=True)
    status = await adopted.status()
    assert (status.pid, status.state, status.upstream) == (pid, State.RUNNING, a.upstream.address)
    await adopted.server.follow(a.upstream)
    await commit(a, "t")
    await caught_up(adopted, a)
    assert (await adopted.status()).pid == pid
    adopted.kill_postmaster()

    async def noticed() -> bool:
        return bool(adopted.deaths)

    await eventually(noticed)
    await adopted.server.close()


# ---- freeze, promote, follow


@contract
async def test_after_a_freeze_nothing_more_arrives(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await commit(a, "before")
    await caught_up(b, a)
    end = await b.server.freeze()
    await commit(a, "after")
    status = await b.status()
    assert status.upstream is None
    assert not status.streaming
    assert end.timeline == 1
    assert end.lsn == max(status.receive_lsn or 0, status.replay_lsn or 0)
    assert await has(b, "before")
    assert not await has(b, "after")

    async def let_go() -> bool:
        return not (await a.status()).replication

    await eventually(let_go)
    await b.server.configure({"postgresql": {"parameters": {"work_mem": "5MB"}}}, reload=True)
    assert await b.server.freeze() == end


@contract
async def test_the_end_of_wal_is_known_after_a_restart_without_anybody_to_stream_from(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await commit(a, "t")
    await caught_up(b, a)
    before = (await b.status()).replay_lsn
    await a.server.stop(fast_s=0)
    await b.server.stop(fast_s=30)
    await b.server.start(primary=False, upstream=None)
    end = await b.server.freeze()
    assert before is not None
    assert end.lsn >= before
    assert end.timeline == 1


@contract
async def test_a_promoted_standby_is_writable_on_a_new_timeline(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await commit(a, "t")
    await caught_up(b, a)
    await a.server.stop(fast_s=0)
    end = await b.server.freeze()
    await b.server.promote()
    await b.server.promote()
    status = await b.status()
    assert (status.role, status.timeline) == (Role.PRIMARY, 2)
    assert await has(b, "t")
    await commit(b, "u")
    ((timeline, lsn),) = [(line.timeline, line.lsn) for line in await b.server.timelines()]
    assert timeline == 1
    assert lsn <= end.lsn
    for refused in (b.server.freeze(), b.server.follow(a.upstream)):
        with pytest.raises(CommandFailed, match="primary"):
            await refused


@contract
async def test_who_is_being_promoted_streams_from_nobody_although_it_is_told_to(nodes: Databases):
    """An agent that begins in the middle of a promotion may send the Postgres that it finds, still a standby, after the leader of now."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await commit(a, "before")
    await caught_up(b, a)
    end = await b.server.freeze()
    await b.hold_promotion()
    promoting = asyncio.create_task(b.server.promote())
    await eventually(b.is_being_promoted)
    await b.again().server.follow(a.upstream)
    await commit(a, "after")
    await asyncio.sleep(0.5)  # it would connect at once
    assert not (await b.status()).streaming
    b.let_promotion_end()
    await promoting
    assert not (await a.status()).replication
    assert (await b.status()).role is Role.PRIMARY
    assert await has(b, "before")
    assert not await has(b, "after")
    ((timeline, lsn),) = [(line.timeline, line.lsn) for line in await b.server.timelines()]
    assert timeline == 1
    assert lsn <= end.lsn


@contract
async def test_follow_changes_the_upstream_without_a_restart(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    pid = (await c.status()).pid
    await c.server.freeze()
    await take_over(b, c.name)
    await c.server.follow(b.upstream)
    await eventually(c.streams)
    await commit(b, "t")
    await caught_up(c, b)
    status = await c.status()
    assert (status.pid, status.upstream, status.timeline) == (pid, b.upstream.address, 2)


# ---- the rest


@contract
async def test_who_follows_nobody_gets_nothing_more_and_follows_again_without_a_restart(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await commit(a, "before")
    await caught_up(b, a)
    before = (await b.status()).receive_lsn
    assert before is not None
    await b.server.follow(None)
    assert (await a.status()).replication == ()
    await commit(a, "unheard")
    status = await b.status()
    assert (status.role, status.upstream, status.streaming) == (Role.STANDBY, None, False)
    assert status.receive_lsn is not None
    assert status.receive_lsn >= before  # so much is known yet: what is compared with a leader's
    assert not await has(b, "unheard")
    await b.server.follow(a.upstream)
    await caught_up(b, a)
    assert await has(b, "unheard")


@contract
async def test_slots_are_made_kept_while_in_use_and_dropped(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await slots(a, b.name, "c")
    assert set((await a.status()).slots) == {b.name, "c"}
    await slots(a)
    assert set((await a.status()).slots) == {b.name}, "b streams from its slot"


@contract
async def test_a_standbys_slots_are_advanced_but_not_beyond_its_replay(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await slots(b, "c")
    begin = (await b.status()).slots["c"]
    await commit(a, "t")
    await caught_up(b, a)
    far = 1 << 40
    await b.status()
    await b.server.keep_slots({"c"}, {"c": far})
    status = await b.status()
    assert status.replay_lsn is not None
    assert begin < status.slots["c"] <= status.replay_lsn
