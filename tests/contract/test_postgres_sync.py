"""The contract of Postgres where commits wait for standbys (HAZARDS H): what is acknowledged, what is seen, and what ends the waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rivha.errors import CommandFailed
from rivha.model import PostgresStatus, Role
from tests.contract.databases import Databases, Node, Session, names
from tests.contract.running import contract
from tests.postgres.nodes import caught_up, commit, eventually, has, take_over


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


# ---- names come and go


def rows(status: PostgresStatus) -> dict[str, str]:
    return {row.application_name: row.sync_state for row in status.replication}


@contract
async def test_names_that_are_in_force_are_confirmed_and_every_standby_goes_by_them(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    assert not (await a.status()).names_confirmed
    both = {b.name: "quorum", c.name: "quorum"}
    for text, expected in (
        (f'ANY 1 ("{b.name}")', {b.name: "quorum", c.name: "async"}),
        (f'ANY 1 ("{b.name}","{c.name}")', both),
        (f'ANY 2 ("{b.name}","{c.name}")', both),
        (f'ANY 1 ("{c.name}")', {b.name: "async", c.name: "quorum"}),
        (f'FIRST 1 ("{c.name}","{b.name}")', {b.name: "potential", c.name: "sync"}),
        ("", {b.name: "async", c.name: "async"}),
    ):
        await names(a, text)
        await names(a, text)
        status = await a.status()
        assert (status.synchronous_standby_names, status.names_confirmed, rows(status)) == (text, True, expected)
    stranger = a.again()
    assert not (await stranger.status()).names_confirmed
    await stranger.server.close()


@contract
async def test_names_may_have_capitals_quotes_and_commas_and_may_be_nobodys(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    text = f'ANY 1 ("Say ""hi"", (you)","{b.name.upper()}",Nobody)'
    await names(a, text)
    status = await a.status()
    assert (status.synchronous_standby_names, rows(status)) == (text, {b.name: "quorum"})
    await commit(a, "t")


@contract
async def test_names_that_cannot_be_read_change_nothing(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await names(a, f'ANY 1 ("{b.name}")')
    with pytest.raises(CommandFailed, match="synchronous_standby_names"):
        await a.server.synchronize('ANY 1 ("b"')
    await a.server.restart()
    assert (await a.status()).synchronous_standby_names == f'ANY 1 ("{b.name}")'


@contract
async def test_no_configuration_changes_the_names(nodes: Databases):
    a = await nodes.primary()
    await names(a, "nobody")
    for parameters in ({"work_mem": "5MB"}, {"synchronous_standby_names": "somebody"}, {"synchronous_standby_names": ""}):
        await a.server.configure({"postgresql": {"parameters": parameters}}, reload=True)
    await a.server.restart()
    assert (await a.status()).synchronous_standby_names == "nobody"


@contract
async def test_a_primary_starts_with_the_names_given_or_with_those_that_lie_there(nodes: Databases):
    a = await nodes.primary()
    for given, expected in (("one", "one"), (None, "one"), ("two", "two"), ("", ""), (None, "")):
        await a.server.stop(fast_s=30)
        await a.server.start(primary=True, upstream=None, names=given)
        assert (await a.status()).synchronous_standby_names == expected


@contract
async def test_a_demoted_primary_has_no_names_and_promoted_again_waits_for_nobody(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await names(a, f'ANY 1 ("{b.name}")')
    await a.server.stop(fast_s=30)
    await take_over(b, a.name)
    await a.server.start(primary=False, upstream=b.upstream, names="ghost")
    assert (await a.status()).synchronous_standby_names == ""
    await eventually(a.streams)
    await b.server.stop(fast_s=30)
    await take_over(a)
    await commit(a, "t")


@contract
async def test_names_given_to_a_standby_hold_for_the_first_commit_of_the_primary_that_it_becomes(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await a.server.stop(fast_s=0)
    for node in (b, c):
        await node.server.freeze()
    await b.server.synchronize(f'ANY 1 ("{c.name}")')
    await b.server.promote()
    await b.status()
    await b.server.keep_slots({c.name}, {})
    async with committing(b, "t") as (_, answer):
        assert (await b.status()).synchronous_standby_names == f'ANY 1 ("{c.name}")'
        await c.server.follow(b.upstream)
    assert await answer == "acknowledged"
    await names(b, f'ANY 1 ("{c.name}")')
    assert (await b.status()).names_confirmed


@contract
async def test_a_standby_that_is_not_promoted_after_all_loses_the_names(nodes: Databases):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    for give_up in (b.server.freeze, lambda: b.server.follow(a.upstream), b.server.restart):
        await b.server.synchronize("ghost")
        assert (await b.status()).synchronous_standby_names == "ghost"
        await give_up()
        await eventually(lambda: _has_names(b, ""))
    await a.server.stop(fast_s=0)
    await take_over(b)
    await commit(b, "t")


async def _has_names(node: Node, text: str) -> bool:
    return (await node.status()).synchronous_standby_names == text


@contract
async def test_a_standby_that_lives_shows_it_by_replies_even_when_nothing_is_written(nodes: Databases):
    a = await nodes.primary()
    await nodes.standby(of=a)
    times: set[str | None] = set()

    async def two_more() -> bool:
        times.update(row.reply_time for row in (await a.status()).replication)
        return len(times - {None}) >= 3

    await eventually(two_more)


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
