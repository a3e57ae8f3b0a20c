"""Facts that rules speak of: the voters' proof, the two witnesses, what a pledge rests on."""

from __future__ import annotations

import math

import pytest

from rivha.agent.brain.view import Job
from rivha.model import Data, LeaderKey, Outcome, State
from tests.build import ME, NO_GROUND, NOW, PRIMARY, STANDBY, TERM, World, a_row, a_view

WINDOW_S = 1.0 + 1.0 + 1.5 + 0.5  # a reply a second, a beat, a look at an etcd that does not answer, and some


def leading(voters: str = "db1 db3", quorum: int = 1) -> World:
    return a_view().me(PRIMARY).leads().mode("quorum").sync(ME, voters, quorum).streams()


# ---- the voters' proof


def test_the_proof_is_as_old_as_the_reply_that_leaves_too_few_to_elect():
    assert leading().replies(db1=0.5, db3=3.0).view().proven_until == NOW - 0.5 + WINDOW_S, "q = 1: one is enough"
    assert leading(quorum=0).replies(db1=0.5, db3=3.0).view().proven_until == NOW - 3.0 + WINDOW_S, "any one may elect: both are needed"
    assert leading("db1 db3 db4", 1).replies(db1=0.5, db3=3.0, db4=9.0).view().proven_until == NOW - 3.0 + WINDOW_S


@pytest.mark.parametrize(
    "world",
    [
        leading().replies(db1=None, db3=None),
        leading(quorum=0).replies(db1=0.1),
        leading().replies(db4=0.1),
        leading().replies(db1=0.1, db3=0.1).sync_doubtful(),
        leading().replies(db1=0.1, db3=0.1).mode("off"),
        leading().replies(db1=0.1, db3=0.1).sync("db1", "db1 db3", 1),
        leading().replies(db1=0.1, db3=0.1).leader("db1").sync(ME, "db1 db3", 1),
        leading().replies(db1=0.1, db3=0.1).etcd(sync=None),
        leading("db1", 1).replies(db1=0.1),
    ],
    ids=["from long ago", "too few", "no voter", "doubtful", "off", "another holds", "another leads", "no record", "nobody can elect"],
)
def test_nothing_is_proven(world: World):
    assert world.view().proven_until is None


def test_without_voters_nobody_else_may_lead_and_it_is_proven_for_ever():
    v = leading("", 0).view()

    assert v.proven_until == math.inf
    assert v.step_down_at == math.inf
    assert a_view().me(PRIMARY).leads().view().proven_until is None, "asynchronous: the lease is all there is"


def test_the_proof_outlasts_etcds_silence():
    assert leading().replies(db1=0.5).last_read().view().proven_until == NOW - 0.5 + WINDOW_S


def test_a_primary_steps_down_at_the_later_of_its_leases_end_and_the_proofs():
    assert leading().leads(9.0).sync(ME, "db1 db3", 1).replies(db1=0.5).view().step_down_at == NOW + 6.5
    assert leading().leads(3.0).sync(ME, "db1 db3", 1).replies(db1=0.5).view().step_down_at == NOW + 3.5
    lost = leading().replies(db1=0.5)
    lost.lease = None
    assert lost.view().step_down_at == NOW + 3.5
    assert a_view().me(PRIMARY).view().step_down_at is None


def test_when_etcd_last_said_that_i_lead_is_when_that_read_was_sent_and_ends_with_another_leader():
    mine = leading().seen_at(NOW - 0.4)
    silent = leading().remembers(confirmed_at=NOW - 7).last_read()
    gone = leading().remembers(confirmed_at=NOW - 7).leaderless()
    other = leading().remembers(confirmed_at=NOW - 7).leader("db1")

    assert [w.view().confirmed_at for w in (mine, silent, gone, other)] == [NOW - 0.4, NOW - 7, NOW - 7, None]


# ---- the witnesses


def voter() -> World:
    return a_view().me(STANDBY).leader("db1").mode("quorum").sync("db1", "db2 db3", 1)


@pytest.mark.parametrize(
    ("world", "lost"),
    [
        (voter().witness(2.0, 2.0), True),
        (voter().witness(1.9, 9.0), False),
        (voter().witness(9.0, 1.9), False),
        (voter().witness(9.0, None), False),
        (voter().witness(9.0, 9.0, name="db3"), False),
        (voter(), False),
        (voter().leaderless().witness(2.0, None), True),
        (voter().leaderless().witness(1.9, 9.0), False),
        (voter().leaderless().witness(9.0, 9.0, name="db3"), False),
        (voter().leaderless().etcd(sync=None).witness(9.0, 9.0), False),
        (voter().witness(9.0, 9.0).etcd_silent(), False),
    ],
)
def test_the_leader_is_lost_when_neither_it_nor_its_lease_has_shown_life(world: World, lost: bool):
    assert world.view().leader_is_lost is lost


# ---- what a pledge rests on


def test_a_pledge_of_unknown_outcome_may_land_until_etcd_shows_another_ground():
    world = voter().ended("pledge", result=Outcome.UNKNOWN, ground=(TERM, 60, 0))
    v = world.view()

    assert v.ground == (TERM, 60, 0)
    assert v.a_pledge_may_land
    follows = voter().ended("follow")
    follows.memory = v.memory
    assert follows.view().a_pledge_may_land, "another job has ended since, and it may land all the same"
    follows.etcd(pledge_revisions={ME: 71})
    assert not follows.view().a_pledge_may_land, "written over: it is refused"


def test_a_refused_pledge_is_no_worry_and_one_that_stands_is_none_either():
    assert not voter().ended("pledge", result=Outcome.REFUSED, ground=(TERM, 60, 0)).view().a_pledge_may_land
    assert not voter().pledged().ended("pledge", result=Outcome.DONE, ground=(TERM, 60, 0)).view().a_pledge_may_land


def test_a_freeze_under_way_may_have_sent_its_pledge():
    freezing = voter().busy("pledge")
    freezing.more["job"] = Job("pledge", NOW - 1, ground=(TERM, 60, 0))

    assert freezing.view().a_pledge_may_land


def test_an_agent_that_begins_reckons_with_one_of_the_agent_before_it():
    first = voter().pledge_may_land()

    assert first.view().a_pledge_may_land
    silent = voter().pledge_may_land().etcd_silent()
    assert silent.view().memory.pledge_ground is None, "not before it has seen what such a one would rest on"
    assert not voter().remembers(pledge_ground=NO_GROUND).view().a_pledge_may_land


# ---- memory that only the synchronous modes need


def test_how_long_i_have_been_a_primary_counts_from_the_first_look_out_of_recovery():
    assert leading().view().memory.primary_since == NOW
    assert leading().remembers(primary_since=5.0).me(PRIMARY, State.SILENT).view().memory.primary_since == 5.0
    assert leading().remembers(primary_since=5.0).me(PRIMARY, State.STARTING).view().memory.primary_since is None
    assert leading().remembers(primary_since=5.0).me(STANDBY).view().memory.primary_since is None


def test_a_pledge_has_been_standing_since_it_was_first_seen_in_the_leadership_in_office():
    assert voter().pledged().view().memory.standing_since == NOW
    assert voter().pledged().remembers(standing_since=7.0).view().memory.standing_since == 7.0
    assert voter().remembers(standing_since=7.0).view().memory.standing_since is None
    assert voter().pledged().etcd(leader=LeaderKey("db3", 1, TERM + 9)).view().memory.standing_since is None


def test_a_beat_between_two_replies_is_no_gap_in_the_proof():
    """Both are a second apart, and need not be in step."""
    world = leading().replies(db1=2.0).streams(a_row("db1", reply="t0"))

    until = world.view().proven_until
    assert until is not None
    assert until > NOW


def test_what_has_failed_a_thousand_times_is_tried_again_all_the_same():
    """2 to that power is no float: the agent ended by an error, a primary's after 35 min in which the names could not be set."""
    for often in (1, 30, 1023, 5000):
        tried = leading().failures("synchronize", often, ago_s=1.5)
        assert tried.view().may_retry("synchronize", 2.0) is (often == 1)
        assert tried.failures("synchronize", often, ago_s=2.5).view().may_retry("synchronize", 2.0)


def test_a_rewind_under_way_is_not_called_interrupted():
    w = a_view().me(data=Data.UNFINISHED, problem="a rewind was interrupted").leader("db1")

    assert w.view().problem == "a rewind was interrupted"
    assert w.busy("rewind").view().problem == ""


def test_a_standby_that_streams_from_nobody_for_want_of_etcd_says_so():
    w = a_view().me(STANDBY).leader("db1").etcd_silent(60.0)

    assert w.view().problem == "etcd does not answer this node, and it streams from nobody until it does"
    assert a_view().me(STANDBY, upstream="10.0.0.1:5432").leader("db1").etcd_silent(60.0).view().problem == "etcd does not answer this node"
