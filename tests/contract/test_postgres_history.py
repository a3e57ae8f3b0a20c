"""The contract of rivha.postgres.base.Postgres where histories part: compare and rewind, on the model and on real servers."""

from __future__ import annotations

import asyncio

import pytest

from rivha.errors import CommandFailed, RivhaError
from rivha.model import Data, History, Role, State
from tests.contract.databases import Databases
from tests.contract.running import contract
from tests.postgres.nodes import caught_up, commit, eventually, has, take_over

# ---- compare


@contract
async def test_a_standby_that_is_behind_has_the_leaders_history(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await b.server.freeze()
    await commit(a, "t")
    assert (await b.server.compare(a.upstream))[0] is History.SAME
    await b.server.stop(fast_s=30)
    assert (await b.server.compare(a.upstream))[0] is History.SAME


@contract
async def test_after_a_clean_switchover_the_old_primary_may_follow(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await commit(a, "t")
    await a.server.stop(fast_s=30)
    await take_over(b, a.name)
    history, text = await a.server.compare(b.upstream)
    assert history is History.SAME, text
    await a.server.start(primary=False, upstream=b.upstream)
    await eventually(a.streams)
    assert (await a.status()).timeline == 2


@contract
async def test_a_killed_primary_with_a_tail_of_its_own_diverged(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await b.server.freeze()
    await commit(a, "tail")
    await take_over(b, a.name)
    history, text = await a.server.compare(b.upstream)
    assert history is History.DIVERGED, text
    await a.server.stop(fast_s=0)
    history, text = await a.server.compare(b.upstream)
    assert history is History.DIVERGED, text


@contract
async def test_a_standby_past_the_point_where_the_leader_turned_off_diverged(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await b.server.freeze()
    await commit(a, "only_c_got_it")
    await caught_up(c, a)
    await a.server.stop(fast_s=0)
    await take_over(b, c.name)
    assert (await c.server.compare(b.upstream))[0] is History.DIVERGED
    await c.server.stop(fast_s=30)
    assert (await c.server.compare(b.upstream))[0] is History.DIVERGED


@contract
async def test_a_second_history_on_the_same_timeline_number_diverged(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await c.server.freeze()
    await commit(a, "only_b_got_it")
    await caught_up(b, a)
    await take_over(b)
    await c.server.promote()
    await b.server.stop(fast_s=0)
    history, text = await b.server.compare(c.upstream)
    assert history is History.DIVERGED, text


@contract
async def test_a_running_standby_of_a_second_history_on_the_same_timeline_number_diverged(nodes: Databases):
    """PostgreSQL would stream on from there, and mix them (docs/decisions/0010)."""
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await a.server.stop(fast_s=0)
    await take_over(b, c.name)
    await c.server.follow(b.upstream)
    await commit(b, "only_b_and_c_got_it")
    await caught_up(c, b)
    await b.server.stop(fast_s=0)
    await a.server.start(primary=False, upstream=None)
    await a.server.promote()
    await commit(a, "only_a_got_it")
    history, text = await c.server.compare(a.upstream)
    assert history is History.DIVERGED, text


@contract
async def test_the_control_file_names_the_new_timeline_after_a_checkpoint(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    assert not (await a.status()).checkpoint_due
    await commit(a, "t")  # something for the checkpoint to write: PostgreSQL's own takes its time over it, but not over nothing
    await caught_up(b, a)
    await b.server.freeze()
    await b.server.promote()
    for agent in (b, b.again()):
        assert (await agent.status()).checkpoint_due
    await b.server.checkpoint()
    for agent in (b, b.again()):
        status = await agent.status()
        assert (status.timeline, status.checkpoint_due) == (2, False)


@contract
async def test_a_crash_right_after_a_promotion_is_seen_as_the_new_timeline(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await b.server.freeze()
    await b.server.promote()
    b.kill_postmaster()
    await b.server.stop(fast_s=0)
    assert (await b.status()).timeline == 2
    history, text = await b.server.compare(a.upstream)
    assert history is History.DIVERGED, text


@contract
async def test_nothing_is_said_about_a_leader_that_does_not_answer(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await a.server.stop(fast_s=0)
    history, text = await b.server.compare(a.upstream)
    assert history is History.UNKNOWN
    assert a.upstream.address in text


# ---- rewind


@contract
async def test_a_diverged_tail_is_rewound_and_streaming_goes_on(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await commit(a, "kept")
    await caught_up(b, a)
    await b.server.freeze()
    await commit(a, "tail")
    await a.server.stop(fast_s=0)
    await take_over(b, a.name)
    await commit(b, "new")
    await a.server.rewind(b.upstream)
    status = await a.status()
    assert (status.state, status.data, status.role) == (State.STOPPED, Data.VALID, Role.STANDBY)
    await a.server.start(primary=False, upstream=b.upstream)
    await eventually(a.streams)
    await caught_up(a, b)
    assert [await has(a, table) for table in ("kept", "tail", "new")] == [True, False, True]


@contract
async def test_a_rewind_that_is_interrupted_is_never_started_but_rewound_again(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await b.server.freeze()
    await commit(a, "tail")
    await a.server.stop(fast_s=0)
    await take_over(b, a.name)
    rewinding = asyncio.create_task(a.server.rewind(b.upstream))

    async def begun() -> bool:
        return (await a.status()).data is Data.UNFINISHED

    await eventually(begun)
    rewinding.cancel()
    await asyncio.wait([rewinding])
    status = await a.again().status()
    assert (status.data, status.unfinished) == (Data.UNFINISHED, "rewind")
    for primary in (True, False):
        with pytest.raises(CommandFailed, match="interrupted"):
            await a.server.start(primary=primary, upstream=None)
    await a.server.rewind(b.upstream)
    await a.server.start(primary=False, upstream=b.upstream)
    await eventually(a.streams)
    assert not await has(a, "tail")


@contract
async def test_a_rewind_whose_source_dies_under_it_is_never_started_but_cloned(nodes: Databases):
    """Another rewind may do or not: PostgreSQL 18 was seen to find no WAL that it could read in what the first one left."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await b.server.freeze()
    await commit(a, "tail")
    await a.server.stop(fast_s=0)
    await take_over(b, a.name)
    rewinding = asyncio.create_task(a.server.rewind(b.upstream))

    async def begun() -> bool:
        return rewinding.done() or (await a.status()).data is Data.UNFINISHED

    await eventually(begun)
    b.leave_children()
    await b.server.stop(fast_s=0.0)
    with pytest.raises(RivhaError):
        await rewinding
    assert (await a.status()).unfinished == "rewind"
    for primary in (True, False):
        with pytest.raises(CommandFailed, match="interrupted"):
            await a.server.start(primary=primary, upstream=None)
    await b.server.start(primary=True, upstream=None)
    await a.server.clone(b.upstream)
    await a.server.start(primary=False, upstream=b.upstream)
    await eventually(a.streams)
    assert not await has(a, "tail")


@contract
async def test_a_rewind_that_cannot_begin_changes_nothing(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await a.server.stop(fast_s=30)
    await b.server.stop(fast_s=30)
    with pytest.raises(RivhaError, match="does not answer"):
        await a.server.rewind(b.upstream)
    assert (await a.status()).data is Data.VALID


@contract
async def test_what_was_rewound_in_vain_can_be_cloned(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await b.server.stop(fast_s=30)
    b.mark("rewind")
    assert (await b.status()).data is Data.UNFINISHED
    await b.server.clone(a.upstream)
    await b.server.start(primary=False, upstream=a.upstream)
    await eventually(b.streams)
    assert b.aside == 1
