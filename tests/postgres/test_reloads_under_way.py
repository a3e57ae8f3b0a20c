"""What a reload of synchronous_standby_names does before every process has taken it: the ground of `quorum.meanwhile`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.postgres.nodes import Node, Nodes, eventually, has, stopped
from tests.postgres.versions import nodes

__all__ = ["nodes"]

BOTH, ONLY_B = 'ANY 2 ("b","c")', 'ANY 1 ("b")'


@pytest.mark.real
async def test_a_wal_sender_with_new_names_counts_a_standby_whose_own_sender_still_goes_by_the_old_ones(nodes: Nodes):
    """ANY 2 (b, c) becomes ANY 1 (b): both settings want b, and a commit is acknowledged that only c holds."""
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await a.server.synchronize(BOTH)
    session = await a.session()
    async with AsyncExitStack() as until_b_is_asked, AsyncExitStack() as until_the_end:
        await until_b_is_asked.enter_async_context(stopped(a, "walsender", "b"))
        waiting = asyncio.create_task(session.commit("only_c_has_it"))
        await eventually(lambda: has(c, "only_c_has_it"))
        await eventually(lambda: _a_reply_waits(a))
        await until_the_end.enter_async_context(stopped(b, "walreceiver"))
        await until_the_end.enter_async_context(stopped(a, "walsender", "c"))
        synchronizing = asyncio.create_task(a.server.synchronize(ONLY_B))
        await eventually(lambda: _shows(a, ONLY_B))
        assert not waiting.done()
        await until_b_is_asked.aclose()
        assert await waiting == "acknowledged"
        assert not await has(b, "only_c_has_it")
    await synchronizing


async def _shows(node: Node, names: str) -> bool:
    return (await node.status()).synchronous_standby_names == names


async def _a_reply_waits(node: Node) -> bool:
    """Bytes that a WAL sender, which stands still, has not read yet."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(int(row[1].split(":")[1], 16) == node.upstream.port and int(row[4].split(":")[1], 16) > 0 for row in rows)
