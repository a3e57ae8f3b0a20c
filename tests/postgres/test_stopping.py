"""A stop that does not wait for who is left once all is written, on real servers: what the model has no notion of (HAZARDS C 39)."""

from __future__ import annotations

import asyncio
import os

import pytest

from rivha.model import State
from tests.postgres.nodes import DEADLINE_S, Node, Nodes, eventually
from tests.postgres.versions import nodes

__all__ = ["nodes"]
pytestmark = pytest.mark.real

AGES_S = 3600.0


async def archiving(node: Node) -> int:
    """An archive_command that is at work and will be for long; the process that runs it."""
    told = node.data_dir.with_name("archiver")
    # Not for ever, should everything fail; and in the end it would say that it was let finish.
    command = f"echo $$ > {told}.new; mv {told}.new {told}.pid; sleep 20; touch {told}.finished"
    with (node.data_dir / "postgresql.base.conf").open("a") as base:
        base.write(f"archive_mode = on\narchive_command = '{command}'\n")
    await node.server.restart()
    await node.sql("CREATE TABLE archived AS SELECT 1")
    await node.sql("SELECT pg_switch_wal()")

    async def begun() -> int:
        return int(told.with_suffix(".pid").read_text()) if told.with_suffix(".pid").exists() else 0

    return int(await eventually(begun))


async def test_an_archiver_that_is_slow_is_not_waited_for_and_ends_with_what_it_runs(nodes: Nodes):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    command = await archiving(a)
    await eventually(b.streams)

    await a.server.stop(fast_s=30, linger_s=0.5)

    assert not a.data_dir.with_name("archiver.finished").exists()
    stopped, standby = await a.status(), await b.status()
    assert (stopped.state, stopped.clean, a.runs) == (State.STOPPED, True, False)
    assert (stopped.wal_lsn or 0) < (standby.receive_lsn or 0)

    async def ended() -> bool:
        return not os.path.exists(f"/proc/{command}")

    await eventually(ended)


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
