"""The lease question in the synchronous modes: who gives the key back, who may stand, who wins, who waits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rivha.agent.brain import actions as do
from rivha.agent.brain.upkeep import describe
from rivha.agent.brain.view import Situation
from rivha.model import Data, Role, State
from tests.build import LEADER_LEASE, ME, NOW, PRIMARY, STANDBY, TERM, World, a_member, a_view, decided


def lease(world: World) -> do.LeaseAction:
    return decided(world).lease.action


def problem(world: World) -> str:
    return describe(world.view(), a_member(ME)).problem


def postgres(world: World) -> do.PostgresAction:
    return decided(world).postgres.action


def rule(world: World) -> str:
    return decided(world).lease.rule


def voter(voters: str = "db2 db3", quorum: int = 1) -> World:
    """db1 leads, I follow, and vote."""
    return a_view().me(STANDBY).following().leader("db1").mode("quorum").sync("db1", voters, quorum)


def lost(voters: str = "db2 db3", quorum: int = 1) -> World:
    """db1 has gone silent, and its key still stands; my WAL receiver has noticed."""
    return voter(voters, quorum).me(STANDBY).witness()


def orphan(voters: str = "db2 db3", quorum: int = 1) -> World:
    """The key is gone, and what is known of db1 is only that."""
    return a_view().me(STANDBY).leaderless(5.0).mode("quorum").sync("db1", voters, quorum)


def crashed(voters: str = "db1 db3", quorum: int = 1) -> World:
    return a_view().me(PRIMARY, State.CRASHED).leads().mode("quorum").sync(ME, voters, quorum)


# ---- suspicion


def test_a_voter_pledges_when_both_witnesses_agree_though_the_key_still_stands():
    assert lease(lost()) == do.MakePledge(TERM)
    assert decided(lost()).postgres.action == do.Nothing()


@pytest.mark.parametrize(
    "world",
    [
        voter(),
        voter().witness(silent_s=1.9),
        voter().witness(unrenewed_s=1.9),
        voter().witness(unrenewed_s=None),
        voter().witness(silent_s=0.0),
        voter().witness(name="db3"),
        voter(voters="db3", quorum=0).witness(),
        voter().witness().settings(suspect_after_s=5.0),
        voter().witness().paused(),
        voter().witness().mode("off").sync("db1"),
    ],
    ids=["no witness", "silent shortly", "renews", "etcd not asked", "answers", "another", "I am no voter", "patience", "paused", "off"],
)
def test_one_witness_alone_convicts_nobody(world: World):
    assert lease(world) == do.Nothing()
    assert not isinstance(decided(world).postgres.action, do.Promote)


def test_a_voter_of_higher_priority_is_waited_for_where_any_one_may_win():
    """HAZARDS B 28: the other's own probe may tell it half a second later; not longer, and for nobody else."""
    preferred = lost(quorum=0).pledged().member(a_member("db3", tags={"failover_priority": 5}))

    assert lease(preferred.remembers(standing_since=NOW - 0.1)) == do.Nothing()
    assert "waiting for the pledge of db3" in decided(preferred).lease.reason
    assert isinstance(lease(preferred.remembers(standing_since=NOW - 0.7)), do.Win)
    assert isinstance(lease(preferred.tags(failover_priority=5).remembers(standing_since=NOW)), do.Win)


def test_who_does_not_take_over_says_why_once_an_election_has_lasted():
    """Below `rivhactl list`, though the lost leader's key still stands; an ordinary failover is over before anybody could read it."""
    stuck = lost().pledged().witness(silent_s=4.5)

    assert problem(stuck) == "not eligible: 1 of 2 needed pledges, waiting for db3"
    assert problem(voter(voters="db3", quorum=0).witness(silent_s=4.5)) == "not eligible: not a voter (db3 are)"
    assert problem(lost().pledged()) == ""
    assert problem(stuck.paused()) == ""


def test_garbage_in_my_pledge_key_is_written_over_while_somebody_leads_and_never_during_an_election():
    """It says nothing that could be relied upon, and nobody is elected while anything cannot be read."""
    garbage = ("rivha/pledges/db2: is not JSON",)

    assert lease(voter().me(STANDBY).etcd(complaints=garbage)) == do.Withdraw()
    assert lease(voter().me(STANDBY).etcd(complaints=("rivha/pledges/db22: is not JSON",))) == do.Nothing()
    assert lease(lost().etcd(complaints=garbage)) == do.Nothing()
    assert lease(orphan().etcd(complaints=garbage)) == do.Nothing()


def test_the_keys_end_is_the_second_witness():
    assert lease(orphan().witness(unrenewed_s=None)) == do.MakePledge(TERM)
    assert lease(orphan().witness(silent_s=1.0)) == do.Nothing()
    assert rule(orphan()) == "wait_while_the_holder_may_live"


def test_the_leaders_own_word_needs_no_witness():
    assert lease(orphan().resigned("db1")) == do.MakePledge(TERM)


def test_who_is_no_voter_stands_only_when_the_leader_named_it():
    stranger = orphan("db3", 0).resigned("db1")

    assert lease(stranger) == do.Nothing()
    assert "not a voter" in decided(stranger).lease.reason
    assert lease(orphan("db3", 0).resigned("db1", ME, lsn=90)) == do.MakePledge(TERM)


def test_with_nobody_to_vote_only_the_holder_or_an_operator_who_accepts_the_loss_ends_the_wait():
    alone = orphan("", 0)

    assert lease(alone.witness()) == do.Nothing()
    assert "only db1 holds all commits" in decided(alone).lease.reason
    assert lease(alone.wanted(None, ME)) == do.Nothing()
    assert lease(alone.wanted(None, ME, accept_loss=True)) == do.MakePledge(TERM)
    assert lease(alone.wanted(None, ME, accept_loss=True).pledged()) == do.Win()
    assert lease(alone.wanted(None, "db3", accept_loss=True)) == do.Nothing()
    assert lease(voter("db3", 0).wanted(None, ME, accept_loss=True).witness()) == do.Nothing(), "not while somebody has the key"


def test_etcd_that_lost_the_record_of_who_holds_the_commits_lets_nobody_stand():
    assert lease(orphan().etcd(sync=None).witness()) == do.Nothing()
    assert "lost who held the commits" in decided(orphan().etcd(sync=None)).lease.reason


def test_a_mode_just_turned_off_leaves_voters_and_they_still_decide():
    off = a_view().me(STANDBY).leaderless(60.0).sync("db1", "db3", 0)

    assert lease(off) == do.Nothing()
    assert lease(off.sync("db1")) == do.MakePledge(TERM)


# ---- winning


def test_the_best_of_enough_pledges_wins_at_once_though_the_key_still_stands():
    assert lease(lost().pledges(db2=200, db3=150)) == do.Win()
    assert lease(orphan().resigned("db1").pledges(db2=200, db3=150)) == do.Win()
    assert lease(lost(quorum=0).pledges(db2=200)) == do.Win(), "one vote is enough, nobody is waited for"


def test_too_few_pledges_win_nothing_however_long_it_takes():
    one = lost().pledged(lsn=200).remembers(standing_since=NOW - 600)

    assert lease(one) == do.Nothing()
    assert "1 of 2 needed pledges, waiting for db3" in decided(one).lease.reason


def test_the_pledge_of_who_is_no_voter_counts_for_nothing():
    assert lease(lost("db2 db4", 1).pledges(db2=200, db3=150)) == do.Nothing()


def test_a_better_pledge_counts_for_its_writer_alone():
    """It may hold acknowledged commits that I lack, so it is no support of mine; and without it two others are enough."""
    behind = lost("db2 db3 db4", 1).pledges(db2=100, db3=200).remembers(standing_since=NOW - 600)

    assert lease(behind) == do.Nothing()
    assert lease(behind.pledged("db4", 90)) == do.Win()


def test_a_lesser_pledge_that_would_do_holds_back_for_the_better_one_a_moment():
    world = lost("db2 db3 db4", 1).pledges(db2=100, db3=200, db4=90).member(a_member("db4"))

    assert lease(world.remembers(standing_since=NOW - 0.5)) == do.Nothing()
    assert lease(world.remembers(standing_since=NOW - 1.5)) == do.Win()


def test_a_better_one_that_may_not_lead_holds_nobody_back():
    world = lost("db2 db3 db4", 1).pledges(db2=100, db3=200, db4=90).member(a_member("db3", tags={"nofailover": True}))

    assert lease(world) == do.Win()


def test_who_may_not_lead_votes_all_the_same_and_never_wins():
    barred = lost().tags(nofailover=True)

    assert lease(barred) == do.MakePledge(TERM)
    assert lease(barred.pledges(db2=200, db3=150)) == do.Nothing()
    assert lease(lost("db3", 0).tags(nofailover=True)) == do.Nothing()


def test_a_voter_on_a_machine_that_must_not_lead_pledges_and_does_not_win():
    """Its pledge is what the other one needs; who is no voter does not stand."""

    def unfit(world: World) -> World:
        world.more["unfit"] = "the watchdog cannot be used"
        return world

    assert lease(unfit(lost())) == do.MakePledge(TERM)
    assert lease(unfit(lost().pledges(db2=200, db3=150))) == do.Nothing()
    assert lease(unfit(lost("db3", 0))) == do.Nothing()
    assert lease(unfit(a_view().me(STANDBY).leaderless(5.0))) == do.Nothing(), "asynchronous: it could only win"


def test_a_key_that_a_follower_did_not_win_runs_out():
    """etcd was restored from a backup, in which this node led: it follows somebody who leads, and must not be promoted."""
    restored = a_view().me(STANDBY, upstream="10.0.0.3:5432").leads().mode("quorum").sync(ME, "db1 db3", 1)

    assert lease(restored) == do.Nothing()
    assert postgres(restored) == do.Nothing()
    assert isinstance(postgres(a_view().me(STANDBY).leads().mode("quorum").sync(ME)), do.Promote)


def test_no_empty_node_begins_a_new_cluster_where_somebody_has_led():
    """`initialize` was deleted by hand, and everybody else is switched off."""
    empty = a_view().no_data().leaderless().initialize(None).without("db1", "db3")

    assert lease(empty.holder(None)) == do.ClaimBootstrap()
    assert lease(empty.holder("db1")) == do.Nothing()
    assert lease(empty.holder(None).history((1, 100))) == do.Nothing()


def test_a_hand_over_is_won_alone_by_who_holds_the_whole():
    assert lease(orphan().resigned("db1", lsn=150).pledged(lsn=151)) == do.Win()
    assert lease(orphan("db3", 0).resigned("db1", ME, lsn=150).pledged(lsn=151)) == do.Win(), "named by the leader, no voter"


@pytest.mark.parametrize(
    "world",
    [
        orphan().resigned("db1", lsn=151).pledged(lsn=151),
        orphan().resigned("db1", lsn=150).pledged(lsn=160, timeline=2),
        orphan().resigned("db1", lsn=150, timeline=0).pledged(lsn=160),
        orphan().resigned("db1").pledged(lsn=160),
        orphan("db3", 0).resigned("db1", lsn=150).pledged(lsn=160),
        lost().resigned("db1", lsn=150).pledged(lsn=160),
    ],
    ids=["lacks the checkpoint", "another timeline", "timeline not known", "a crash", "no voter, not named", "somebody leads again"],
)
def test_nobody_wins_alone_without_proof_of_the_whole(world: World):
    assert lease(world.remembers(standing_since=NOW - 600)) == do.Nothing()


def test_the_others_leave_a_hand_over_to_the_candidate_for_a_moment():
    world = orphan().resigned("db1", "db3", lsn=100).pledges(db2=150, db3=101)

    assert lease(world.leaderless(1.0)) == do.Nothing()
    assert lease(world.leaderless(4.0)) == do.Win()


# ---- the leader lives after all


def test_a_pledge_is_taken_back_when_the_leader_lives_after_all():
    assert lease(voter().me(STANDBY).pledged()) == do.Withdraw()
    assert lease(lost().pledged()) == do.Nothing(), "not while it is lost"
    assert decided(lost().pledged()).postgres.action == do.Nothing()


def test_a_pledge_against_another_term_is_taken_back_though_the_new_leader_is_lost_too():
    old = lost()
    old.pledged()
    assert old.cluster is not None
    pledges = tuple(replace(p, term=TERM - 1) for p in old.cluster.pledges)

    assert lease(old.etcd(pledges=pledges)) == do.Withdraw()


def test_a_pledge_that_may_land_yet_is_refused_before_i_stream():
    late = voter().me(STANDBY).pledge_may_land()

    assert rule(late) == "refuse_a_pledge_that_may_land_yet"
    assert lease(late) == do.Withdraw()
    assert decided(late).postgres.action == do.Nothing()


@pytest.mark.parametrize(
    "world",
    [
        voter().me(STANDBY),
        voter().pledge_may_land(),
        lost().pledge_may_land(),
        voter().me(STANDBY).pledge_may_land().mode("off").sync("db1"),
        voter().me(PRIMARY, State.STOPPED).pledge_may_land(),
        voter().no_data().pledge_may_land(),
    ],
    ids=["none was sent", "streams already", "still standing", "asynchronous", "promoted since", "no data"],
)
def test_nothing_is_refused_that_cannot_land_or_would_do_no_harm(world: World):
    assert lease(world) != do.Withdraw()


def test_a_freeze_under_way_is_given_up_when_the_leader_is_back():
    freezing = voter().me(STANDBY).busy("pledge")
    freezing.more["job"] = replace(freezing.more["job"], ground=freezing.view().ground)

    assert lease(freezing) == do.Withdraw()
    assert not isinstance(decided(freezing).postgres.action, do.Follow), "it may be sent by now: first it is refused"


# ---- the holder


def test_a_dead_postmaster_is_left_to_the_voters_at_once():
    assert lease(crashed()) == do.Resign(reason="Postgres died")
    assert decided(crashed()).postgres.action == do.Nothing()


@pytest.mark.parametrize(
    "world",
    [
        crashed("", 0),
        crashed().without("db3"),
        crashed("db3", 0).member(a_member("db3", tags={"nofailover": True})),
        crashed("db3", 0).member(a_member("db3", state="starting")),
        crashed("db3", 0).member(a_member("db3", leaving=True)),
        crashed().settings(failover_on_crash=False),
        crashed().remembers(took_back=True),
        crashed().etcd(config={}).mode("off").sync(ME),
    ],
    ids=["no voters", "too few", "may not lead", "is starting", "leaves", "failover_on_crash", "nobody could last time", "asynchronous"],
)
def test_a_postmaster_that_nobody_can_replace_is_started_in_place(world: World):
    assert lease(world) == do.Renew(LEADER_LEASE)
    action = decided(world).postgres.action
    assert isinstance(action, do.Start)
    assert action.primary


def test_the_holder_leads_again_as_long_as_nobody_has_led_since():
    """Its voters may already be standing: whoever writes `sync` first refuses the other."""
    back = a_view().me(PRIMARY).leaderless(9.0).mode("quorum").sync(ME, "db1 db3", 1)

    assert lease(back) == do.Acquire()
    assert lease(back.pledges(db1=100, db3=100)) == do.Acquire()
    assert lease(back.sync("db1")) == do.Nothing()


def test_who_was_elected_and_lost_the_key_before_its_promotion_leads_again():
    elected = a_view().me(STANDBY).leaderless(0.1).mode("quorum").sync(ME)

    assert lease(elected) == do.Acquire()
    assert decided(elected).lease.rule == "lead_again_as_i_was_elected"


def test_a_holder_that_had_pledged_when_the_mode_was_turned_on_leads_again():
    """Nobody may be elected, and a pledge is taken back for a leader only: it would stand for ever."""
    assert lease(a_view().me(STANDBY).leaderless().mode("quorum").sync(ME).pledged()) == do.Acquire()


@pytest.mark.parametrize(
    "world",
    [
        a_view().me(STANDBY).leaderless().mode("quorum").sync("db1"),
        a_view().me(STANDBY).following().leaderless().mode("quorum").sync(ME),
        a_view().me(STANDBY).leaderless().mode("quorum").sync(ME).paused(),
        a_view().me(STANDBY).leaderless().mode("quorum").sync(ME).busy("follow"),
        a_view().me(STANDBY).leaderless().mode("quorum").sync(ME).stopping(),
        a_view().me(STANDBY, State.STARTING).leaderless().mode("quorum").sync(ME),
        a_view().me(STANDBY).leaderless().mode("quorum").sync(ME).etcd(initialize="1"),
        a_view().me(STANDBY, data=Data.UNFINISHED).leaderless().mode("quorum").sync(ME),
        a_view().me(STANDBY).leaderless().mode("quorum").sync(ME).etcd(complaints=("rivha/resigned: is not JSON",)),
    ],
    ids=["another holds", "streams", "paused", "busy", "ends", "starting", "foreign", "unfinished", "unreadable"],
)
def test_a_standby_leads_again_only_as_the_holder_with_nothing_in_between(world: World):
    assert lease(world) != do.Acquire()


def test_a_key_that_an_agent_before_me_may_have_given_back_is_written_anew_before_postgres_starts():
    """It had handed over, and its resignation is still on its way: whoever takes over counts on the end of my WAL as it was then."""
    for role, state in ((PRIMARY, State.STOPPED), (PRIMARY, State.CRASHED), (STANDBY, State.RUNNING)):
        found = a_view().me(role, state).leads().mode("quorum").sync(ME)
        found.lease = None
        assert lease(found) == do.Rebind()
        assert found.view().situation is Situation.LEADERLESS, "so nothing is started as a primary in this tick"
        action = decided(found).postgres.action
        assert not isinstance(action, do.Promote)
        assert not (isinstance(action, do.Start) and action.primary)
    runs = a_view().me(PRIMARY).leads()
    runs.lease = None
    assert lease(runs) == do.Renew(LEADER_LEASE), "it was started since"


def test_nobody_leads_with_a_role_that_is_not_known():
    unknown = a_view().me(STANDBY).leaderless().mode("quorum").sync(ME)
    unknown.me(Role.UNKNOWN, State.SILENT)

    assert lease(unknown) == do.Nothing()


def test_a_holder_that_cannot_start_makes_way_for_whom_an_operator_named_accepting_the_loss():
    """Nobody has a vote, and the key is free only once the holder gives it back."""
    broken = crashed("", 0).failures("start", 3)

    assert lease(broken) == do.Renew(LEADER_LEASE)
    assert lease(broken.wanted(None, "db3")) == do.Renew(LEADER_LEASE)
    assert isinstance(lease(broken.wanted(None, "db3", accept_loss=True)), do.Resign)
    assert lease(crashed("", 0).wanted(None, "db3", accept_loss=True)) == do.Renew(LEADER_LEASE), "it may come up yet"
    assert lease(broken.member(a_member("db3", state="stopped"))) == do.Renew(LEADER_LEASE)


def test_a_mode_that_was_turned_off_makes_no_leader_while_the_holder_may_not_have_heard_of_it():
    """Alone, cut off from etcd, it needs no lease: whoever led beside it would be a second primary."""
    off = a_view().me(STANDBY).mode("off").sync("db1").leaderless(60.0)

    assert rule(off) == "pledge_when_nobody_leads"
    assert rule(off.held()) == "wait_while_the_holder_may_live"


def test_an_old_leader_that_is_ahead_but_no_voter_holds_nobody_back():
    """What only it has was never acknowledged; waiting for it, or leaving the lead to it, would leave nobody eligible (HAZARDS B 27)."""
    ahead = orphan().leaderless(0.0).witness().member(a_member("db1", lsn=900, tags={"failover_priority": 9})).pledges(db2=200, db3=150)

    assert lease(ahead) == do.Win(), "it runs as a standby again, has more, and has not pledged"
    assert lease(ahead.pledged("db1", 900)) == do.Win(), "nor when it has"
