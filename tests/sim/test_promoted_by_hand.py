"""Somebody promotes a voter's Postgres past its agent, and the leader's host dies before that node was mended (HAZARDS B 35)."""

from __future__ import annotations

import pytest

from tests.sim import wrong_machines
from tests.sim.shape import QUORUM, SYNCHRONOUS, Shape
from tests.sim.world import World


@pytest.mark.parametrize("gap_s", [0.2, 1.5], ids=["it is still a primary", "it was stopped"])
def test_a_voter_promoted_by_hand_takes_nothing_over(gap_s: float):
    """Its timeline ranks first, and it lacks what the others have acknowledged since."""
    world = World(SYNCHRONOUS, Shape(settings=dict(QUORUM)), script=[])
    world.lasts_s = 60.0
    strayed: list[str] = []

    def promote() -> None:
        leader = world.laws.leaders[-1]
        strayed.append(next(name for name in sorted(world.hosts) if name != leader))
        world.loop.spawn("", world.instances[strayed[0]].promote())
        world.later(gap_s, wrong_machines.power_off, world, world.hosts[leader], 25.0)

    world.later(20.0, promote)

    assert not world.run()
    assert strayed[0] not in world.laws.leaders
