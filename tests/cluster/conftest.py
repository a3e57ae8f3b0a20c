"""One real cluster per module, whole again before each test. A test that leaves it broken fails itself, in the next one's `heal`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest_asyncio

from tests.lab.cluster import Lab
from tests.lab.node import SQL_ERRORS, Node
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


# ---- synchronous replication


@asynccontextmanager
async def configured(lab: Lab, **patch: object) -> AsyncIterator[None]:
    """The dynamic configuration with this patch in it, and afterwards as it was; each time the cluster has arrived there."""
    before = json.loads((await lab.keys())["config"])
    await configure(lab, patch)
    try:
        yield
    finally:
        await configure(lab, {key: before.get(key) for key in patch})


async def configure(lab: Lab, patch: Mapping[str, object]) -> None:
    """`PATCH /config`, asked of anybody until somebody has done it."""

    async def done() -> bool:
        for node in lab.nodes:
            code, text = await node.ask("PATCH", "/config", patch)
            assert code != 400, text
            if code == 200:
                return True
        return False

    await lab.wait_for(done, f"{patch} is in the configuration")


async def names(node: Node) -> str:
    """synchronous_standby_names as a fresh backend sees them; "?" while Postgres does not answer."""
    try:
        [row] = await node.fetch("select current_setting('synchronous_standby_names') as names")
    except SQL_ERRORS:
        return "?"
    return str(row["names"])


async def shows(lab: Lab, voters: set[str], quorum: int, text: str) -> None:
    """Waits until etcd says that any `quorum` + 1 of the voters may elect, and the leader's Postgres waits for `text`."""

    async def so() -> bool:
        sync, leader = json.loads((await lab.keys()).get("sync") or "{}"), await lab.leader()
        if leader is None or sync.get("leader") != leader.name or sync.get("quorum") != quorum:
            return False
        return await lab.voters() == voters and await names(leader) == text

    await lab.wait_for(so, f"the voters are {sorted(voters)}, the quorum is {quorum}, commits wait for {text!r}")


def any_of(number: int, members: set[str]) -> str:
    """As Rivha writes the names."""
    return f"ANY {number} ({','.join(f'{chr(34)}{name}{chr(34)}' for name in sorted(members))})"


async def all_have_looked(lab: Lab, looks: int = 2) -> None:
    """Every agent that runs has read etcd in so many further seconds, and decided."""
    nodes = [node for node in lab.nodes if node.agent.alive]
    since = [(await node.status()).get("dcs_last_seen", 0) for node in nodes]

    async def so() -> bool:
        seen = [(await node.status()).get("dcs_last_seen", 0) for node in nodes]
        return all(later >= before + looks for later, before in zip(seen, since, strict=True))

    await lab.wait_for(so, "every agent has looked again")
