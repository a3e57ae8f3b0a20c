"""Seeds and single faults of the synchronous modes: nothing acknowledged is lost, and writes go on as DESIGN 12 says."""

from __future__ import annotations

import pytest

from tests.sim.clients import CHECK_EVERY_S
from tests.sim.faults import parse
from tests.sim.many import alone
from tests.sim.shape import SETTINGS, SYNCHRONOUS, WRITE_EVERY_S, Shape
from tests.sim.test_seeds import ran
from tests.sim.world import World

QUICK, SLOW = range(SYNCHRONOUS, SYNCHRONOUS + 20), range(SYNCHRONOUS + 20, SYNCHRONOUS + 80)

# What this world adds to the agents' own time: HAProxy looks so often, a client writes so often, and the beat of 1 s may just be over.
WORLDS_SHARE_S = CHECK_EVERY_S + WRITE_EVERY_S


def told(failed: dict[int, list[str]]) -> str:
    return "; ".join(f"scripts/sim --seed {seed}: {broken[0]}" for seed, broken in sorted(failed.items()))


def test_no_law_is_broken_in_any_synchronous_seed_and_the_runs_were_no_idle_ones():
    total = ran(QUICK)

    assert not total.failed, told(total.failed)
    assert total.changes["failover"] >= 10
    assert total.rows >= 3000


@pytest.mark.slow
def test_nor_in_many_more():
    total = ran(SLOW)

    assert not total.failed, told(total.failed)
    assert total.changes["failover"] >= 40
    assert total.changes["switchover"] >= 10


def worst(kind: str, lasts_s: float = 8.0) -> float:
    """In virtual seconds: the same on every machine."""
    return max(alone((kind, seed), synchronous=True, lasts_s=lasts_s).outage_s for seed in range(3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "lasts_s", "limit_s"),
    [
        ("cut_from_etcd", 45.0, 0.0),
        ("all_cut_from_etcd", 45.0, 0.0),
        ("etcd_down", 45.0, 0.0),
        ("agents_unheard", 30.0, 0.0),
        ("one_cut_from_leader", 30.0, 0.0),
        ("one_flushes_slowly", 16.0, 0.0),
        ("nosync_for_a_while", 8.0, 0.0),
        ("slow_reload", 8.0, 0.0),
        ("postmaster_killed", 8.0, 0.25 + WORLDS_SHARE_S),
        ("switchover", 8.0, 0.25 + WORLDS_SHARE_S),
        ("agent_told_to_end", 8.0, 0.25 + WORLDS_SHARE_S),
        ("agent_killed", 8.0, WORLDS_SHARE_S),
        ("power_off", 8.0, 2.5 + WORLDS_SHARE_S),
        ("cut_from_all", 30.0, 2.5 + WORLDS_SHARE_S),
        ("agent_frozen", 30.0, 2.5 + WORLDS_SHARE_S),
        ("cut_from_standbys", 20.0, 2.0 + 1.0 + WORLDS_SHARE_S),  # degrade_after, and a beat
        ("postgres_hung", 30.0, 10.0 + 2.5 + WORLDS_SHARE_S),  # hang_timeout; half a second of it is a look of the model's that hangs
    ],
)
def test_a_single_fault_costs_a_quorum_cluster_what_the_design_says(kind: str, lasts_s: float, limit_s: float):
    assert worst(kind, lasts_s) <= limit_s


def test_a_ttl_that_was_raised_convicts_no_leader_that_renews_its_lease_of_before():
    """The agents do not hear each other, and the leader hears last that the ttl is another."""
    for tenth in (0, 3, 6, 9):
        script = parse(f"1 agents_unheard leader 19\n1.5 deaf_watch leader 1\n6.{tenth} ttl_edited leader 15\n")
        world = World(SYNCHRONOUS, Shape(settings={**SETTINGS, "synchronous_mode": "quorum"}), script=script)
        world.lasts_s = 40.0

        assert not world.run()
        assert len(world.laws.leaders) == 1
