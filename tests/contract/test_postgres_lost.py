"""The contract of rivha.postgres.base.Postgres where something goes away under it: a source, a postmaster, the directory."""

from __future__ import annotations

import asyncio

import pytest

from rivha.errors import CommandFailed
from rivha.model import Data, State
from tests.contract.databases import Databases
from tests.contract.running import contract
from tests.postgres.nodes import commit, eventually, has, slots


@contract
async def test_a_clone_whose_source_dies_under_it_leaves_nothing_that_could_be_started(nodes: Databases):
    a, b = await nodes.primary(), nodes.node("b")
    cloning = asyncio.create_task(b.server.clone(a.upstream))

    async def begun() -> bool:
        return cloning.done() or b.copying

    await eventually(begun)
    a.leave_children()  # nothing more is sent, while the connection lives
    await a.server.stop(fast_s=0.0)
    with pytest.raises(CommandFailed):
        await cloning
    assert (await b.status()).data in (Data.EMPTY, Data.UNFINISHED)
    with pytest.raises(CommandFailed):
        await b.server.start(primary=False, upstream=a.upstream)
    await a.server.start(primary=True, upstream=None)
    await b.server.clone(a.upstream)
    await b.server.start(primary=False, upstream=a.upstream)
    await slots(a, b.name)
    await eventually(b.streams)


@contract
async def test_what_a_dead_postmaster_left_behind_counts_until_it_is_ended(nodes: Databases):
    """Nobody resigns before that: a child that stands still may go on to write and send."""
    a = await nodes.primary()
    await commit(a, "t")
    await a.status()
    a.leave_children()

    async def noticed() -> bool:
        return bool(a.deaths)

    await eventually(noticed)
    assert (await a.status()).state is State.CRASHED
    assert await a.server.is_left()
    await a.server.stop(fast_s=0.0)
    assert not await a.server.is_left()
    assert not a.runs
    await a.server.start(primary=True, upstream=None)
    assert await has(a, "t")


@contract
async def test_a_postgres_whose_directory_is_gone_answers_nothing_and_is_ended(nodes: Databases):
    """HAZARDS E 73. The real one may also die of it at once."""
    a = await nodes.primary()
    assert (await a.status()).data is Data.VALID
    a.lose_directory()
    status = await a.status()
    assert status.data is Data.EMPTY
    assert status.state in (State.SILENT, State.STOPPED)
    assert not a.runs or await a.server.is_left()
    await a.server.stop(fast_s=0.0, quit_s=1.0)
    status = await a.status()
    assert (status.state, status.data, a.runs) == (State.STOPPED, Data.EMPTY, False)
    assert not await a.server.is_left()
