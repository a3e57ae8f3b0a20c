"""The contract of Postgres where commits wait for standbys (HAZARDS H): what is acknowledged, what is seen, and what ends the waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rivha.model import Role
from tests.contract.databases import Databases, Node, Session, names
from tests.contract.running import contract
from tests.postgres.nodes import caught_up, commit, eventually, has


@asynccontextmanager
async def committing(node: Node, table: str) -> AsyncIterator[tuple[Session, asyncio.Task[str]]]:
    """A commit that waits for standbys by now; in the end it must have been answered."""
    session = await node.session()
    answer = asyncio.create_task(session.commit(table))
    try:
        await eventually(session.waits)
        yield session, answer
        await eventually(lambda: _done(answer))
    finally:
        answer.cancel()
        await asyncio.wait([answer])


async def _done(answer: asyncio.Task[str]) -> bool:
    await asyncio.sleep(0.01)
    return answer.done()


# ---- whom a commit waits for


@contract
async def test_a_commit_waits_for_the_standby_that_is_named_and_nobody_sees_it_before(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await names(a, f"ANY 1 ({b.name})")
    await commit(a, "while_it_streams")
    await b.server.freeze()
    async with committing(a, "t") as (_, answer):
        assert not await has(a, "t")
        await b.server.follow(a.upstream)
    assert await answer == "acknowledged"
    assert await has(a, "t")


@contract
async def test_any_two_are_needed_when_two_are_wanted_and_a_standby_shows_the_commit_first(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await names(a, f"ANY 2 ({b.name}, {c.name})")
    await c.server.freeze()
    async with committing(a, "t") as (_, answer):
        await eventually(lambda: b.has("t"))
        assert not await has(a, "t")
        await c.server.follow(a.upstream)
    assert await answer == "acknowledged"


@contract
async def test_of_a_list_by_priority_the_first_counts_and_the_next_takes_its_place(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await names(a, f'FIRST 1 ("{b.name}", {c.name})')
    rows = {row.application_name: (row.sync_state, row.sync_priority) for row in (await a.status()).replication}
    assert rows == {b.name: ("sync", 1), c.name: ("potential", 2)}
    await b.server.freeze()

    async def moved_up() -> bool:
        return [row.sync_state for row in (await a.status()).replication] == ["sync"]

    await eventually(moved_up)
    await commit(a, "t")
    await names(a, f"ANY 1 ({b.name}, {c.name})")
    await b.server.follow(a.upstream)

    async def both() -> bool:
        return [row.sync_state for row in (await a.status()).replication] == ["quorum", "quorum"]

    await eventually(both)


@contract
async def test_everybody_is_named_by_a_star(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await names(a, "*")
    assert [row.sync_state for row in (await a.status()).replication] == ["sync"]
    await b.server.freeze()
    async with committing(a, "t") as (_, answer):
        await b.server.follow(a.upstream)
    assert await answer == "acknowledged"


# ---- revocation: what the takeover of DESIGN 6 stands on


@contract
async def test_once_enough_receivers_are_stopped_nothing_more_is_acknowledged_and_the_most_advanced_holds_all_that_was(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await names(a, f"ANY 1 ({b.name}, {c.name})")
    await b.server.freeze()
    await commit(a, "only_c_has_it")
    ends = {n.name: (await n.server.freeze()).lsn for n in (b, c)}
    async with committing(a, "never_acknowledged") as (_, answer):
        assert ends[c.name] > ends[b.name]
        await c.server.promote()
        assert await has(c, "only_c_has_it")
        assert not await has(c, "never_acknowledged")
        a.kill_postmaster()
    assert await answer == "broken"


@contract
async def test_a_standby_whose_replay_is_paused_still_acknowledges_and_its_promotion_replays_it_all(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await names(a, f"ANY 1 ({b.name})")
    await caught_up(b, a)
    await b.pause_replay()
    await commit(a, "t")
    assert not await has(b, "t")
    end = await b.server.freeze()
    status = await b.status()
    assert status.replay_paused
    assert status.replay_lsn is not None
    assert end.lsn == status.receive_lsn
    assert status.replay_lsn < end.lsn
    await b.server.promote()
    assert (await b.status()).role is Role.PRIMARY
    assert await has(b, "t")


# ---- what ends the waiting


@contract
async def test_a_cancelled_wait_leaves_a_commit_that_everybody_sees_and_nobody_may_count_on(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await names(a, f"ANY 1 ({b.name})")
    await b.server.freeze()
    async with committing(a, "t") as (session, answer):
        await session.cancel()
    assert await answer == "only local"
    assert await has(a, "t")
    assert not await has(b, "t")


@contract
async def test_other_names_let_through_what_their_standbys_hold(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await names(a, f"ANY 1 ({b.name})")
    await b.server.freeze()
    async with committing(a, "t") as (_, answer):
        await names(a, f"ANY 1 ({c.name})")
    assert await answer == "acknowledged"


@contract
async def test_without_names_nobody_waits_any_more(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await names(a, f"ANY 1 ({b.name})")
    await b.server.freeze()
    async with committing(a, "t") as (_, answer):
        await names(a, "")
    assert await answer == "acknowledged"
    assert not await has(b, "t")
    await commit(a, "u")


@contract
async def test_crash_recovery_makes_visible_what_was_waiting(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await names(a, f"ANY 1 ({b.name})")
    await b.server.freeze()
    async with committing(a, "t") as (_, answer):
        a.kill_postmaster()
    assert await answer == "broken"
    await a.server.stop(fast_s=0)
    await a.server.start(primary=True, upstream=None)
    assert await has(a, "t")
    assert (await a.status()).synchronous_standby_names == f"ANY 1 ({b.name})"


@contract
async def test_a_fast_stop_breaks_the_waiting_off_and_keeps_the_commit(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await names(a, f"ANY 1 ({b.name})")
    await b.server.freeze()
    async with committing(a, "t") as (_, answer):
        await a.server.stop(fast_s=30)
    assert await answer == "broken"
    assert (await a.status()).clean
    await a.server.start(primary=True, upstream=None)
    assert await has(a, "t")
