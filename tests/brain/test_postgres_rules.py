"""What about Postgres? One test per promise, situation by situation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rivha.agent.brain import actions as do
from rivha.agent.brain.memory import Failures
from rivha.model import Data, Role, State, Upstream
from tests.build import ME, MEMBER_LEASE, NOW, PRIMARY, STANDBY, World, a_member, a_view, decided, streams_to

DB1 = Upstream("db1", "10.0.0.1", 5432)
KILL_HUNG = do.Stop(fast_s=0.0, quit_s=0.3)


def postgres(world: World) -> do.PostgresAction:
    return decided(world).postgres.action


# ---- leading


def test_a_leading_primary_is_left_alone():
    assert postgres(a_view().me(PRIMARY).leads()) == do.Nothing()


def test_the_elected_standby_is_promoted_before_its_lease_gets_short():
    action = postgres(a_view().me(STANDBY).leads(9.0))

    assert action == do.Promote(50, NOW + 9.0 - 2.5)


def test_a_crashed_primary_is_started_in_place_without_promotion():
    action = postgres(a_view().me(PRIMARY, State.CRASHED).leads())

    assert isinstance(action, do.Start)
    assert action.primary


def test_a_primary_whose_lease_runs_out_stops_even_when_etcd_is_silent():
    w = a_view().me(PRIMARY).leads(2.0).etcd_silent(8.0)

    assert isinstance(postgres(w), do.Stop)


def test_a_primary_whose_lease_is_long_enough_rides_out_a_silent_etcd():
    assert postgres(a_view().me(PRIMARY).leads(6.0).etcd_silent(4.0)) == do.Nothing()


def test_a_lease_that_runs_out_stops_the_primary_whatever_job_runs():
    assert isinstance(postgres(a_view().me(PRIMARY).leads(1.0).etcd_silent().busy("restart")), do.Stop)


def test_a_hung_primary_is_killed_after_hang_timeout():
    w = a_view().me(PRIMARY, State.SILENT).leads()

    assert postgres(w.remembers(silent_since=NOW - 5)) == do.Nothing()
    assert postgres(w.remembers(silent_since=NOW - 11)) == KILL_HUNG


def test_an_elected_standby_that_hangs_before_its_promotion_is_killed():
    """It holds the key, so nobody else can lead while it hangs."""
    w = a_view().me(STANDBY, State.SILENT).leads().remembers(silent_since=NOW - 11)

    assert postgres(w) == KILL_HUNG


@pytest.mark.parametrize("job", ["handover", "restart"])
def test_a_planned_stop_is_not_taken_for_a_hang(job: str):
    """A shutdown checkpoint of twelve seconds is no reason to kill, and to crash what was to be handed over."""
    w = a_view().me(PRIMARY, State.SILENT).leads().busy(job)

    assert postgres(w.remembers(silent_since=NOW - 12)) == do.Nothing()
    assert postgres(w.remembers(silent_since=NOW - 75)) == KILL_HUNG


def test_who_gives_the_key_back_starts_nothing():
    """Resigned and started in one tick, it would be a primary that nobody vouches for."""
    crashed = a_view().me(PRIMARY, State.CRASHED).leads()
    for w in (
        crashed.remembers(crashes=(990.0, 995.0, 999.0)),
        a_view().me(PRIMARY, State.CRASHED).leads().failures("start", 3),
        a_view().me(PRIMARY, State.CRASHED).leads().settings(primary_start_timeout_s=0.0),
        a_view().me(PRIMARY, State.CRASHED).leads().remembers(starting_since=NOW - 301),
    ):
        assert isinstance(decided(w).lease.action, do.Resign)
        assert postgres(w) == do.Nothing()


def test_who_got_the_key_back_starts_its_crashed_primary_whatever_primary_start_timeout_says():
    """Nobody else could lead: resigning again would go on for ever."""
    w = a_view().me(PRIMARY, State.CRASHED).leads().settings(primary_start_timeout_s=0.0).remembers(took_back=True)

    assert isinstance(postgres(w), do.Start)


def test_a_promotion_that_fails_again_and_again_gives_way_to_another():
    """Stopped first, for a promotion that failed may yet happen; then the key is given back."""
    w = a_view().me(STANDBY).leads().failures("promote", 3)

    assert isinstance(postgres(w), do.Stop)
    assert isinstance(postgres(w.without("db1", "db3")), do.Promote)
    w = a_view().me(STANDBY, State.CRASHED).leads().failures("promote", 3)
    assert isinstance(decided(w).lease.action, do.Resign)
    assert postgres(w) == do.Nothing()


def test_a_start_that_takes_too_long_is_given_up_only_if_another_can_lead():
    w = a_view().me(PRIMARY, State.STARTING).leads().remembers(starting_since=NOW - 301)

    assert postgres(w) == do.Stop(fast_s=0.0)
    assert postgres(w.without("db1", "db3")) == do.Nothing()


def test_a_switchover_hands_over_to_the_candidate():
    action = postgres(a_view().me(PRIMARY).leads().wanted(ME, "db3"))

    assert action == do.HandOver(50, "db3", 30.0)


@pytest.mark.parametrize(
    "world",
    [
        a_view().me(PRIMARY).leads().wanted(ME, "db9"),
        a_view().me(PRIMARY).leads().wanted(ME, ME),
        a_view().me(PRIMARY).leads().wanted("db1", "db3"),
        a_view().me(PRIMARY).leads().wanted(ME, "db3").member(a_member("db3", tags={"nofailover": True})),
        a_view().me(PRIMARY).leads().wanted(ME, "db3").member(a_member("db3", state="starting")),
        a_view().me(PRIMARY).leads().wanted(ME, "db3").etcd(optime=5_000_000),
        a_view().me(PRIMARY).leads().wanted(ME, None).without("db1", "db3"),
        a_view().me(PRIMARY, replication=(streams_to("db1"),)).leads().wanted(ME, "db3"),
        a_view().me(PRIMARY, replication=()).leads().wanted(ME, None),
        a_view().me(PRIMARY).leads().wanted(ME, "db3", "2099-01-01T00:00:00+00:00"),
        a_view().me(PRIMARY).leads().wanted(ME, "db3", "not a date"),
    ],
    ids=[
        "unknown",
        "itself",
        "another leader",
        "nofailover",
        "starting",
        "lags",
        "nobody left",
        "does not stream",
        "nobody streams",
        "not yet due",
        "no date",
    ],
)
def test_an_impossible_switchover_stops_nothing(world: World):
    assert postgres(world) == do.Nothing()


def test_a_due_switchover_is_carried_out():
    assert isinstance(postgres(a_view().me(PRIMARY).leads().wanted(ME, "db3", "2025-06-15T15:06:40+00:00")), do.HandOver)


def test_what_was_handed_over_is_not_started_again():
    assert postgres(a_view().me(PRIMARY, State.STOPPED).leads().remembers(handed_over_term=50)) == do.Nothing()


def test_an_ending_leader_hands_over():
    assert postgres(a_view().me(PRIMARY).leads().stopping()) == do.HandOver(50, None, 30.0)


def test_data_of_another_cluster_ends_the_agent_and_touches_nothing():
    assert isinstance(postgres(a_view().me(PRIMARY).leads().etcd(initialize="1")), do.GiveUp)


def test_an_operator_may_restart_the_primary():
    assert postgres(a_view().me(PRIMARY).leads().wish("restart", 7)) == do.Restart(7)


# ---- following


def test_a_primary_that_sees_another_leader_stops_at_once():
    assert postgres(a_view().me(PRIMARY).leader("db1")) == do.Stop(fast_s=0.0)
    assert postgres(a_view().me(PRIMARY).leader("db1").busy("restart")) == do.Stop(fast_s=0.0)


def test_a_postgres_of_unknown_role_counts_as_a_primary():
    assert postgres(a_view().me(Role.UNKNOWN, State.SILENT).leader("db1")) == do.Stop(fast_s=0.0)


def test_a_promotion_is_stopped_when_another_leads():
    assert postgres(a_view().me(STANDBY).leader("db1").busy("promote")) == do.Stop(fast_s=0.0)


def test_an_empty_node_is_cloned_once_the_leader_accepts_writes():
    assert postgres(a_view().no_data().leader("db1")) == do.Clone(DB1)
    assert postgres(a_view().no_data().leader("db1", "replica")) == do.Nothing()


def test_an_interrupted_clone_is_cloned_again():
    assert postgres(a_view().no_data(Data.UNFINISHED, "clone").leader("db1")) == do.Clone(DB1)


def test_an_interrupted_rewind_is_never_started():
    w = a_view().no_data(Data.UNFINISHED, "rewind").leader("db1")

    assert postgres(w) == do.Rewind(DB1)
    assert isinstance(postgres(w.failures("rewind", 2)), do.SetAside)


def test_a_rewind_whose_leader_did_not_answer_costs_the_directory_nothing():
    """A wrong password or a broken network says nothing about what lies here."""
    w = a_view().no_data(Data.UNFINISHED, "rewind").leader("db1")

    assert postgres(w.remembers(failures={"rewind": Failures(9, NOW - 1000, hindered=8)})) == do.Rewind(DB1)
    assert isinstance(postgres(w.remembers(failures={"rewind": Failures(9, NOW - 1000, hindered=7)})), do.SetAside)


@pytest.mark.parametrize("world", [a_view().leads(), a_view().leader("db1"), a_view().leaderless()])
def test_a_postgres_whose_directory_was_taken_away_is_stopped_before_anything_else(world: World):
    for role in (PRIMARY, STANDBY):
        assert isinstance(postgres(world.me(role, State.SILENT, data=Data.EMPTY)), do.Stop)


@pytest.mark.parametrize("role", [PRIMARY, STANDBY, Role.UNKNOWN])
def test_a_running_postgres_of_another_cluster_is_not_ours_to_stop(role: Role):
    assert isinstance(postgres(a_view().me(role).leader("db1").etcd(initialize="1")), do.GiveUp)
    assert isinstance(postgres(a_view().me(role).leaderless().etcd(initialize="1")), do.GiveUp)


def test_unusable_data_is_left_alone():
    assert postgres(a_view().no_data(Data.INACCESSIBLE).leader("db1")) == do.Nothing()


def test_a_stopped_node_is_compared_before_it_starts():
    w = a_view().me(PRIMARY, State.CRASHED).leader("db1")

    assert postgres(w) == do.Compare(DB1, 50)
    assert postgres(w.compared("same")) == do.Start(False, DB1)
    assert postgres(w.compared("diverged")) == do.Rewind(DB1)


def test_a_verdict_on_an_earlier_leader_does_not_count():
    assert postgres(a_view().me(PRIMARY, State.CRASHED).leader("db1").compared("same", term=49)) == do.Compare(DB1, 50)


def test_a_rewind_waits_for_the_leaders_checkpoint():
    w = a_view().me(PRIMARY, State.CRASHED).leader("db1", checkpoint_after_promote=False).compared("diverged")

    assert postgres(w) == do.Nothing()
    assert postgres(a_view().me(PRIMARY, State.CRASHED).leader("db1", state="stopping").compared("diverged")) == do.Nothing()


def test_what_cannot_be_rewound_is_kept_aside_and_cloned():
    w = a_view().me(PRIMARY, State.STOPPED, rewindable=False).leader("db1").compared("diverged")

    assert isinstance(postgres(w), do.SetAside)


def test_a_standby_follows_a_new_leader_by_reload_as_soon_as_it_accepts_writes():
    assert postgres(a_view().me().leader("db1")) == do.Follow(DB1)
    assert postgres(a_view().me().leader("db1", "replica")) == do.Nothing()


def test_nothing_streams_while_my_pledge_stands():
    assert postgres(a_view().me().leader("db1").pledged()) == do.Nothing()
    assert postgres(a_view().me(STANDBY, State.STOPPED).leader("db1").pledged()) == do.Nothing()


def test_a_standby_that_does_not_stream_is_compared_and_stopped_when_it_diverged():
    w = a_view().me(upstream="10.0.0.1:5432").leader("db1")

    assert postgres(w.remembers(not_streaming_since=NOW - 1)) == do.Nothing()
    assert postgres(w.remembers(not_streaming_since=NOW - 5)) == do.Compare(DB1, 50)
    assert isinstance(postgres(w.compared("diverged")), do.Stop)


def test_a_streaming_standby_is_left_alone():
    assert postgres(a_view().me().following().leader("db1")) == do.Nothing()


def test_a_reinit_moves_the_data_aside():
    assert postgres(a_view().me().following().leader("db1").wish("reinitialize", 4)) == do.SetAside("reinit", 4)
    lost = a_view().me().following().leader("db1", "uninitialized").wish("reinitialize", 4)
    assert postgres(lost) == do.Nothing(), "the leader has no data itself: mine may be the last"


def test_an_ending_standby_stops_postgres():
    assert isinstance(postgres(a_view().me().following().leader("db1").stopping()), do.Stop)


# ---- leaderless


def test_a_primary_that_may_not_lead_stops():
    assert isinstance(postgres(a_view().me(PRIMARY).leaderless().holder("db1")), do.Stop)


def test_the_holders_primary_is_left_running_while_it_takes_the_key_back():
    assert postgres(a_view().me(PRIMARY).leaderless().holder(ME)) == do.Nothing()


def test_the_holders_stopped_primary_waits_for_the_key():
    assert postgres(a_view().me(PRIMARY, State.STOPPED).leaderless().holder(ME)) == do.Nothing()


def test_a_stopped_standby_starts_as_a_standby_of_nobody():
    assert postgres(a_view().me(STANDBY, State.STOPPED).leaderless()) == do.Start(False, None)


def test_the_bootstraps_primary_is_not_stopped():
    w = a_view().me(PRIMARY).leaderless().initialize("", lease_id=MEMBER_LEASE).holder(None).ended("bootstrap")

    assert postgres(w) == do.Nothing()


# ---- blind


def test_an_adopted_primary_gets_retry_timeout_of_a_silent_etcd():
    assert postgres(a_view().me(PRIMARY).etcd_silent(1.0)) == do.Nothing()
    assert isinstance(postgres(a_view().me(PRIMARY).etcd_silent(4.0)), do.Stop)


def test_a_crash_during_an_etcd_outage_is_restarted_within_the_lease():
    w = a_view().me(PRIMARY, State.CRASHED).leads(6.0).etcd_silent(2.0)

    assert postgres(w) == do.Start(True, None, NOW + 3.5)


def test_a_stopped_postgres_serves_reads_while_etcd_is_silent():
    assert postgres(a_view().me(PRIMARY, State.STOPPED).etcd_silent(5.0)) == do.Start(False, None)


# ---- paused


@pytest.mark.parametrize(
    "world",
    [
        a_view().me(PRIMARY).leader("db1"),
        a_view().me(PRIMARY, State.CRASHED).leads(),
        a_view().me(STANDBY).leads(),
        a_view().no_data().leader("db1"),
        a_view().me(PRIMARY).leads(-5.0).etcd_silent(60.0),
        a_view().me(STANDBY, State.STOPPED).leader("db1"),
        a_view().me(PRIMARY, State.SILENT).leads().remembers(silent_since=NOW - 100),
        a_view().me(PRIMARY).leads().stopping(),
    ],
)
def test_a_pause_keeps_hands_off(world: World):
    assert postgres(world.paused()) == do.Nothing()


def test_in_a_pause_an_operators_failover_is_still_carried_out():
    assert isinstance(postgres(a_view().me(STANDBY).leads().paused().wanted(None, ME)), do.Promote)
    assert isinstance(postgres(a_view().me(PRIMARY).leads().paused().wanted(None, "db3")), do.HandOver)


def test_a_switchover_that_nobody_took_up_is_not_tried_again():
    assert postgres(a_view().me(PRIMARY).leads().wanted(ME, "db3").remembers(tried_request=80)) == do.Nothing()


def test_an_ending_agent_breaks_off_a_clone():
    assert isinstance(postgres(a_view().no_data().leader("db1").busy("clone").stopping()), do.Stop)


# ---- what an earlier agent, or an earlier leader, left behind


@pytest.mark.parametrize("world", [a_view().me(), a_view().me().leader("db1"), a_view().me().leads()])
@pytest.mark.parametrize("unfinished", ["clone", "rewind", "bootstrap"])
def test_what_runs_on_an_unfinished_directory_is_stopped_and_never_elected(world: World, unfinished: str):
    """An agent killed during a rewind's crash recovery leaves a Postgres running that holds a diverged tail."""
    if world.lease is None and world.cluster is not None and world.cluster.leader is None:
        world = world.leaderless(60.0)
    world.status = replace(world.status, data=Data.UNFINISHED, unfinished=unfinished)

    assert isinstance(postgres(world), do.Stop)
    assert not isinstance(decided(world).lease.action, do.MakePledge | do.Win)


def test_a_standby_that_starts_with_a_dead_upstream_is_started_again_with_the_leader():
    """It waits for WAL that only the dead one had promised; its start would last for ever."""
    w = a_view().me(STANDBY, State.STARTING, upstream="10.0.0.3:5432").leader("db1").busy("start", "db3")

    assert postgres(w.remembers(starting_since=NOW - 5)) == do.Nothing()
    assert postgres(w.remembers(starting_since=NOW - 15)) == do.Stop(fast_s=10.0)


def test_a_standby_that_replays_for_long_before_it_follows_the_leader_is_left_alone():
    w = a_view().me(STANDBY, State.STARTING, upstream="10.0.0.1:5432").leader("db1").remembers(starting_since=NOW - 3000)

    assert postgres(w) == do.Nothing()
    assert postgres(w.busy("start", "db1")) == do.Nothing()


def test_a_freeze_that_takes_long_gives_way_to_the_leader_in_office():
    w = a_view().me().leader("db1").busy("pledge")

    assert postgres(w) == do.Follow(DB1)
    assert postgres(w.pledged()) == do.Nothing()


def test_a_standby_whose_replay_stopped_for_its_settings_is_restarted_but_not_by_a_paused_agent():
    """Postgres never goes on by itself, and cannot be promoted (HAZARDS D 66)."""
    small = (
        a_view()
        .me(STANDBY, streaming=True, upstream=DB1.address, replay_paused=True, too_small={"max_connections": (50, 100)})
        .leader("db1")
    )

    assert postgres(small) == do.Stop(fast_s=10.0)
    assert postgres(small.paused()) == do.Nothing()


def test_a_paused_leader_is_not_reinitialized():
    """The API refuses, but a wish may have been filed before this node led."""
    assert postgres(a_view().me(PRIMARY).leads().paused().wish("reinitialize")) == do.Nothing()


def test_a_standby_that_never_streamed_is_compared_before_it_follows():
    """An old primary, restarted while nobody led, may hold a second timeline of the leader's number: streaming would mix them."""
    w = a_view().me().leader("db1")
    w.status = replace(w.status, receive_lsn=None)

    assert isinstance(postgres(w), do.Compare)
    assert isinstance(postgres(w.compared("diverged")), do.Stop)
    assert postgres(w.compared("same")) == do.Follow(DB1)


def test_a_directory_that_cannot_be_moved_aside_is_not_tried_at_every_tick():
    w = a_view().no_data(Data.UNFINISHED, "rewind").leader("db1").failures("rewind", 2)

    assert isinstance(postgres(w), do.SetAside)
    assert postgres(w.failures("set_aside", 3, ago_s=1.0)) == do.Nothing()
