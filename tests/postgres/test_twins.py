"""Two promotions can give two timelines the same number; who made which must be told apart before anything streams. On real servers."""

from __future__ import annotations

import pytest

from rivha.errors import CommandFailed, PostgresUnavailable
from rivha.model import Data, History, Role
from tests.postgres.nodes import Node, Nodes, caught_up, commit, eventually, has, slots
from tests.postgres.versions import nodes

__all__ = ["nodes"]
pytestmark = pytest.mark.real


async def two_standbys(nodes: Nodes) -> tuple[Node, Node, Node]:
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await commit(a, "common")
    for standby in (b, c):
        await caught_up(standby, a)
    return a, b, c


@pytest.mark.parametrize("wrote", [True, False], ids=["wrote", "only-promoted"])
async def test_two_second_timelines_that_began_at_the_same_place_are_told_apart(nodes: Nodes, wrote: bool):
    """b took over and died before c followed it, so c's promotion made "timeline 2" again, from the same last record."""
    a, b, c = await two_standbys(nodes)
    await a.server.stop(fast_s=30)
    for standby in (b, c):
        await standby.server.freeze()
        await standby.server.promote()
    if wrote:
        await commit(b, "only_on_b")
    for table in ("c1", "c2", "c3"):
        await commit(c, table)
    await b.server.stop(fast_s=0)

    history, text = await b.server.compare(c.upstream)

    assert history is History.DIVERGED, text


async def test_a_rewind_that_finds_nothing_to_do_has_failed(nodes: Nodes):
    """pg_rewind compares timeline numbers only: it would call two second timelines one, and leave the directory as it is."""
    a, b, c = await two_standbys(nodes)
    await c.server.freeze()
    await commit(a, "only_b_got_it")
    await caught_up(b, a)
    for standby in (b, c):
        await standby.server.freeze()
        await standby.server.promote()
        await standby.server.checkpoint()
    await b.server.stop(fast_s=30)
    assert (await b.server.compare(c.upstream))[0] is History.DIVERGED

    with pytest.raises(CommandFailed, match="no rewind"):
        await b.server.rewind(c.upstream)

    status = await b.status()
    assert (status.data, status.role) == (Data.VALID, Role.PRIMARY)  # untouched: should c be lost, people may need it
    await b.server.set_aside("diverged")
    await slots(c, "b")
    await b.server.clone(c.upstream)
    await b.server.start(primary=False, upstream=c.upstream)
    await eventually(b.streams)
    assert not await has(b, "only_b_got_it")


async def test_a_source_is_rewound_from_only_after_its_first_checkpoint_as_primary(nodes: Nodes):
    """Postgres takes its time for that one; and the agent there may have been restarted, and have published nothing about it."""
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    await a.sql("CREATE TABLE large AS SELECT generate_series(1, 100000)")  # hundreds of pages to be written, at leisure
    await caught_up(b, a)
    await b.server.freeze()
    await commit(a, "tail")
    await a.server.stop(fast_s=30)
    await b.server.promote()

    with pytest.raises(PostgresUnavailable, match="checkpoint"):
        await a.server.rewind(b.upstream)

    assert (await a.status()).data is Data.VALID
    await b.server.checkpoint()
    await a.server.rewind(b.upstream)


async def test_what_can_never_be_consistent_is_not_recovered_for_a_rewind_but_refused(nodes: Nodes):
    """A directory just rewound, whose source died before it had sent the rest: its recovery would wait for ever."""
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    await commit(a, "t")
    await caught_up(b, a)
    await b.sql("CHECKPOINT")
    await b.server.stop(fast_s=0)
    assert (await b.status()).replay_lsn
    for segment in (b.data_dir / "pg_wal").glob("0000000100000000*"):
        segment.write_bytes(bytes(segment.stat().st_size))

    with pytest.raises(CommandFailed, match="consistent"):
        await b.server.rewind(a.upstream)

    assert (await b.status()).data is Data.VALID


async def test_a_standby_of_the_one_timeline_of_that_number_is_the_leaders(nodes: Nodes):
    _, b, c = await two_standbys(nodes)
    await b.server.freeze()
    await b.server.promote()
    await slots(b, "c")
    await c.server.follow(b.upstream)
    await commit(b, "on_two")
    await caught_up(c, b)
    for stopped in (False, True):
        if stopped:
            await c.server.stop(fast_s=30)
        history, text = await c.server.compare(b.upstream)
        assert history is History.SAME, text
    await commit(b, "more")
    assert (await c.server.compare(b.upstream))[0] is History.SAME


async def test_a_standby_whose_next_wal_the_leader_has_removed_cannot_follow(nodes: Nodes):
    """Away for longer than its slot was kept: it would knock in vain for ever."""
    a = await nodes.primary(parameters={"wal_keep_size": 0, "max_wal_size": "32MB", "min_wal_size": "32MB", "fsync": "off"})
    b = await nodes.standby(of=a, name="b")
    await b.server.stop(fast_s=30)
    await slots(a)
    assert (await b.server.compare(a.upstream))[0] is History.SAME
    for _ in range(4):
        await commit(a, "filler")
        await a.sql("DROP TABLE filler")
        await a.sql("SELECT pg_switch_wal()")
        await a.server.checkpoint()

    history, text = await b.server.compare(a.upstream)

    assert history is History.DIVERGED, text
    assert "removed" in text
