"""What about Postgres, in the synchronous modes? One test per promise, situation by situation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rivha.agent.brain import actions as do
from rivha.agent.brain.leading import LINGER_S
from rivha.model import Data, Role, State, Upstream
from tests.build import ME, NOW, PRIMARY, STANDBY, World, a_member, a_row, a_view, decided

DB1 = Upstream("db1", "10.0.0.1", 5432)


def postgres(world: World) -> do.PostgresAction:
    return decided(world).postgres.action


def leading(voters: str = "db1 db3", quorum: int = 1) -> World:
    world = a_view().me(PRIMARY).leads().mode("quorum").sync(ME, voters, quorum).streams(a_row("db1"), a_row("db3"))
    return world.names('ANY 1 ("db1","db3")', passed=True).replies(db1=0.5, db3=0.5)


def voter() -> World:
    return a_view().me(STANDBY).following().leader("db1").mode("quorum").sync("db1", "db2 db3", 1)


def gone(state: State = State.RUNNING, left_s: float = 1.0) -> World:
    """etcd has been silent for 8 s; my lease ends in a second."""
    world = leading().me(PRIMARY, state).streams(a_row("db1", reply="t0"), a_row("db3", reply="t0"))
    world.lease = replace(world.leads(left_s).lease, ttl_s=10.0) if world.lease else None
    return world.sync(ME, "db1 db3", 1).last_read().remembers(blind_since=NOW - 8)


# ---- leading


def test_the_elected_is_promoted_with_the_names_of_who_must_hold_its_commits():
    action = postgres(a_view().me(STANDBY).leads().mode("quorum"))

    assert isinstance(action, do.Promote)
    assert action.names == 'ANY 1 ("db1","db3")'


def test_a_holder_that_took_the_key_back_starts_its_primary_though_its_voters_are_up():
    """It gave the key to them, and they did not take it: to resign again would go on for ever."""
    again = leading().me(PRIMARY, State.CRASHED).remembers(took_back=True)

    assert isinstance(postgres(again), do.Start)
    assert isinstance(decided(again).lease.action, do.Renew)


def test_a_holder_whose_postgres_does_not_come_up_leaves_it_to_the_voters_that_it_kept():
    broken = leading().me(PRIMARY, State.CRASHED).remembers(took_back=True).failures("start", 3)

    assert isinstance(decided(broken).lease.action, do.Resign)
    assert isinstance(decided(broken.sync(ME)).lease.action, do.Renew), "without voters nobody else may"


def test_a_hand_over_goes_to_a_voter_or_to_whom_the_operator_named():
    switch = leading("db3", 0).names('ANY 1 ("db3")')

    assert isinstance(postgres(switch.wanted(ME, "db1")), do.HandOver)
    assert isinstance(postgres(switch.wanted(ME, None)), do.HandOver)
    assert not isinstance(postgres(switch.sync(ME).wanted(ME, None)), do.HandOver), "nobody else holds all commits"


def test_a_hand_over_waits_with_nobody_leading_only_for_who_may_lack_what_was_acknowledged():
    """Voters have it all together, whoever of them is dark by now (HAZARDS C 39)."""

    def linger_s(world: World) -> float | None:
        action = postgres(world)
        assert isinstance(action, do.HandOver)
        return action.linger_s

    def led(voters: str = "db3") -> World:
        return leading(voters, 0)

    assert linger_s(led().wanted(ME, "db3")) == linger_s(led().wanted(ME, None)) == linger_s(led().stopping()) == LINGER_S
    assert linger_s(led().wanted(None, "db1", accept_loss=True)) is None, "no voter"
    assert linger_s(led("").stopping()) is None, "alone: what was acknowledged may be nowhere else"
    assert linger_s(a_view().me(PRIMARY).leads().wanted(ME, "db3")) is None, "asynchronous"


def test_nobody_is_handed_over_to_who_is_no_voter_and_was_never_seen_to_follow():
    """The resignation would name it, and it would win alone by a timeline's number, which another history may bear (decision 12)."""
    led = a_view().me(PRIMARY, replication=(a_row("db1"),)).leads().mode("quorum").sync(ME, "db1", 0)

    assert not isinstance(postgres(led.wanted(None, "db3")), do.HandOver)
    assert isinstance(postgres(led.wanted(None, "db1")), do.HandOver)
    assert isinstance(postgres(led.wanted(None, "db3", accept_loss=True)), do.HandOver), "an operator knows better"


# ---- the voters' proof


def test_a_primary_that_its_voters_prove_outlives_its_lease():
    assert postgres(gone()) == do.Nothing()
    assert isinstance(postgres(gone().replies(db1=9.0, db3=9.0)), do.Stop)
    assert postgres(gone().replies(db1=9.0, db3=0.5)) == do.Nothing(), "one of two: no two can have pledged"


def test_a_primary_whose_key_was_lost_and_etcd_with_it_goes_on_while_its_voters_prove_it():
    """etcd came back for a moment, said that the key is gone, and fell silent again."""
    world = gone()
    world.lease = None

    assert postgres(world) == do.Nothing()
    assert isinstance(postgres(world.replies(db1=9.0, db3=9.0)), do.Stop)


def test_a_primary_of_an_agent_that_never_read_etcd_gets_no_more_than_retry_timeout():
    world = a_view().me(PRIMARY).mode("quorum").etcd_silent(3.5)

    assert isinstance(postgres(world), do.Stop)
    assert postgres(a_view().me(PRIMARY).mode("quorum").etcd_silent(2.5)) == do.Nothing()


def test_a_crashed_primary_starts_in_place_while_etcd_is_silent_whatever_its_lease():
    """It acknowledges nothing alone."""
    down = gone(State.CRASHED, left_s=-60.0)

    assert isinstance(postgres(down), do.Start)
    assert not (isinstance(a := postgres(down.remembers(handed_over_term=50)), do.Start) and a.primary), "not after a hand-over"
    assert postgres(gone(State.CRASHED, left_s=-60.0).settings(synchronous_mode="off")) != do.Start(True)


def test_nor_does_it_start_while_its_resignation_may_be_carried_out_yet():
    """Whoever takes over then counts on it that nothing runs here."""
    down = gone(State.CRASHED, left_s=-60.0)
    assert down.lease is not None
    down.lease = replace(down.lease, doubtful=True)

    assert not (isinstance(action := postgres(down), do.Start) and action.primary)


def test_an_agent_that_begins_while_etcd_is_silent_starts_nothing_as_a_primary():
    blind = a_view().me(PRIMARY, State.STOPPED).mode("quorum").etcd_silent(60.0)

    assert postgres(blind) == do.Start(False, None)
    assert postgres(a_view().me(STANDBY, State.STOPPED).mode("quorum").etcd_silent(60.0)) == do.Start(False, None), "of nobody"
    assert postgres(a_view().me(PRIMARY, State.STOPPED).mode("quorum").etcd_silent(1.0)) == do.Nothing()


# ---- following


def test_the_names_are_surely_in_force_before_a_promotion_where_a_commit_without_them_would_break_a_promise():
    def elected() -> World:
        return a_view().me(STANDBY).leads().held().mode("quorum")

    with_voters, strict = elected().sync("db2", "db1 db3", 1), elected().mode("quorum", synchronous_mode_strict=True)
    for world, surely in ((elected(), False), (with_voters, True), (strict, True)):
        action = postgres(world)
        assert isinstance(action, do.Promote)
        assert action.surely is surely


def test_a_voter_neither_follows_nor_starts_anew_while_its_leader_is_lost():
    moved = voter().me(STANDBY, upstream="10.0.0.9:5432").witness()

    assert decided(moved).postgres.rule == "stand_still_while_the_leader_is_lost"
    assert postgres(moved.pledged()) == do.Nothing()
    assert isinstance(postgres(voter().me(STANDBY, upstream="10.0.0.9:5432")), do.Follow)


@pytest.mark.parametrize("world", [voter().me(STANDBY).pledged(), voter().me(STANDBY).pledge_may_land()], ids=["stands", "may land"])
def test_nothing_streams_under_a_pledge(world: World):
    assert decided(world).postgres.rule == "wait_until_my_pledge_is_withdrawn"
    assert decided(world.wish("restart")).postgres.action == do.Nothing()
    down = world.me(STANDBY, State.STOPPED).compared("same")
    assert postgres(down) == do.Nothing()


def test_who_was_refused_its_late_pledge_follows_again():
    assert postgres(voter().me(STANDBY)) == do.Follow(DB1)


def test_a_voter_keeps_its_data_until_the_leader_has_taken_it_out():
    asked = voter().wish("reinitialize")
    lost_data = voter().no_data()
    half = voter().no_data(Data.UNFINISHED, "rewind")
    diverged = voter().me(STANDBY, State.STOPPED).compared("diverged")

    for world, then in ((asked, do.SetAside), (lost_data, do.Clone), (half, do.Rewind), (diverged, do.Rewind)):
        assert decided(world).postgres.rule == "leave_the_voters_first"
        assert isinstance(postgres(world.sync("db1", "db3")), then)


def test_a_voter_keeps_its_data_in_a_pause_too():
    asked = voter().wish("reinitialize").paused()

    assert decided(asked).postgres.rule == "leave_the_voters_first"
    assert isinstance(postgres(asked.sync("db1", "db3")), do.SetAside)


def test_a_voter_whose_agent_ends_waits_to_be_let_go_but_not_for_long():
    ends = voter().stopping()

    assert postgres(ends.remembers(stopping_since=NOW - 3.0)) == do.Nothing()
    assert isinstance(postgres(ends.remembers(stopping_since=NOW - 4.5)), do.Stop)
    assert isinstance(postgres(voter().stopping().sync("db1", "db3")), do.Stop)


def test_a_primary_that_another_succeeded_stops_before_it_leaves_anything():
    assert isinstance(postgres(voter().me(PRIMARY).stopping()), do.Stop)


# ---- nobody leads


def test_who_gave_the_key_to_the_voters_waits_for_them_before_it_starts_as_a_standby():
    died = a_view().me(PRIMARY, State.CRASHED).mode("quorum").sync(ME, "db1 db3", 1).resigned(ME)

    assert postgres(died.leaderless(1.0)) == do.Nothing()
    assert isinstance(decided(died.leaderless(1.0)).lease.action, do.Nothing)
    assert isinstance(decided(died.leaderless(3.5)).lease.action, do.Acquire), "they did not: in place, with the lock held"


def test_a_pledged_standby_that_died_starts_as_a_standby_of_nobody():
    dead = a_view().me(STANDBY, State.CRASHED).leaderless(1.0).mode("quorum").sync("db1", "db2 db3", 1).pledged()

    assert postgres(dead) == do.Start(False, None)


def test_a_role_that_is_not_known_is_stopped_like_a_primary_when_another_leads():
    assert isinstance(postgres(voter().me(Role.UNKNOWN, State.SILENT)), do.Stop)


def test_a_member_that_streams_from_nobody_and_is_no_voter_waits_for_the_election():
    bystander = a_view().me(STANDBY).leaderless(60.0).mode("quorum").sync("db1", "db3", 0).member(a_member("db1", state="stopped"))

    assert postgres(bystander) == do.Nothing()
    assert isinstance(decided(bystander).lease.action, do.Nothing)
