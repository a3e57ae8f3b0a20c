"""What an agent before this one, or an answer that never came, leaves behind: records of `sync` and reloads that may come to pass yet."""

from __future__ import annotations

from dataclasses import replace

from rivha.agent.brain import actions as do
from rivha.agent.brain import synchronous
from rivha.agent.brain.quorum import Electors, Names, SetElectors, SetNames
from rivha.agent.chores import Chores
from rivha.agent.desk import Desk
from rivha.agent.journal import Journal
from rivha.agent.lease import Leases
from rivha.model import State
from tests.build import ME, PRIMARY, STANDBY, World, a_row, a_view, decided, names_of
from tests.sim.etcd import SimDcs
from tests.sim.postgres import SimPostgres
from tests.sim.world import World as Simulated

ONE, ONLY_DB3 = 'ANY 1 ("db1","db3")', 'ANY 1 ("db3")'


def back_as_a_standby() -> World:
    """db2 led with db3 as its voter; its Postgres was stopped, and started as a standby while etcd was silent."""
    return a_view().me(STANDBY).leads().mode("quorum").sync(ME, "db3", 0)


def test_who_was_stopped_in_office_is_promoted_with_what_its_voters_require():
    """db1 must not acknowledge what db3, which may elect alone, does not hold (simulator, seed 1000442)."""
    assert decided(back_as_a_standby()).postgres.action == do.Promote(50, decided_before(back_as_a_standby()), ONLY_DB3, surely=True)


def test_it_is_not_promoted_while_a_record_of_its_own_may_be_carried_out_yet():
    world = back_as_a_standby().sync_doubtful()

    assert synchronous.next_step(world.view()) == SetElectors(Electors(names_of("db3"), 0))
    assert decided(world).postgres.action == do.Nothing()
    assert synchronous.next_step(back_as_a_standby().view()) is None


def test_names_are_changed_only_from_names_that_are_known_to_be_in_force_everywhere():
    """The rule is looked at for what is in force and what is wanted; a sender must not go by something third."""
    world = (
        a_view()
        .me(PRIMARY)
        .leads()
        .mode("quorum")
        .streams(a_row("db1"), a_row("db3"))
        .replies(db1=0.5, db3=0.5)
        .remembers(primary_since=1.0)
    )
    world = world.sync(ME, "db1 db3", 1)

    assert synchronous.next_step(world.names(ONLY_DB3, confirmed=False).view()) == SetNames(Names(names_of("db3"), 1))
    assert synchronous.next_step(world.names(ONLY_DB3).view()) == SetNames(Names(names_of("db1 db3"), 1))
    assert synchronous.next_step(world.sync(ME).names(ONLY_DB3, confirmed=False).view()) == SetNames(Names(names_of("db1 db3"), 1))


def decided_before(world: World) -> float:
    at = world.view().step_down_at
    assert at is not None
    return at


def test_a_record_may_land_until_one_was_written_since_or_somebody_else_was_seen_to_lead():
    world = Simulated(1)
    host = world.hosts["db2"]
    dcs = SimDcs(world.store, world.network, ME)
    chores = Chores(
        ME,
        dcs,
        SimPostgres(host.instance),
        Leases(dcs, host.clock),
        Desk(host.clock, Journal(), dcs.commit, host._reload, print),
        host.wall,
        print,
        print,
    )  # type: ignore[arg-type]

    chores.saw(a_view().me(PRIMARY).leads().view())
    assert not chores.done.sync_settled, "an agent before this one may have sent one"

    chores.saw(a_view().etcd_silent().view())
    assert not chores.done.sync_settled

    chores.saw(a_view().leader("db1", PRIMARY).view())
    assert chores.done.sync_settled, "its guard was a leadership that is over"

    chores.done = replace(chores.done, sync_settled=False)
    chores.saw(a_view().leaderless().view())
    assert chores.done.sync_settled
    world.loop.close()


def test_a_cut_off_primary_that_had_to_stop_is_not_started_again_as_one():
    """The fence stops it at once, again and again (simulator, sync_partition); as a standby it serves reads until etcd answers."""
    stopped = a_view().me(PRIMARY, State.STOPPED).leads(-5.0).mode("quorum").sync(ME, "db1 db3", 1).last_read().etcd_silent(20.0)

    assert decided(stopped.replies(db1=15.0, db3=15.0)).postgres.action == do.Start(False, None)
    proven = decided(stopped.replies(db1=0.5, db3=0.5)).postgres.action
    assert isinstance(proven, do.Start)
    assert proven.primary
