"""What goes wrong in the world or in an agent, and that nobody caught, is never an uneventful run."""

from __future__ import annotations

from typing import Any

import pytest

from rivha.agent.tick import Tick
from tests.sim.clients import Clients
from tests.sim.loop import PROCESS
from tests.sim.world import World

UNCAUGHT = "nobody caught an error"


def a_world() -> World:
    world = World(6, script=[], transcript=True)
    world.lasts_s = 20.0
    return world


def raising_after(monkeypatch: pytest.MonkeyPatch, world: World, seconds: float, owner: type, name: str, process: str = "") -> None:
    """From that instant on `owner.name` raises, once, in that process."""
    before, raised = getattr(owner, name), []

    def now_and_then(*args: Any, **kwargs: Any) -> Any:
        if world.loop.now > seconds and PROCESS.get().startswith(process) and not raised:
            raised.append(True)
            raise KeyError("planted")
        return before(*args, **kwargs)

    monkeypatch.setattr(owner, name, now_and_then)


@pytest.mark.parametrize(
    ("name", "after_s", "told"),
    [("_try", 5.0, "Exception in callback"), ("_answers", 15.0, "a task of the world died")],
)
def test_what_dies_of_the_world_itself_is_told_at_that_moment(monkeypatch: pytest.MonkeyPatch, name: str, after_s: float, told: str):
    world = a_world()
    raising_after(monkeypatch, world, after_s, Clients, name)

    broken = world.run()

    assert world.laws.which[0] == UNCAUGHT
    assert told in broken[0]
    assert broken[0].endswith("KeyError('planted')")
    assert after_s < float(broken[0].split()[0]) < after_s + 1.0


def test_a_callback_that_raises_is_told_at_that_moment():
    world = a_world()
    world.later(12.0, {}.__getitem__, "planted")

    assert world.run()[0].startswith(f"{12.0:9.3f}  LAW BROKEN: {UNCAUGHT} Exception in callback")


def test_an_agent_that_dies_of_an_error_breaks_a_law_and_is_started_again(monkeypatch: pytest.MonkeyPatch):
    world = a_world()
    raising_after(monkeypatch, world, 15.0, Tick, "_look", "db2#1")

    broken = world.run()

    assert world.laws.which == [UNCAUGHT], "systemd starts it again, and all is whole at the end"
    assert "a task of db2#1 died: KeyError('planted')" in broken[0]
    assert world.hosts["db2"].starts == 2
    assert any("db2    agent ended: of an error that nobody caught" in line for line in world.lines)


def test_a_cluster_that_acknowledges_nothing_is_not_whole(monkeypatch: pytest.MonkeyPatch):
    world = a_world()
    before = Clients._try
    monkeypatch.setattr(Clients, "_try", lambda self, name: before(self, name) if not world.whole_at else None)

    world.run()

    assert world.laws.which == ["liveness: rows are acknowledged"]
