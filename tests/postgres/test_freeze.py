"""What a pledge stands on, on real servers: the end of the WAL of a standby that streamed until a moment ago (DESIGN 6.2, HAZARDS H 10)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rivha.model import PostgresStatus, Role
from tests.postgres.nodes import Node, Nodes, caught_up, eventually, slots, stays_undone, stopped
from tests.postgres.versions import newest, nodes

__all__ = ["newest", "nodes"]
pytestmark = pytest.mark.real


@asynccontextmanager
async def writing(node: Node) -> AsyncIterator[list[int]]:
    """Clients that write as fast as they can; what they yield is what was committed."""
    await node.sql("CREATE TABLE load (x int)")
    enough, committed = asyncio.Event(), [0]

    async def write() -> None:
        session = await node.session()
        while not enough.is_set():
            await session.execute("INSERT INTO load SELECT generate_series(1, 100)")
            committed[0] += 1
        await session.close()

    writers = [asyncio.create_task(write()) for _ in range(3)]
    try:
        yield committed
    finally:
        enough.set()
        await asyncio.gather(*writers)


async def writes_more(committed: list[int]) -> None:
    before = committed[0]

    async def more() -> bool:
        return committed[0] >= before + 20

    await eventually(more)


def end_of(status: PostgresStatus) -> int:
    return max(status.receive_lsn or 0, status.replay_lsn or 0)


async def test_in_the_middle_of_a_stream_the_end_is_known_and_stays(nodes: Nodes):
    """The last record that was received is seldom whole then, so replay stays behind."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    async with writing(a) as committed:
        for _ in range(5):
            await writes_more(committed)
            end = await b.server.freeze()
            await writes_more(committed)
            status = await b.status()
            assert (status.streaming, status.upstream, end.lsn) == (False, None, end_of(status))
            assert await b.server.freeze() == end
            await b.server.follow(a.upstream)
            await eventually(b.streams)
    end = await b.server.freeze()
    await b.server.promote()
    status = await b.status()
    assert (status.role, status.timeline) == (Role.PRIMARY, 2)
    (line,) = await b.server.timelines()
    assert line.lsn <= end.lsn


async def test_the_timeline_is_right_whatever_was_heard_of_it_last(nodes: Nodes):
    """A follower's first freeze after a failover, before and after anything of the new timeline has arrived."""
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await caught_up(c, a)
    await a.server.stop(fast_s=0)
    assert (await c.server.freeze()).timeline == 1
    await b.server.freeze()
    await b.server.promote()
    await slots(b, "c")
    await c.server.follow(b.upstream)
    await b.sql("CREATE TABLE of_timeline_two ()")
    await caught_up(c, b)
    known = await c.server.freeze()
    assert known.timeline == 2
    stranger = c.again()
    assert await stranger.server.freeze() == known
    await stranger.server.close()
    await c.server.follow(b.upstream)
    await eventually(c.streams)
    await b.sql("CREATE TABLE more ()")
    await caught_up(c, b)
    again = await c.server.freeze()
    assert (again.timeline, again.lsn > known.lsn) == (2, True)


async def test_a_standby_whose_upstream_is_dead_and_one_with_no_connection_ready_are_frozen_too(newest: Nodes):
    a = await newest.primary()
    b = await newest.standby(of=a)
    await caught_up(b, a)
    a.kill_postmaster()
    await a.server.stop(fast_s=0)
    stranger = b.again()
    end = await stranger.server.freeze()
    assert end.lsn == end_of(await b.status())
    assert end.timeline == 1
    await stranger.server.close()
    assert await b.server.freeze() == end


async def test_a_freeze_waits_for_the_process_that_would_start_a_receiver_with_the_old_setting(newest: Nodes):
    """No receiver is there, since nobody answers it; but who starts them has not heard of the freeze yet."""
    a = await newest.primary()
    b = await newest.standby(of=a)
    await caught_up(b, a)
    await a.server.stop(fast_s=0)

    async def dry() -> bool:
        return not (await b.status()).streaming

    await eventually(dry)
    async with stopped(b, "startup"):
        freezing = asyncio.create_task(b.server.freeze())
        await stays_undone(freezing)
    await freezing
    await a.server.start(primary=True, upstream=None)
    assert not (await b.status()).streaming
    assert await b.server.freeze() == await freezing


async def test_neither_a_frozen_standby_nor_its_promotion_reads_the_archive(nodes: Nodes, tmp_path: Path):
    """What the old primary still archives would be a fork, or more than the pledge said (HAZARDS H 6)."""
    archive = tmp_path / "archive"
    archive.mkdir()
    settings = {"unix_socket_directories": str(tmp_path), "fsync": "off"}
    a = await nodes.primary(parameters=settings | {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f"})
    b = await nodes.standby(of=a, parameters=settings, recovery_conf={"restore_command": f"cp {archive}/%f %p"})
    await a.commit("before")
    await caught_up(b, a)
    end = await b.server.freeze()
    await a.commit("after")
    segment = await a.sql("SELECT pg_walfile_name(pg_switch_wal())")

    async def archived() -> bool:
        return (archive / str(segment)).exists()

    await eventually(archived)
    assert await b.server.freeze() == end
    await b.server.promote()
    assert (await b.status()).role is Role.PRIMARY
    (line,) = await b.server.timelines()
    assert (line.lsn <= end.lsn, await b.has("before"), await b.has("after")) == (True, True, False)
