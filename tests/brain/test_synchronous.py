"""Who is to hold the commits, and the one next change towards that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rivha.agent.brain import actions as do
from rivha.agent.brain import synchronous
from rivha.agent.brain.quorum import BLOCK, Electors, Goal, Names, SetElectors, SetNames, Step, Wait
from rivha.agent.brain.upkeep import Housekeeping, RecordVoters, describe, upkeep
from rivha.model import Data, State
from tests.build import ME, NOW, PRIMARY, STANDBY, World, a_member, a_row, a_view, decided, names_of

ONE = 'ANY 1 ("db1","db3")'
BOTH = 'ANY 2 ("db1","db3")'
NO_VOTERS = SetElectors(Electors())


def settled(mode: str = "quorum", **settings: object) -> World:
    """Nothing is left to do: db1 and db3 hold what db2 commits, and vote."""
    world = a_view().me(PRIMARY).leads().mode(mode, **settings).streams(a_row("db1"), a_row("db3")).replies(db1=0.5, db3=0.5)
    names, quorum = (BOTH, 0) if mode == "on" else (ONE, 1)
    return world.sync(ME, "db1 db3", quorum).names(names, passed=True).remembers(primary_since=NOW - 600)


def step(world: World) -> Step | None:
    return synchronous.next_step(world.view())


def goal(world: World) -> Goal | None:
    return synchronous.goal_of(world.view())


def electors(voters: str, quorum: int) -> SetElectors:
    return SetElectors(Electors(names_of(voters), quorum))


def names(members: str, number: int) -> SetNames:
    return SetNames(Names(names_of(members), number))


def recorded(world: World) -> list[RecordVoters]:
    v = world.view()
    return [c for c in upkeep(v, describe(v, a_member(ME)), Housekeeping()) if isinstance(c, RecordVoters)]


# ---- one change at a time


def test_a_settled_cluster_is_left_alone():
    assert step(settled()) is None
    assert step(settled("on", synchronous_node_count=2)) is None
    assert recorded(settled()) == []
    assert decided(settled()).postgres.action == do.Nothing()


def test_a_fresh_primary_names_its_standbys_first_and_lets_them_vote_after_the_barrier():
    fresh = settled().sync(ME).names("")

    assert step(fresh) == names("db1 db3", 1)
    assert decided(fresh).postgres.action == do.Synchronize(ONE)
    assert recorded(fresh) == []
    assert isinstance(step(settled().sync(ME).names(ONE, lsn=None)), Wait)
    assert step(settled().sync(ME).names(ONE, passed=True)) == electors("db1 db3", 1)
    assert recorded(settled().sync(ME).names(ONE, passed=True)) == [RecordVoters(Electors(names_of("db1 db3"), 1))]


def test_a_standby_that_is_named_votes_only_once_it_streams_from_me():
    """It may hold another history of the same timeline's number, and would rank first with it."""
    named = settled().sync(ME).names(ONE, passed=True).replies(db3=None).remembers(primary_since=NOW - 1)

    for row in ((), (a_row("db3", state="catchup"),), (a_row("db3", flush=None),)):
        assert isinstance(step(named.streams(a_row("db1"), *row)), Wait), row
    assert step(named.streams(a_row("db1"), a_row("db3"))) == electors("db1 db3", 1)


def test_a_named_standby_that_neither_streams_nor_is_wanted_becomes_no_voter_on_the_way_out():
    """Mode on: db3 was named, and died before it voted. Nobody votes for the moment that it takes to name db1 alone."""
    left = settled("on").sync(ME, "db1", 0).names(BOTH).streams(a_row("db1")).replies(db3=9.0)

    assert step(left) in (NO_VOTERS, names("db1", 1))
    assert step(left.sync(ME)) == names("db1", 1)


def test_a_voter_that_lost_its_connection_shortly_needs_no_other_record():
    assert step(settled().streams(a_row("db1")).replies(db3=1.0)) is None


def test_names_that_nobody_confirmed_are_put_in_force_once_more_before_anything_is_waited_for():
    """After a start, or another agent's death in the middle of it: a fresh backend shows them, and WAL senders may not have them yet."""
    assert step(settled().sync(ME).names(ONE, confirmed=False)) == names("db1 db3", 1)


def test_a_record_of_unknown_outcome_is_written_anew_and_nothing_else_is_changed_meanwhile():
    doubtful = settled().names("").sync_doubtful()

    assert step(doubtful) == electors("db1 db3", 1)
    assert decided(doubtful).postgres.action == do.Nothing()
    assert recorded(doubtful) == [RecordVoters(Electors(names_of("db1 db3"), 1))]


def test_no_record_is_written_while_the_names_are_on_their_way():
    assert recorded(settled().sync(ME).names(ONE, passed=True).busy("synchronize")) == []


def test_the_record_that_was_lost_or_belongs_to_nobody_is_written_by_who_leads():
    """Nobody can have won: the key is mine. Without it nobody could ever be elected again."""
    assert step(settled().etcd(sync=None)) == NO_VOTERS
    assert step(settled().sync("db9", "db1")) == NO_VOTERS
    assert step(settled().sync(None)) == NO_VOTERS


def test_a_record_that_cannot_be_read_is_the_operators_to_mend():
    broken = settled().etcd(sync=None, complaints=("sync: is not JSON",))

    assert step(broken) is None
    assert step(broken.mode("off", own_standby_names="x")) is None
    assert decided(broken.mode("off", own_standby_names="x")).postgres.action == do.Nothing()


@pytest.mark.parametrize(
    "world",
    [
        settled().sync(ME).leader("db1").sync(ME),
        settled().sync(ME).leads(left_s=-1.0),
        settled().sync(ME).etcd_silent(),
        settled().sync(ME).busy("stop"),
        settled().sync(ME).busy("handover"),
        settled().sync(ME).busy("restart"),
        settled().me(PRIMARY, State.SILENT).sync(ME),
        settled().me(PRIMARY, State.STARTING).sync(ME),
        settled().me(STANDBY).sync(ME),
    ],
    ids=["another leads", "lease over", "etcd silent", "stops", "hands over", "restarts", "hangs", "starts", "not promoted"],
)
def test_only_who_leads_with_a_primary_that_stays_changes_anything(world: World):
    assert step(world) is None
    assert synchronous.names_wanted(world.view()) is None


def test_a_primary_that_is_about_to_end_does_not_begin_to_change_its_names():
    assert not isinstance(decided(settled().names("").sync(ME).stopping()).postgres.action, do.Synchronize)


def test_names_that_could_not_be_set_are_tried_again_a_moment_later():
    failed = settled().sync(ME).names("")

    assert decided(failed.failures("synchronize", 1, ago_s=0.1)).postgres.action == do.Nothing()
    assert decided(failed.failures("synchronize", 1, ago_s=5.0)).postgres.action == do.Synchronize(ONE)


# ---- off, and back


def test_turned_off_the_voters_go_first_and_then_the_operators_own_names_come():
    off = settled().mode("off", own_standby_names="standby1")

    assert step(off) == NO_VOTERS
    assert synchronous.names_wanted(off.view()) is None
    assert synchronous.names_wanted(off.sync(ME).view()) == "standby1"
    assert synchronous.names_wanted(off.names("standby1").view()) is None
    assert synchronous.names_wanted(settled().mode("off").sync(ME).view()) == ""


def test_turned_on_the_operators_own_names_give_way():
    assert step(settled().sync(ME).names("FIRST 1 (standby1)")) == names("db1 db3", 1)


def test_a_pause_goes_on_moving_voters_and_names():
    assert decided(settled().paused().sync(ME).names("")).postgres.action == do.Synchronize(ONE)
    assert recorded(settled().paused().sync(ME).names(ONE, passed=True))


# ---- who is wanted


def test_quorum_takes_all_who_can_and_on_as_many_as_asked_for():
    assert goal(settled()) == Goal(names_of("db1 db3"), 1, False)
    assert goal(settled(synchronous_node_count=2)) == Goal(names_of("db1 db3"), 2, False)
    assert goal(settled(synchronous_node_count=5)) == Goal(names_of("db1 db3"), 2, False)
    assert goal(settled("on")) == Goal(names_of("db1"), 1, True)
    assert goal(settled("on", synchronous_node_count=2)) == Goal(names_of("db1 db3"), 2, True)


def test_a_voter_without_replies_for_degrade_after_is_given_up():
    gone = settled().streams(a_row("db1"))

    assert goal(gone.replies(db3=1.9)) == Goal(names_of("db1 db3"), 1, False)
    assert goal(gone.replies(db3=2.1)) == Goal(names_of("db1"), 1, False)


def test_a_connected_one_has_a_beat_more_since_looks_are_a_beat_apart():
    silent = settled().streams(a_row("db1"), a_row("db3", reply="t0"))

    assert goal(silent.replies(db3=2.9)) == Goal(names_of("db1 db3"), 1, False)
    assert goal(silent.replies(db3=3.1)) == Goal(names_of("db1"), 1, False)


def test_nobody_is_given_up_before_the_new_primary_was_up_for_degrade_after():
    young = settled().streams().replies(db1=None, db3=None).sync(ME)

    assert goal(young.remembers(primary_since=NOW - 1.9)) == Goal(names_of("db1 db3"), 1, False)
    assert goal(young.remembers(primary_since=NOW - 2.1)) is None


def test_with_nobody_left_the_voters_go_first_and_commits_wait_for_nobody_then():
    alone = settled().streams().replies(db1=9.0, db3=9.0)

    assert step(alone) == NO_VOTERS
    assert step(alone.sync(ME)) == names("", 0)
    assert step(alone.sync(ME).names("")) is None


def test_a_strict_cluster_keeps_its_voters_while_nobody_can_replace_them():
    alone = settled(synchronous_mode_strict=True).streams().replies(db1=9.0, db3=9.0)
    newcomer = alone.streams(a_row("db4")).replies(db4=0.5).member(a_member("db4"))

    assert step(settled(synchronous_mode_strict=True).streams().replies(db1=9.0, db3=9.0)) is None
    assert goal(newcomer) == Goal(names_of("db4"), 1, False)


def test_a_clone_under_way_replaces_no_voter_of_a_strict_cluster():
    cloning = settled(synchronous_mode_strict=True).streams(a_row("clone:db3")).replies(**{"db1": 9.0, "db3": 9.0, "clone:db3": 0.1})

    assert step(cloning) is None


def test_a_strict_cluster_that_never_had_a_voter_waits_for_one():
    assert step(settled(synchronous_mode_strict=True).streams().replies(db1=9.0, db3=9.0).sync(ME).names("")) == SetNames(BLOCK)
    came = settled(synchronous_mode_strict=True).sync(ME).names(BLOCK.text)
    assert step(came) == names("db1 db3", 1)


def test_even_a_strict_cluster_lets_go_whom_leaving_was_promised():
    leaving = settled(synchronous_mode_strict=True).streams(a_row("db1")).member(a_member("db3", leaving=True))

    assert goal(leaving) == Goal(names_of("db1"), 1, False)
    last = leaving.streams().member(a_member("db1", leaving=True))
    assert step(last) == NO_VOTERS


@pytest.mark.parametrize("tags", [{"nosync": True}, {"nosync": "yes"}])
def test_nosync_is_no_voter(tags: dict[str, object]):
    assert goal(settled().member(a_member("db3", tags=tags))) == Goal(names_of("db1"), 1, False)


def test_who_wants_to_leave_is_taken_out():
    leaving = settled().member(a_member("db3", leaving=True))

    assert step(leaving) == names("db1", 1)
    assert step(leaving.names('ANY 1 ("db1")', lsn=None)) != electors("db1", 0), (
        "not before what db3 alone may have acknowledged is held by db1"
    )
    assert step(leaving.names('ANY 1 ("db1")', passed=True)) == electors("db1", 0)


def test_who_may_not_lead_votes_only_for_want_of_others():
    barred = a_member("db3", tags={"nofailover": True})

    assert goal(settled().member(barred)) == Goal(names_of("db1"), 1, False)
    assert goal(settled(synchronous_node_count=2).member(barred)) == Goal(names_of("db1 db3"), 2, False)
    assert goal(settled("on").member(a_member("db1", tags={"nofailover": True}))) == Goal(names_of("db3"), 1, True)
    assert goal(settled().streams(a_row("db3")).replies(db1=9.0).member(barred)) == Goal(names_of("db3"), 1, False)


def test_sync_priority_then_who_votes_already_then_the_most_advanced():
    one = settled("on").sync(ME, "db3").names('ANY 1 ("db3")').streams(a_row("db1", 900), a_row("db3", 100))

    assert goal(one) == Goal(names_of("db3"), 1, True), "no change for its own sake"
    assert goal(one.sync(ME).names("")) == Goal(names_of("db1"), 1, True)
    assert goal(one.member(a_member("db1", tags={"sync_priority": 2}))) == Goal(names_of("db1"), 1, True)


def test_a_laggard_gives_way_if_somebody_else_is_there():
    lag = settled(maximum_lag_on_syncnode=50).me(PRIMARY, lsn=1000).streams(a_row("db1", 1000), a_row("db3", 900)).sync(ME, "db1 db3", 1)

    assert goal(lag) == Goal(names_of("db1"), 1, False)
    assert goal(lag.streams(a_row("db3", 900)).replies(db1=9.0)) == Goal(names_of("db3"), 1, False)
    assert goal(lag.settings(maximum_lag_on_syncnode=200).streams(a_row("db1", 1000), a_row("db3", 900)).replies(db1=0.5)) is not None


def test_a_stranger_that_streams_is_no_voter_before_it_is_a_member():
    assert goal(settled().streams(a_row("db1"), a_row("db3"), a_row("pg_receivewal"))) == Goal(names_of("db1 db3"), 1, False)


# ---- names for a promotion, and for a start


def test_a_promotion_names_who_is_about_one_of_whom_must_have_it():
    winner = a_view().me(STANDBY).leads().mode("quorum")

    assert synchronous.names_to_promote_with(winner.view()) == ONE
    assert synchronous.names_to_promote_with(winner.member(a_member("db1", "primary")).view()) == 'ANY 1 ("db3")'
    assert synchronous.names_to_promote_with(winner.member(a_member("db3", state="stopped")).view()) == ""
    strict = a_view().me(STANDBY).leads().mode("quorum", synchronous_mode_strict=True).without("db1", "db3")
    assert synchronous.names_to_promote_with(strict.view()) == BLOCK.text
    off = a_view().me(STANDBY).leads().settings(own_standby_names="x")
    assert synchronous.names_to_promote_with(off.view()) == "x"


def test_whom_the_voters_count_on_is_named_by_whoever_leads_again():
    again = a_view().me(STANDBY).leads().mode("quorum", synchronous_node_count=2).sync(ME, "db1 db3 db4", 1)

    assert synchronous.names_to_promote_with(again.view()) == 'ANY 2 ("db1","db3","db4")'
    assert synchronous.names_to_promote_with(again.mode("off").view()) == 'ANY 2 ("db1","db3","db4")'


# ---- a voter that wants to go


def voter() -> World:
    return a_view().me(STANDBY).following().leader("db1").mode("quorum").sync("db1", "db2 db3", 1)


def test_a_voter_says_why_it_leaves_and_publishes_that_it_does():
    reinit, empty, diverged = voter().wish("reinitialize"), voter().no_data(), voter().compared("diverged")
    for world in (voter().stopping(), reinit, empty, diverged, voter().no_data(Data.UNFINISHED, "rewind")):
        assert synchronous.why_i_leave_the_voters(world.view())
        assert describe(world.view(), a_member(ME)).leaving


def test_nobody_leaves_who_votes_for_nothing_or_has_nobody_to_be_let_go_by():
    worlds = [voter(), voter().stopping().sync("db1", "db3"), voter().no_data().leaderless(), voter().stopping().paused()]
    worlds += [voter().compared("diverged", term=1)]
    for world in worlds:
        assert synchronous.why_i_leave_the_voters(world.view()) is None


def test_a_lost_voter_is_who_shows_no_reply_and_not_whose_agent_is_away():
    away = settled().without("db3")

    assert goal(away.streams(a_row("db3")).replies(db1=9.0)) == Goal(names_of("db3"), 1, False)


def test_the_voters_of_a_primary_that_tells_nothing_stay():
    """It refuses the agent's password: what is in force there, and who streams, is not known."""
    world = settled()
    world.status = replace(world.status, wal_lsn=None, replication=(), synchronous_standby_names="", names_confirmed=False)

    assert step(world) is None
