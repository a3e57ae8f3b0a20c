"""Two promotions to one timeline number: Postgres goes by numbers and would stream from the wrong one (docs/decisions/0010)."""

from __future__ import annotations

import pytest

from tests.sim import faults
from tests.sim.shape import SETTINGS, Shape
from tests.sim.world import World

# db2 leads on timeline 2 and db3 follows it; both are gone from sight when db1, which never heard of it, makes a timeline 2 as well.
ROLLING = "1.5 power_off db1 {back}; 20 cut_from_etcd db3 {deaf}; {then} power_off db2 200"


def ran(script: str, mode: str, lasts_s: float) -> World:
    settings = {**SETTINGS, "synchronous_mode": mode, "maximum_lag_on_failover": 100_000}
    world = World(0, Shape(settings=settings, settle_s=200.0), script=faults.parse(script.replace(";", "\n")), transcript=True)
    world.lasts_s, world.network.jitter = lasts_s, False  # who leads first is the script's
    world.run()
    return world


def compared_before_it_followed(world: World) -> bool:
    """When db3 hears of the second one."""
    twin = next(n for n, line in enumerate(world.lines) if "FAULT power_off db2" in line)
    told = [text for _, who, text in (line.split(maxsplit=2) for line in world.lines[twin:]) if who == "db3"]
    compared = next(n for n, text in enumerate(told) if text.startswith("compared histories leader=db1 result=diverged"))
    return compared < next(n for n, text in enumerate(told) if text in ("begins follow db1", "begins start db1"))


def test_a_standby_of_a_dead_leader_does_not_follow_the_twin_of_its_timeline():
    world = ran(ROLLING.format(back=25, deaf=35, then=22), "off", 60.0)

    assert not world.laws.broken
    assert world.laws.leaders[:3] == ["db1", "db2", "db1"]
    assert compared_before_it_followed(world)


@pytest.mark.parametrize("again", ["", "; 75 power_off db1 60"])
def test_nor_after_an_operator_accepted_the_loss_in_a_quorum_cluster(again: str):
    """It would count as a voter, acknowledge, and lack what the leader had before it came."""
    accepts = "; 30 failover_with_loss db1 0; 33 failover_with_loss db1 0"
    world = ran(ROLLING.format(back=22, deaf=32, then=21) + accepts + again, "quorum", 95.0)

    assert not world.laws.broken
    assert compared_before_it_followed(world)


@pytest.mark.parametrize("mode", ["off", "quorum"])
def test_nor_the_twin_of_who_was_told_to_follow_the_same_leader_and_got_nothing_from_it(mode: str):
    """db3 points at db2, which it does not reach, and makes timeline 2 anew; db4 has db2's. (Hostile reading.)"""
    accepts = "; 30 failover_with_loss db3 0" if mode == "quorum" else ""
    script = f"1.5 power_off db1 300; 20 cut_from_etcd db4 33; 21.5 power_off db2 300{accepts}"
    settings = {**SETTINGS, "synchronous_mode": mode, "maximum_lag_on_failover": 100_000}
    world = World(0, Shape(4, settings=settings, settle_s=200.0), script=faults.parse(script.replace(";", "\n")), transcript=True)
    world.lasts_s, world.network.jitter = 95.0, False
    pairs = {("db3", "db2:5432"), ("db2:5432", "db3"), ("db2", "db3:5432")}
    world.later(2.0, world.network.cuts.update, pairs)
    world.later(42.0, world.network.cuts.difference_update, pairs)

    assert not world.run()
    assert any("db4    compared histories leader=db3 result=diverged" in line for line in world.lines)


@pytest.mark.parametrize(
    ("deaf", "leaves"),
    [
        ("", "db1 leads: streaming from nobody until histories are compared"),  # it sees all, stands for nothing, and cannot compare
        ("20 cut_from_etcd db3 55; ", "streaming from nobody until etcd answers"),  # it hears of nothing before db2 is back
    ],
)
def test_nor_by_way_of_a_former_leader_that_was_copied_from_the_twin(deaf: str, leaves: str):
    """db3 points at db2, which comes back as a standby of db1; Postgres connects again by itself (seed 1004932)."""
    settings = {**SETTINGS, "synchronous_mode": "off", "maximum_lag_on_failover": 100_000}
    shape = Shape(settings=settings, tags={"db3": {"nofailover": True}}, settle_s=200.0)
    script = f"1.5 power_off db1 25; {deaf}22 power_off db2 25"
    world = World(0, shape, script=faults.parse(script.replace(";", "\n")), transcript=True)
    world.lasts_s, world.network.jitter = 110.0, False
    apart = {("db3", "db1:5432"), ("db1:5432", "db3")}
    world.later(25.0, world.network.cuts.update, apart)
    world.later(90.0, world.network.cuts.difference_update, apart)

    assert not world.run()
    assert any("db2    Postgres streams from db1" in line for line in world.lines)
    assert any(leaves in line for line in world.lines)
