"""The lease question, rule by rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rivha.agent.brain import actions as do
from rivha.model import Data, State
from tests.build import ME, MEMBER_LEASE, NOW, PRIMARY, STANDBY, World, a_member, a_view, decided


def lease(world: World) -> do.LeaseAction:
    return decided(world).lease.action


def test_a_leader_renews_its_lease():
    assert lease(a_view().me(PRIMARY).leads()) == do.Renew(22)


def test_a_restarted_agent_adopts_the_lease_of_its_own_key():
    w = a_view().me(PRIMARY).leads()
    w.lease = None

    assert lease(w) == do.Renew(22)


def test_a_paused_leader_still_renews():
    assert lease(a_view().me(PRIMARY).leads().paused()) == do.Renew(22)


def test_a_leader_whose_job_runs_still_renews():
    assert lease(a_view().me(PRIMARY).leads().busy("restart")) == do.Renew(22)


def test_nothing_is_asked_of_a_silent_etcd():
    assert lease(a_view().me(PRIMARY).leads().etcd_silent()) == do.Nothing()


def test_a_new_ttl_moves_the_key_to_a_new_lease():
    assert lease(a_view().me(PRIMARY).leads().settings(ttl_s=20.0)) == do.Rebind()


def test_a_move_of_unknown_outcome_is_made_again():
    """The key may hang on a lease that nobody renews, or may do so yet; a new term refuses what is still under way."""
    for world in (a_view().me(PRIMARY).leads(), a_view().me(PRIMARY, State.STOPPED).leads(left_s=0.0)):
        assert world.lease is not None
        world.lease = replace(world.lease, doubtful=True)

        assert lease(world) == do.Rebind()


def test_after_a_resignation_of_unknown_outcome_nothing_starts_in_place_though_etcd_is_silent():
    world = a_view().me(PRIMARY, State.STOPPED).leads(left_s=0.0).etcd_silent()

    assert decided(world).postgres.action == do.Nothing()


def test_after_a_hand_over_the_key_goes_to_the_named_candidate_with_the_shutdown_checkpoint():
    w = a_view().me(PRIMARY, State.STOPPED, lsn=777).leads().wanted(ME, "db3").remembers(handed_over_term=50, handed_over_to="db3")

    assert lease(w) == do.Resign("db3", 777, "switchover")


def test_a_key_that_etcd_refuses_to_take_back_is_kept_and_postgres_is_started_in_place():
    """Out of space it takes no resignation, and renews: nobody else could lead, so what ends a leadership elsewhere does not here."""
    handed_over = {"handed_over_term": 50, "handed_over_to": "db3"}
    for state, more in ((State.STOPPED, handed_over), (State.CRASHED, {"crashes": (990.0, 994.0, 997.0)})):
        w = a_view().me(PRIMARY, state, lsn=777).leads().remembers(**more)
        assert isinstance(lease(w.remembers(dead_since=NOW - 1.9)), do.Resign)
        assert decided(w).postgres.action == do.Nothing()

        assert isinstance(lease(w.remembers(dead_since=NOW - 2.1)), do.Renew)
        assert isinstance(decided(w).postgres.action, do.Start)
        assert isinstance(lease(w.stopping()), do.Resign)


def test_in_a_pause_the_key_is_offered_to_the_named_candidate_for_as_long_as_etcd_refuses():
    """Nothing is started in place there."""
    w = a_view().me(PRIMARY, State.STOPPED, lsn=777).leads().paused().remembers(handed_over_term=50, handed_over_to="db3")

    assert lease(w.remembers(dead_since=NOW - 60.0)) == do.Resign("db3", 777, "switchover")


def test_a_resignation_of_unknown_outcome_was_not_refused():
    w = a_view().me(PRIMARY, State.STOPPED, lsn=777).leads().remembers(handed_over_term=50, handed_over_to="db3", dead_since=NOW - 9.0)
    w.lease = replace(w.lease, doubtful=True)

    assert isinstance(lease(w), do.Resign)


def test_an_unclean_shutdown_promises_no_checkpoint():
    stopped = a_view().me(PRIMARY, State.CRASHED, lsn=777, clean=False).leads().wanted(ME, "db3")
    w = stopped.remembers(handed_over_term=50, handed_over_to="db3")

    assert lease(w) == do.Resign("db3", 0, "switchover")


def test_a_stopped_standby_promises_no_end_of_its_wal():
    """Its control file tells the last restartpoint: whoever had only that much would count as holding everything."""
    w = a_view().me(STANDBY, State.STOPPED, lsn=777).leads().stopping()

    assert lease(w) == do.Resign(None, 0, "the agent ends")


def test_a_leader_without_data_gives_the_key_back():
    assert isinstance(lease(a_view().no_data(Data.INACCESSIBLE).leads()), do.Resign)
    wiped = a_view().no_data(Data.EMPTY).leads().initialize(None)
    assert isinstance(lease(wiped), do.Resign), "etcd forgot the cluster too: all the same, there is nothing here to lead with"


def test_a_leader_whose_postgres_keeps_crashing_gives_the_key_back_when_another_can_lead():
    w = a_view().me(PRIMARY, State.CRASHED).leads().remembers(crashes=(990.0, 995.0, 999.0))

    assert isinstance(lease(w), do.Resign)
    assert lease(w.without("db1", "db3")) == do.Renew(22)


def test_one_crash_keeps_the_key():
    assert lease(a_view().me(PRIMARY, State.CRASHED).leads().remembers(crashes=(999.0,))) == do.Renew(22)


def test_a_pause_lets_the_key_go_when_no_primary_is_here():
    assert isinstance(lease(a_view().me(PRIMARY, State.STOPPED).leads().paused()), do.Resign)


def test_a_pause_in_which_nobody_leads_says_so_and_how_it_ends():
    way_out = "`rivhactl resume` lets it start or another take over"
    own = decided(a_view().me(PRIMARY, State.CRASHED).leaderless().paused()).lease.reason
    assert own == f"nobody leads; the cluster is paused, and the Postgres of {ME} is down: {way_out}"
    demoted = a_view().me().leaderless().paused().member(a_member("db1", role="demoted", state="crashed"))
    assert f"the Postgres of db1 is down: {way_out}" in decided(demoted).lease.reason
    assert decided(a_view().me().leaderless().paused()).lease.reason.endswith("is paused: `rivhactl resume` lets a member take over")


def test_a_new_leader_is_followed_only_after_the_pledge_is_withdrawn():
    assert lease(a_view().me().leader("db1").pledged()) == do.Withdraw()


def test_the_key_is_left_to_its_holder():
    assert lease(a_view().me().leader("db1")) == do.Nothing()


# ---- bootstrap


def test_an_empty_node_claims_the_bootstrap_of_a_new_cluster():
    w = a_view().no_data().leaderless().initialize(None).holder(None).without("db1", "db3")

    assert lease(w) == do.ClaimBootstrap()


def test_a_wiped_etcd_gives_birth_to_no_second_cluster():
    w = a_view().no_data().leaderless().initialize(None).holder(None)

    assert lease(w) == do.Nothing()


def test_others_wait_for_the_bootstrap():
    assert lease(a_view().no_data().leaderless().initialize("", lease_id=99).holder(None)) == do.Nothing()


def test_who_bootstrapped_leads():
    w = a_view().me(PRIMARY).leaderless().initialize("", lease_id=MEMBER_LEASE).holder(None).ended("bootstrap")

    assert lease(w) == do.Acquire()


def test_a_failed_bootstrap_gives_the_claim_back():
    w = a_view().no_data().leaderless().initialize("", lease_id=MEMBER_LEASE).ended("bootstrap", "failed")

    assert lease(w) == do.AbandonBootstrap()


# ---- taking the free key


def test_the_last_holder_takes_the_free_key_back():
    assert lease(a_view().me(PRIMARY).leaderless().holder(ME)) == do.Acquire()


def test_a_running_primary_of_an_uninitialized_cluster_is_adopted():
    assert lease(a_view().me(PRIMARY).leaderless().initialize(None).holder(None)) == do.Acquire()


@pytest.mark.parametrize(
    "world",
    [
        a_view().me(PRIMARY).leaderless().holder(ME),
        a_view().me(PRIMARY, State.STOPPED).leaderless().holder(ME),
        a_view().me(PRIMARY).leaderless().initialize(None).holder(None),
        a_view().no_data().leaderless().initialize(None).holder(None).without("db1", "db3"),
    ],
    ids=["running", "stopped", "adopted", "to be made"],
)
def test_no_primary_leads_without_the_safeguard_that_is_required(world: World):
    assert lease(world) not in (do.Nothing(), do.Withdraw())
    assert lease(world.unfit("a watchdog is required, and there is none")) == do.Nothing()


def test_a_primary_without_the_safeguard_that_is_required_is_stopped_when_nobody_leads():
    unfit = a_view().me(PRIMARY).leaderless().holder(ME).unfit("a watchdog is required, and there is none")

    assert isinstance(decided(unfit).postgres.action, do.Stop)
    assert decided(a_view().me(PRIMARY).leads().unfit("a watchdog is required, and there is none")).lease.action == do.Renew(22)


def test_a_primary_that_others_have_succeeded_may_not_take_the_key():
    assert lease(a_view().me(PRIMARY).leaderless().holder("db1")) == do.Nothing()


def test_a_primary_of_an_older_timeline_may_not_take_the_key():
    assert lease(a_view().me(PRIMARY, timeline=3).leaderless().holder(ME).history((3, 500))) == do.Nothing()
    slept = a_view().me(PRIMARY, timeline=3).leaderless().holder(None).member(a_member("db3", lsn=1))
    assert lease(slept) == do.Acquire()
    assert lease(slept.member(replace(a_member("db3", lsn=1), timeline=4))) == do.Nothing(), "etcd lost the history, db3 knows it"


def test_who_has_just_resigned_leaves_the_key_to_others_for_a_moment():
    assert lease(a_view().me(PRIMARY, State.STOPPED).leaderless(1.0).holder(ME).resigned(ME)) == do.Nothing()
    assert lease(a_view().me(PRIMARY, State.STOPPED).leaderless(9.0).holder(ME).resigned(ME)) == do.Acquire()


# ---- elections


def test_a_standby_pledges_when_nobody_leads():
    assert lease(a_view().me().leaderless()) == do.MakePledge(50)


@pytest.mark.parametrize(
    "world",
    [
        a_view().me().leaderless().tags(nofailover=True),
        a_view().me().leaderless().tags(failover_priority=0),
        a_view().me(lsn=100).leaderless().etcd(optime=100 + 2_000_000),
        a_view().me().leaderless().compared("diverged"),
        a_view().me(state=State.STARTING).leaderless(),
        a_view().me().leaderless().etcd(complaints=("sync: is not JSON",)),
        a_view().me().leaderless().etcd(complaints=("rivha/pledges/db1: lacks 'lsn'",)),
        a_view().me().leaderless().etcd(initialize="other"),
        a_view().me().leaderless().paused(),
        a_view().me().leaderless().stopping(),
        a_view().me().leaderless().settings(check_timeline=True).history((1, 50)),
        a_view().me(lsn=100).leaderless(1.0).resigned("db1", ME, lsn=100),
        a_view().me(lsn=100, timeline=1).leaderless().history((1, 90)),
    ],
    ids=[
        "nofailover",
        "priority 0",
        "lag",
        "diverged",
        "starting",
        "sync unreadable",
        "pledge unreadable",
        "foreign data",
        "paused",
        "stopping",
        "old timeline",
        "lacks the shutdown checkpoint",
        "an old primary's tail",
    ],
)
def test_who_may_not_stand_does_not_pledge(world: World):
    assert lease(world) == do.Nothing()


def test_the_operators_choice_pledges_whatever_its_lag():
    w = a_view().me(lsn=100).leaderless().etcd(optime=100 + 2_000_000).wanted(None, ME)

    assert lease(w) == do.MakePledge(50)
    assert lease(a_view().me().leaderless().compared("diverged").wanted(None, ME)) == do.MakePledge(50), "nothing better may be left"


def test_a_member_whose_garbage_is_not_about_leadership_stops_no_election():
    assert lease(a_view().me().leaderless().etcd(complaints=("members/db3: is not JSON",))) == do.MakePledge(50)


def test_the_best_pledge_wins_at_once_when_all_have_pledged():
    w = a_view().me().leaderless().pledged(lsn=200).pledged("db3", lsn=150)

    assert lease(w) == do.Win()


def test_a_candidate_waits_a_moment_for_the_pledges_of_others():
    assert lease(a_view().me().leaderless(0.1).pledged()) == do.Nothing()
    assert lease(a_view().me().leaderless(2.0).pledged()) == do.Win()


def test_patience_counts_from_the_pledge_when_nobody_could_stand_before():
    """After a pause all pledge together, though the key has been gone for long: the first to pledge need not be the best."""
    resumed = a_view().me().leaderless(100.0).remembers(standing_since=NOW - 0.1)

    assert lease(resumed.pledged()) == do.Nothing()
    assert lease(resumed.pledged("db3", lsn=999)) == do.Nothing()


def test_the_former_leader_is_not_waited_for():
    assert lease(a_view().me().leaderless().without("db1", "db3").pledged()) == do.Win()
    assert lease(a_view().me().leaderless().without("db3").member(a_member("db1", "primary")).pledged()) == do.Win()
    assert lease(a_view().me().leaderless().without("db3").member(a_member("db1", state="stopped")).pledged()) == do.Win()


def test_the_former_leader_is_waited_for_once_it_runs_as_a_standby():
    """It holds all that it acknowledged: whoever takes over from it then without waiting throws that away."""

    def back(for_s: float) -> World:
        return a_view().me().leaderless(for_s).without("db3").member(a_member("db1", "replica")).pledged()

    assert lease(back(0.1)) == do.Nothing()
    assert lease(back(2.0)) == do.Win()


def test_members_whose_keys_vanished_with_the_leader_are_waited_for():
    w = a_view().me().leaderless(0.1).without("db1", "db3").remembers(last_members=frozenset({"db1", ME, "db3"})).pledged()

    assert lease(w) == do.Nothing()


def test_a_lesser_pledge_holds_back_and_acts_when_the_best_one_does_not():
    w = a_view().me().pledged(lsn=100).pledged("db3", lsn=200)

    assert lease(w.leaderless(0.5)) == do.Nothing()
    assert lease(w.leaderless(5.0)) == do.Win()


def test_a_higher_timeline_ranks_before_a_higher_lsn():
    assert lease(a_view().me().leaderless().pledged(lsn=100, timeline=2).pledged("db3", lsn=200, timeline=1)) == do.Win()


def test_equal_pledges_rank_by_priority_then_name():
    w = a_view().me().leaderless().pledged().pledged("db3")

    assert lease(w) == do.Win()
    assert lease(w.member(a_member("db3", tags={"failover_priority": 5}))) == do.Nothing()


def test_the_pledge_of_a_node_that_may_not_lead_does_not_count():
    w = a_view().me().leaderless().pledged().pledged("db3", lsn=999).member(a_member("db3", tags={"nofailover": True}))

    assert lease(w) == do.Win()


def test_the_candidate_that_the_leader_named_wins_over_a_better_one():
    w = a_view().me(lsn=101).leaderless(0.1).resigned("db1", ME, lsn=100).pledged(lsn=101).pledged("db3", lsn=150)

    assert lease(w) == do.Win()


def test_the_others_hold_back_for_the_named_candidate_but_not_for_ever():
    w = a_view().me(lsn=150).resigned("db1", "db3", lsn=100).pledged(lsn=150).pledged("db3", lsn=101)

    assert lease(w.leaderless(1.0)) == do.Nothing()
    assert lease(w.leaderless(4.0)) == do.Win()


def test_a_named_candidate_that_is_gone_holds_nobody_back():
    w = a_view().me(lsn=150).leaderless(0.1).resigned("db1", "db3", lsn=100).without("db3").pledged(lsn=150)

    assert lease(w) == do.Win()


def test_nobody_wins_with_a_standby_that_is_not_running():
    assert lease(a_view().me(STANDBY, State.CRASHED).leaderless(9.0).pledged()) == do.Nothing()
