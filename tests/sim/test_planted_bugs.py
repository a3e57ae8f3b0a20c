"""The simulator is held to account: every planted bug (mutants.py) must break its law within its stated number of seeds."""

from __future__ import annotations

import pytest

from rivha.agent import core, perform, tick
from rivha.agent.brain import decide, election
from rivha.agent.brain.view import View
from tests.sim.mutants import MUTANTS
from tests.sim.planting import Mutant, planted
from tests.sim.shape import SYNCHRONOUS

_unplanted: dict[tuple[int, str, str], list[str]] = {}  # what a run without any bug breaks; many mutants share a script


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_noticed(mutant: Mutant):
    """The seeds that are known to notice it first; they change whenever the world does, and then the others are asked."""
    seed = next((seed for seed in mutant.seeds if _is_noticed(mutant, seed)), None)

    assert seed is not None, f"{mutant.what} Not noticed by {' or '.join(mutant.breaks)!r} in {len(mutant.seeds)} seeds"
    assert not _without_it(mutant, seed), "the same run without the bug breaks a law, too"


def _is_noticed(mutant: Mutant, seed: int) -> bool:
    world = mutant.world(seed)
    with planted(mutant.plant):
        world.run()
    return mutant.is_noticed(world)


def _without_it(mutant: Mutant, seed: int) -> list[str]:
    run = (seed, mutant.script, repr(mutant.shape) if mutant.script else "")
    if run not in _unplanted:
        _unplanted[run] = mutant.world(seed).run()
    return _unplanted[run]


def test_there_are_enough_of_them_and_each_says_what_is_wrong():
    assert len(MUTANTS) >= 80
    assert sum(mutant.first == SYNCHRONOUS for mutant in MUTANTS.values()) >= 30
    assert all(mutant.what.endswith(".") or mutant.what.endswith(").") for mutant in MUTANTS.values())
    assert all(max(mutant.hints) < mutant.within <= 300 for mutant in MUTANTS.values())
    assert all(mutant.breaks and all(mutant.breaks) for mutant in MUTANTS.values())  # "" would be every law


def test_what_was_planted_is_taken_out_again():
    targets = (core.Core, decide, election, perform.Performer, tick.Tick, View)
    before = [dict(vars(target)) for target in targets]
    for mutant in MUTANTS.values():
        with planted(mutant.plant):
            pass

    assert [dict(vars(target)) for target in targets] == before
