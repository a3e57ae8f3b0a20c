"""The hand-over's long first half: what was true when it was decided on may be so no more when Postgres is to stop. In the simulator."""

from __future__ import annotations

from tests.sim.faults import parse
from tests.sim.shape import Shape
from tests.sim.world import World

TO_DB2 = "1 slow_checkpoint leader 10\n2 switchover db2 1\n"  # db1 leads: stories' clusters begin one after the other


def ran(script: str) -> World:
    world = World(0, Shape(), transcript=True, script=parse(script))
    world.network.jitter = False
    world.lasts_s = 30.0
    assert not world.run()
    return world


def test_a_candidate_that_leaves_during_the_checkpoint_is_not_handed_over_to():
    """The primary goes on: stopping it then would cost an outage, and could cost rows."""
    world = ran(TO_DB2 + "5 power_off db2 10")

    assert world.laws.leaders == ["db1"]
    assert not [began for began, _ in world.clients.outages if began > world.whole_at]
    assert any("db2 stopped streaming during the checkpoint" in line for line in world.lines)


def test_one_that_streams_all_the_while_is():
    assert ran(TO_DB2).laws.leaders == ["db1", "db2"]


def test_a_bystander_may_leave_meanwhile():
    assert ran(TO_DB2 + "5 power_off db3 10").laws.leaders == ["db1", "db2"]


def test_what_an_operator_forces_on_a_node_that_never_streamed_is_not_held_up():
    """`failover` takes what is missing upon itself; the check is for a candidate that streamed when the hand-over was decided on."""
    world = ran("1 cut_from_standbys leader 25\n5 manual_failover db2 1")

    assert world.laws.leaders[:2] == ["db1", "db2"]
