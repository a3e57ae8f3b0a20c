"""The checkpoint after a promotion, which rewinding nodes wait for: only that of the last promotion counts. In the simulator."""

from __future__ import annotations

from tests.sim.shape import Shape
from tests.sim.world import World


def test_the_end_of_an_earlier_promotions_checkpoint_does_not_count():
    """Aborted, and promoted again: the first one's result comes while the second one is still under way (HAZARDS B 32)."""
    world = World(0, Shape(), script=[])
    world.network.jitter = False
    world.lasts_s = 60.0
    told: list[bool | None] = []

    def promoted(term: int, takes_s: float) -> None:
        core = world.hosts["db1"].core
        assert core is not None
        world.instances["db1"].trouble.checkpoint_s = takes_s
        world.as_agent("db1", lambda: core._checkpoint(term))()

    def look() -> None:
        member = world.laws.cluster().member("db1")
        assert member is not None
        told.append(member.checkpoint_after_promote)

    world.later(40.0, promoted, 1, 6.0)
    world.later(43.0, promoted, 2, 9.0)
    for at in (45.0, 48.0, 55.0):  # both are under way, the second one is, none is
        world.later(at, look)

    assert not world.run()
    assert told == [False, False, None]
