"""How a mutant is planted into the real code, and taken out again. Used by mutants.py only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rivha.agent.brain import decide

Rule = Callable[..., Any]


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
