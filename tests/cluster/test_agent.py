"""The agent's own life: Postgres outlives it, a second one is refused, and a pause keeps its hands off."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.cluster.conftest import all_have_looked, configured
from tests.lab.cluster import Lab
from tests.lab.node import REPOSITORY, Node, close
from tests.lab.processes import Process

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

NAME_TAKEN = 5  # docs/operations.md


async def test_a_killed_agent_finds_its_postgres_and_its_lease_again_and_no_session_notices(lab: Lab) -> None:
    leader = await lab.primary()
    standby = next(node for node in lab.nodes if node is not leader)
    async with configured(lab, ttl=120, suspect_after=60):  # however busy the machine is
        await all_have_looked(lab)
        for node in (leader, standby):
            session = await node.connect()
            try:
                pid = node.postmaster()
                await node.kill_agent()
                node.start()
                assert await lab.heal() is leader
                assert node.postmaster() == pid
                assert await session.fetchval("select 1") == 1
            finally:
                await close(session)


async def test_a_second_agent_of_the_same_name_refuses_to_run(lab: Lab) -> None:
    node = (await lab.replicas())[0]
    argv = [sys.executable, "-m", "rivha", str(node.config)]
    second = Process("second", argv, folder=node.folder, env={"PYTHONPATH": str(REPOSITORY)})
    second.start()
    assert await second.ended(60) == NAME_TAKEN, second.tail()
    assert f"there is already a node named '{node.name}' running" in second.tail()
    assert node.agent.alive


async def test_ending_a_standbys_agent_stops_its_postgres(lab: Lab) -> None:
    node = (await lab.replicas())[0]
    assert await node.stop() == 0, node.agent.tail()
    assert node.processes() == []


# ---- pause


@pytest_asyncio.fixture(loop_scope="module")
async def paused(lab: Lab) -> AsyncIterator[Lab]:
    await lab.pause(True)
    yield lab
    for node in lab.nodes:
        if not node.agent.alive:
            node.start()
    await lab.pause(False)


async def looked_again(lab: Lab, node: Node, looks: int = 3) -> None:
    """The agent has read etcd in so many further seconds and decided so many times."""
    since = (await node.status())["dcs_last_seen"]

    async def later() -> bool:
        return bool((await node.status()).get("dcs_last_seen", 0) >= since + looks)

    await lab.wait_for(later, f"{node.name}'s agent looked again")


async def test_paused_nobody_starts_a_killed_primary_or_takes_its_place(paused: Lab) -> None:
    leader = await paused.primary()
    leader.kill_postmaster()

    async def known_to_be_down() -> bool:
        return (await leader.status()).get("state") not in ("running", "starting")

    await paused.wait_for(known_to_be_down, f"{leader.name}'s agent knows that its Postgres is down")
    for node in paused.nodes:
        await looked_again(paused, node)
    assert leader.postmaster() is None
    assert await paused.primaries() == set()


async def test_paused_ending_the_agent_leaves_postgres_running(paused: Lab) -> None:
    leader = await paused.primary()
    pid = leader.postmaster()
    leader.agent.signal(signal.SIGTERM)
    assert await leader.agent.ended(60) == 0, leader.agent.tail()
    assert leader.postmaster() == pid
    assert await paused.primaries() == {leader.name}


async def test_after_a_pause_the_cluster_heals(lab: Lab) -> None:
    assert len(await lab.primaries()) == 1
