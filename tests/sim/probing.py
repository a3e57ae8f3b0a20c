"""The model of probes between agents: what `rivha.api.ask` is in production. Answered by the very function that answers `GET /probe`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rivha.api import health
from tests.sim.network import AGENT

if TYPE_CHECKING:
    from tests.sim.host import Host


async def ask(asker: Host, api_url: str, budget_s: float) -> bool:
    """A host that is off, frozen or cut off answers nothing, for the whole budget; one without an agent refuses the connection at once."""
    world, network = asker.world, asker.world.network
    peer = next((host for host in world.hosts.values() if f"//{host.address[0]}:" in api_url), None)
    if peer is None:
        return False
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def replied(lives: bool) -> None:
        if not answer.done() and network.reaches(asker.name, peer.name, AGENT) and not network.lost():
            answer.set_result(lives)

    def arrived() -> None:
        if peer.on and not peer.frozen_agent and network.reaches(asker.name, peer.name, AGENT) and not network.lost():
            world.later(network.delay_s(), replied, says_that_it_lives(peer))

    world.later(network.delay_s(), arrived)
    try:
        async with asyncio.timeout(budget_s):
            if await answer:
                world.laws.lives(peer.name, asker.name)
            return answer.result()
    except TimeoutError:
        return False


def says_that_it_lives(peer: Host) -> bool:
    if peer.core is None:
        return False
    desk = peer.core.desk
    found = health.answer(health.PROBE, {}, desk.latest, peer.clock(), desk.out_of_routing, health.Bodies("sim"))
    return found is not None and found[0] == 200
