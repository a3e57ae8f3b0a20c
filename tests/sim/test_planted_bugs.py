"""The simulator is held to account: every planted bug (mutants.py) must break a law within its stated number of seeds."""

from __future__ import annotations

import pytest

from rivha.agent import perform, tick
from rivha.agent.brain import decide, election
from rivha.agent.brain.view import View
from tests.sim import faults
from tests.sim.many import one
from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.planting import planted
from tests.sim.shape import SYNCHRONOUS
from tests.sim.world import World


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_noticed(mutant: Mutant):
    """The seeds that are known to notice it first; they change whenever the world does, and then the others are asked."""
    noticed = any(one(seed, mutant=mutant.name).failed for seed in mutant.seeds)

    assert noticed, f"{mutant.what} Unnoticed in {len(mutant.seeds)} seeds"


def test_there_are_enough_of_them_and_each_says_what_is_wrong():
    assert len(MUTANTS) >= 60
    assert sum(mutant.first == SYNCHRONOUS for mutant in MUTANTS.values()) >= 15
    assert all(mutant.what.endswith(".") or mutant.what.endswith(").") for mutant in MUTANTS.values())
    assert all(max(mutant.hints) < mutant.within <= 2000 for mutant in MUTANTS.values())


@pytest.mark.parametrize("first", [0, pytest.param(SYNCHRONOUS, marks=pytest.mark.slow)])
def test_a_script_breaks_no_law_of_itself(first: int):
    for mutant in (m for m in MUTANTS.values() if m.script and m.first == first):
        world = World(mutant.seeds[0], mutant.shape, script=faults.parse(mutant.script.replace(";", "\n")))

        assert not world.run(), mutant.name


def test_what_was_planted_is_taken_out_again():
    targets = (decide, election, perform.Performer, tick.Tick, View)
    before = [dict(vars(target)) for target in targets]
    for mutant in MUTANTS.values():
        with planted(mutant.plant):
            pass

    assert [dict(vars(target)) for target in targets] == before
