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
from tests.sim.world import World


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_noticed(mutant: Mutant):
    """The seeds that are known to notice it first; they change whenever the world does, and then the others are asked."""
    seeds = (*mutant.hints, *(seed for seed in range(mutant.within) if seed not in mutant.hints))

    assert any(one(seed, mutant=mutant.name).failed for seed in seeds), f"{mutant.what} Unnoticed in {len(seeds)} seeds"


def test_there_are_enough_of_them_and_each_says_what_is_wrong():
    assert len(MUTANTS) >= 25
    assert all(mutant.what.endswith(".") or mutant.what.endswith(").") for mutant in MUTANTS.values())
    assert all(max(mutant.hints) < mutant.within <= 2000 for mutant in MUTANTS.values())


def test_a_script_breaks_no_law_of_itself():
    for mutant in (m for m in MUTANTS.values() if m.script):
        world = World(mutant.hints[0], mutant.shape, script=faults.parse(mutant.script.replace(";", "\n")))

        assert not world.run(), mutant.name


def test_what_was_planted_is_taken_out_again():
    targets = (decide, election, perform.Performer, tick.Tick, View)
    before = [dict(vars(target)) for target in targets]
    for mutant in MUTANTS.values():
        with planted(mutant.plant):
            pass

    assert [dict(vars(target)) for target in targets] == before
