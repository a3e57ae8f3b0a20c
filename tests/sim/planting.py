"""What a mutant is, and how it is planted into the real code and taken out again. Used by the tables, mutants.py and mutants_voting.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rivha.agent.brain import decide
from tests.sim import faults
from tests.sim.shape import Shape, of_seed
from tests.sim.world import World

Rule = Callable[..., Any]
SCRIPT_S = 60.0  # how long a mutant's script is watched
WHOLE_S = 60.0  # a cluster that has not been whole by then never was


@dataclass(slots=True)
class Garden:
    undo: list[Callable[[], None]] = field(default_factory=list)

    def put(self, value: object, name: str, *targets: object) -> None:
        """`name` in each target (a module or a class) becomes `value`."""
        for target in targets:
            before = vars(target)[name]

            def back(target: object = target, before: object = before) -> None:
                setattr(target, name, before)

            self.undo.append(back)
            setattr(target, name, value)

    def tables(self, change: Callable[[tuple[Rule, ...]], tuple[Rule, ...]]) -> None:
        """Every table of the brain's, changed."""
        self.put(change(decide.LEASE), "LEASE", decide)
        self.put({situation: change(tuple(table)) for situation, table in decide.POSTGRES.items()}, "POSTGRES", decide)

    def without(self, *rules: Rule) -> None:
        self.tables(lambda table: tuple(rule for rule in table if rule not in rules))

    def instead(self, old: Rule, new: Rule) -> None:
        self.tables(lambda table: tuple(new if rule is old else rule for rule in table))


@contextmanager
def planted(plant: Callable[[Garden], None]) -> Iterator[None]:
    garden = Garden()
    try:
        plant(garden)
        yield
    finally:
        for back in reversed(garden.undo):
            back()


@dataclass(frozen=True, slots=True)
class Mutant:
    plant: Callable[[Garden], None]
    breaks: tuple[str, ...]  # laws that must notice it, one of them at least, by the beginning of their text
    hints: tuple[int, ...]
    within: int  # seeds
    script: str = ""  # faults.parse, but with ";" between the faults
    shape: Shape = Shape()  # noqa: RUF009 - of the script's cluster; frozen
    first: int = 0  # the seed that `hints` and `within` are counted from
    at_once: bool = False  # it strikes before the cluster has ever been whole

    @property
    def name(self) -> str:
        return self.plant.__name__

    @property
    def seeds(self) -> tuple[int, ...]:
        """The hints first."""
        return tuple(self.first + n for n in (*self.hints, *(n for n in range(self.within) if n not in self.hints)))

    @property
    def what(self) -> str:
        return (self.plant.__doc__ or "").strip()

    def world(self, seed: int, nodes: int | None = None) -> World:
        """What a seed plays for this mutant, which is not planted by that."""
        if not self.script:
            return World(seed, of_seed(seed, nodes))
        world = World(seed, self.shape, script=faults.parse(self.script.replace(";", "\n")))
        world.lasts_s = SCRIPT_S
        return world

    def is_noticed(self, world: World) -> bool:
        """By the law that it breaks, and in a cluster that had been whole, unless it strikes at once."""
        noticed = any(law.startswith(self.breaks) for law in world.laws.which)
        return noticed and (self.at_once or world.whole_at < WHOLE_S)
