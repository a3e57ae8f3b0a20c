"""What a node says of itself, and which chores are due."""

from __future__ import annotations

from dataclasses import replace

from rivha.agent.brain.upkeep import (
    Checkpoint,
    ClearFailover,
    Configure,
    HoldSynchronously,
    Housekeeping,
    KeepSlots,
    Publish,
    RefuseWish,
    Restore,
    WriteHistory,
    describe,
    settings,
    upkeep,
)
from rivha.model import Data, Member, State
from tests.build import ME, MEMBER_LEASE, NOW, PRIMARY, STANDBY, TERM, World, a_member, a_view

BASE = Member(ME, conn_url="postgres://10.0.0.2:5432/postgres", api_url="http://10.0.0.2:8008/patroni")


def chores(world: World, done: Housekeeping | None = None):
    v = world.view()
    return upkeep(v, describe(v, BASE), done or Housekeeping())


def of(kind: type, world: World, done: Housekeeping | None = None):
    return [c for c in chores(world, done) if isinstance(c, kind)]


def described(world: World) -> Member:
    return describe(world.view(), BASE)


def test_roles_and_states_are_patronis_words():
    assert (described(a_view().me(PRIMARY).leads()).role, described(a_view().me(PRIMARY).leads()).state) == ("primary", "running")
    assert described(a_view().me(STANDBY).following().leader("db1")).replication_state == "streaming"
    assert described(a_view().me(PRIMARY, State.CRASHED).leader("db1")).role == "demoted"
    assert described(a_view().no_data().leader("db1").busy("clone")).state == "creating replica"
    assert described(a_view().no_data(Data.UNFINISHED).leader("db1")).role == "uninitialized"
    starting = a_view().me(STANDBY, State.STARTING).leader("db1")
    starting.status = replace(starting.status, system_id=None)
    assert (described(starting).role, described(starting).state) == ("replica", "starting")


def test_a_change_is_published_at_once_and_a_mere_movement_later():
    w = a_view().me(STANDBY, lsn=500).following().leader("db1").member(a_member(ME, lease_id=MEMBER_LEASE))
    now = described(w)
    moved = Housekeeping(published=replace(now, xlog_location=400, receive_lsn=400, replay_lsn=400), published_at=NOW - 1.0)

    assert of(Publish, w, moved) == []
    assert of(Publish, w, replace(moved, published_at=NOW - 3.0))[0].member == now
    assert of(Publish, w, replace(moved, published=replace(now, state="starting")))[0].member == now


def test_a_member_key_that_vanished_is_written_again():
    w = a_view().me(STANDBY).following().leader("db1").without(ME)

    assert of(Publish, w, Housekeeping(published=described(w), published_at=NOW))


def test_only_a_leading_primary_publishes_the_leaders_position():
    assert of(Publish, a_view().me(PRIMARY, lsn=900).leads())[0].optime == 900
    assert not of(Publish, a_view().me(STANDBY).following().leader("db1"))[0].status


def test_only_the_running_leader_restores_what_etcd_lost():
    gone = {"initialize": None, "config": None, "config_revision": 0}

    assert of(Restore, a_view().me(PRIMARY).leads().etcd(**gone))
    assert not of(Restore, a_view().me(STANDBY).following().leader("db1").etcd(**gone))
    assert not of(Restore, a_view().me(STANDBY).leads().etcd(**gone))


def test_a_config_that_cannot_be_read_is_the_operators_to_mend():
    assert not of(Restore, a_view().me(PRIMARY).leads().etcd(config=None, config_revision=9))


def test_a_new_configuration_is_put_in_force_once():
    w = a_view().me(STANDBY).following().leader("db1").view()

    assert settings(w, Housekeeping()) == (Configure(2),)
    assert settings(w, Housekeeping(configured_revision=2)) == ()


def test_a_promotion_is_written_into_the_history():
    assert of(WriteHistory, a_view().me(PRIMARY, timeline=2).leads())
    assert not of(WriteHistory, a_view().me(PRIMARY, timeline=2).leads().history((1, 50)), Housekeeping(history_term=TERM))
    assert of(WriteHistory, a_view().me(PRIMARY, timeline=2).leads(), Housekeeping(history_term=TERM)), "etcd has lost it"
    twice = a_view().me(PRIMARY, timeline=3).leads().history((1, 50))
    assert of(WriteHistory, twice, Housekeeping(history_term=TERM)), "promoted twice in one term"
    assert not of(WriteHistory, a_view().me(PRIMARY, timeline=1).leads())


def test_the_checkpoint_after_a_promotion_is_asked_for_once_and_again_when_it_failed():
    w = a_view().me(PRIMARY, timeline=2, checkpoint_due=True).leads()
    asked = Housekeeping(checkpoint=Checkpoint(2), checkpoint_at=NOW - 1.0)

    assert of(Checkpoint, w) == [Checkpoint(2)]
    assert of(Checkpoint, w, asked) == []
    assert of(Checkpoint, w, replace(asked, checkpoint_at=NOW - 11.0)) == [Checkpoint(2)]
    assert of(Checkpoint, w, replace(asked, checkpoint=Checkpoint(1))) == [Checkpoint(2)], "promoted again"
    assert of(Checkpoint, w.busy("handover")) == []
    assert of(Checkpoint, a_view().me(PRIMARY, timeline=2).leads()) == []


def test_requests_that_are_done_or_impossible_are_cleared():
    assert of(ClearFailover, a_view().me(PRIMARY).leads().wanted("db1", ME))
    assert of(ClearFailover, a_view().me(PRIMARY).leads().wanted(ME, "db9"))
    assert of(ClearFailover, a_view().me(PRIMARY).leads().wanted(ME, "db3", "2020-01-01T00:00:00+00:00"))
    assert not of(ClearFailover, a_view().me(PRIMARY).leads().wanted(ME, "db3"))
    assert not of(ClearFailover, a_view().me(PRIMARY).leads().wanted(ME, "db3", "2099-01-01T00:00:00+00:00"))
    assert not of(ClearFailover, a_view().me(STANDBY).following().leader("db1").wanted("db1", "db9"))


def test_slots_are_kept_for_all_others_and_for_who_was_seen_lately():
    leader = a_view().me(PRIMARY).leads()
    standby = a_view().me(STANDBY).following().leader("db1")

    assert of(KeepSlots, leader)[0].wanted == {"db1", "db3"}
    assert of(KeepSlots, standby)[0].wanted == {"db1", "db3"}
    assert of(KeepSlots, leader.without("db3"), Housekeeping(slots_seen={"db3": NOW - 60}))[0].wanted == {"db1", "db3"}
    assert of(KeepSlots, leader.without("db3"), Housekeeping(slots_seen={"db3": NOW - 6000}))[0].wanted == {"db1"}


def test_nothing_is_kept_while_paused():
    assert not of(KeepSlots, a_view().me(PRIMARY).leads().paused())


def test_a_wish_that_cannot_be_granted_is_refused_with_patronis_words():
    assert of(RefuseWish, a_view().me(PRIMARY).leads().wish("reinitialize"))[0].why == "I am the leader, can not reinitialize"
    assert of(RefuseWish, a_view().me(STANDBY, State.STOPPED).leader("db1").wish("restart"))


def test_a_silent_etcd_is_told_nothing():
    assert chores(a_view().me(PRIMARY).leads().etcd_silent()) == ()


def test_a_directory_of_another_cluster_is_not_given_our_configuration():
    w = a_view().me().leader("db1").etcd(config={"ttl": 10}, config_revision=2)
    assert settings(w.view(), Housekeeping()) == (Configure(2),)
    assert settings(w.etcd(initialize="1").view(), Housekeeping()) == ()


def test_a_leader_says_that_it_goes_by_a_synchronous_mode_once_a_term_and_takes_it_back_when_it_is_off():
    on, off = (a_view().me(PRIMARY).mode(mode).leads() for mode in ("quorum", "off"))

    assert of(HoldSynchronously, on) == [HoldSynchronously(True)]
    assert of(HoldSynchronously, on, Housekeeping(held_term=TERM)) == []
    assert of(HoldSynchronously, off) == []
    assert of(HoldSynchronously, off.held()) == [HoldSynchronously(False)]
