"""One real cluster per module, whole again before each test. A test that leaves it broken fails itself, in the next one's `heal`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest_asyncio

from tests.lab.cluster import Lab
from tests.lab.writer import Writer


class Writing(Protocol):
    def __call__(self, lab: Lab) -> AbstractAsyncContextManager[Writer]: ...


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Lab]:
    async with Lab() as lab:
        await lab.up()
        yield lab


@pytest_asyncio.fixture(loop_scope="module")
async def lab(cluster: Lab) -> Lab:
    await cluster.heal()
    return cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground() -> AsyncIterator[Lab]:
    """etcd and a cluster of one node, db1, which is left alone: tests add nodes, or clusters of other names, and set them up wrongly."""
    async with Lab(1) as lab:
        await lab.up()
        yield lab


@asynccontextmanager
async def writing(lab: Lab) -> AsyncIterator[Writer]:
    """A client that writes through HAProxy, its table empty at first."""
    primary = await lab.primary()
    await primary.fetch("drop table if exists written")
    writer = lab.writer()
    await writer.prepare()
    writer.start()
    try:

        async def has_written() -> bool:
            return len(writer.acknowledged) >= 20

        await lab.wait_for(has_written, "the client writes")
        yield writer
    finally:
        await writer.stop()


async def writes_again(lab: Lab, writer: Writer, since: float) -> None:
    async def enough() -> bool:
        return writer.writing_since(since)

    await lab.wait_for(enough, "the client writes again", 120)
