"""The model of probes answers as the real ones do: at once, not at all, or no."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
import structlog

from rivha.agent.probe import PROBE_BUDGET_S
from tests.sim.host import Host
from tests.sim.world import World


async def probed(world: World, name: str) -> tuple[bool, float]:
    """What db3's agent would hear from that host, and after how many seconds."""
    asker, asked = world.hosts["db3"], world.hosts[name]
    assert asker.core is not None
    began = world.loop.now
    lives = await asker.core.prober._ask(f"http://{asked.address[0]}:8008/patroni", PROBE_BUDGET_S)
    return lives, world.loop.now - began


async def whole(world: World) -> Host:
    """Brought up as in a run; its leader, which is not db3."""
    for work in (world.store.run(), world.clients.check(), *(host.babysit() for host in world.hosts.values())):
        world.loop.spawn("", work)
    world.hosts["db1"].start_agent()
    await asyncio.sleep(5.0)
    for host in world.hosts.values():
        host.start_agent()
    await world._until_whole(60.0)
    assert world.whole()
    return world.hosts["db1"]


@pytest.mark.parametrize("trouble", ["power", "frozen", "cut", "deaf", "mute"])
def test_who_does_not_answer_costs_the_whole_budget(trouble: str):
    world = World(1)

    async def story() -> None:
        leader = await whole(world)
        assert (await probed(world, leader.name))[0]
        match trouble:
            case "power":
                leader.power_off()
            case "frozen":
                leader.freeze_agent()
            case "cut":
                world.network.cut("db3", leader.name)
            case "deaf":
                world.network.cut("db3", leader.name, one_way=True)
            case "mute":
                world.network.cut(leader.name, "db3", one_way=True)
        assert await probed(world, leader.name) == (False, pytest.approx(PROBE_BUDGET_S))

    told(world, story())


def test_a_standby_and_a_host_without_an_agent_say_no_at_once():
    world = World(1)

    async def story() -> None:
        leader = await whole(world)
        lives, took_s = await probed(world, "db2")
        assert not lives
        assert took_s < 0.1
        leader.kill_agent()
        lives, took_s = await probed(world, leader.name)
        assert not lives
        assert took_s < 0.1

    told(world, story())


def told(world: World, story: Coroutine[Any, Any, None]) -> None:
    world.transcript.listen()
    asyncio.set_event_loop(None)
    world.store.on_write.append(world.laws.wrote)
    try:
        world.loop.run_until_complete(story)
        world.loop.run_until_complete(world._tear_down())
        world.loop.close()
    finally:
        structlog.reset_defaults()
