"""A stop that does not wait for who is left once all is written, on real servers: what the model has no notion of (HAZARDS C 39)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rivha.model import State
from tests.postgres.nodes import DEADLINE_S, Node, Nodes, eventually
from tests.postgres.versions import nodes

__all__ = ["nodes"]
pytestmark = pytest.mark.real

AGES_S = 3600.0


async def archiving(node: Node) -> Path:
    """An archive_command that is at work, and the file that it leaves when it was let finish."""
    told = node.data_dir.with_name("archiver")
    command = f"touch {told}.begun; sleep 3; touch {told}.finished"
    with (node.data_dir / "postgresql.base.conf").open("a") as base:
        base.write(f"archive_mode = on\narchive_command = '{command}'\n")
    await node.server.restart()
    await node.sql("CREATE TABLE archived AS SELECT 1")
    await node.sql("SELECT pg_switch_wal()")

    async def begun() -> bool:
        return told.with_suffix(".begun").exists()

    await eventually(begun)
    return told.with_suffix(".finished")


async def test_an_archiver_may_finish_though_a_dark_standby_is_not_waited_for(nodes: Nodes):
    """What it leaves would be missing in the archive for ever: the next primary takes what it received for archived."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    finished = await archiving(a)
    await eventually(b.streams)
    await a.stop_reporting(b)
    async with asyncio.timeout(DEADLINE_S):
        await a.server.stop(fast_s=AGES_S, linger_s=0.5)

    assert finished.exists()
    stopped = await a.status()
    assert (stopped.state, stopped.clean, a.runs) == (State.STOPPED, True, False)
    b.go_on()


async def test_a_postmaster_killed_after_its_shutdown_checkpoint_starts_in_place(nodes: Nodes):
    """Nobody took over. Its pid file is stale and its shared memory is left, but nothing was written after the checkpoint."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await a.stop_reporting(b)
    async with asyncio.timeout(DEADLINE_S):
        await a.server.stop(fast_s=AGES_S, quit_s=0, linger_s=0.0)
    assert (a.data_dir / "postmaster.pid").exists()
    stopped = await a.status()
    assert (stopped.state, stopped.clean, stopped.problem) == (State.STOPPED, True, "")
    await a.server.start(primary=True, upstream=None)
    assert (await a.status()).state is State.RUNNING
    b.go_on()
    await eventually(b.streams)
