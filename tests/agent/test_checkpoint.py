"""The checkpoint after a promotion, which rewinding nodes wait for: asked for by whichever agent is there. In the simulator."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rivha.model import Role
from tests.sim import faults
from tests.sim.server import CHECKPOINT_S
from tests.sim.shape import SETTINGS, Shape
from tests.sim.world import World

TAKES_S = 5.0


def run(after_the_promotion: Callable[[World, str], None]) -> list[tuple[bool | None, bool]]:
    """db1 dies at 10 s, and another is promoted. Once a second since then: what that one says of its checkpoint, and whether it is done."""
    world = World(0, Shape(3, SETTINGS), script=faults.parse("10.0 power_off leader 100"))
    world.network.jitter = False
    world.lasts_s = 45.0
    told: list[tuple[bool | None, bool]] = []
    for instance in world.instances.values():
        instance.trouble.checkpoint_s = TAKES_S

    def look(name: str) -> None:
        member, disk = world.laws.cluster().member(name), world.instances[name].disk
        told.append((member.checkpoint_after_promote if member else None, disk.checkpointed == disk.timeline))

    def wait() -> None:
        promoted = next((i.host for i in world.instances.values() if i.role is Role.PRIMARY and i.disk.timeline == 2), None)
        if promoted is None:
            world.later(0.01, wait)
            return
        after_the_promotion(world, promoted)
        for seconds in range(1, int(CHECKPOINT_S)):
            world.later(float(seconds), look, promoted)

    world.later(10.0, wait)
    assert not world.run()
    return told


def kill_the_agent(world: World, name: str) -> None:
    world.hosts[name].kill_agent()


@pytest.mark.parametrize("happens", [kill_the_agent, lambda world, name: None], ids=["its agent dies", "its agent goes on"])
def test_it_is_asked_for_and_told_while_it_is_due(happens: Callable[[World, str], None]):
    """Long before Postgres makes one by itself."""
    told = run(happens)

    assert told[2] == (False, False)
    assert (False, True) not in told[int(TAKES_S) + 4 :]
    assert told[int(TAKES_S) + 4] == (None, True)


def test_it_is_due_as_long_as_it_failed_and_asked_for_again():
    """Whoever is told that nothing is due would rewind in vain."""

    def lose_it(world: World, name: str) -> None:
        """The backend that carries it out is ended, by whatever."""
        core = world.hosts[name].core
        assert core is not None
        world.later(2.0, lambda: _fail(core.tick.chores._checkpoint_task))

    def _fail(task: object) -> None:
        assert hasattr(task, "cancel")
        task.cancel()

    told = run(lose_it)

    assert told[4:9] == [(False, False)] * 5
    assert told[18] == (None, True)
