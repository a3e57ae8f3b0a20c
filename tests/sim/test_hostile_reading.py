"""Histories that a hostile reader found (docs/simulation-findings.md), which need more than the random faults draw."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rivha.dcs import records
from rivha.dcs.base import Delete, Put
from tests.sim import faults
from tests.sim.shape import SETTINGS, Shape
from tests.sim.stories import lost
from tests.sim.world import World


def a_world(script: str = "", nodes: int = 3, tags: dict[str, dict[str, object]] | None = None, **settings: object) -> World:
    shape = Shape(nodes, {**SETTINGS, "synchronous_mode": "quorum", **settings}, tags or {}, 5.0)
    world = World(0, shape, script=faults.parse(script))
    world.network.jitter = False
    return world


def cut(world: World, one: str, other: str, seconds: float) -> Callable[[], None]:
    def now() -> None:
        world.network.cut(one, other)
        world.later(seconds, lambda: world.network.cuts.difference_update({(one, other), (other, one)}))

    return now


def promoted_by_hand(world: World, name: str) -> Callable[[], object]:
    return lambda: world.loop.spawn("", world.instances[name].promote())


def test_an_accepted_loss_is_not_carried_out_by_who_was_elected_without_one():
    """It was filed while nobody led; db2, elected with everything, would have handed over to a node that lacks commits."""
    script = "10.0 power_off leader 100\n10.0 cut_from_etcd db3 4\n11.0 failover_with_loss db4 0"
    world = a_world(script, nodes=4, tags={"db4": {"nosync": True}})
    world.lasts_s = 30.0
    world.later(11.0, cut(world, "db1", "db4", 60.0))

    assert not world.run()
    assert world.laws.leaders == ["db1", "db2"]
    assert lost(world) == 0


@pytest.mark.parametrize("after_s", [0.0, 0.0015], ids=["the answer is lost", "the answer is heard, and nothing after it"])
def test_a_record_of_voters_that_was_not_read_back_makes_no_second_primary_while_etcd_is_silent(after_s: float):
    """etcd made db2 a voter; db1, cut off before it read so, believed that only it may lead, and stayed in routing for ever."""
    world = a_world(nodes=2)
    world.lasts_s = 40.0
    world.later(6.0, cut(world, "db1", "db2", 6.0))

    def wrote(key: str, now: object) -> None:
        if key == "sync" and "db2" in str(getattr(now, "value", "")) and world.loop.now > 9.0 and not cut_off:
            cut_off.append("db1")
            world.later(after_s, cut_off_for_good)

    def cut_off_for_good() -> None:
        for other in ("etcd", "db2"):
            world.network.cut("db1", other)

    cut_off: list[str] = []
    world.store.on_write.append(wrote)

    assert not world.run()
    assert cut_off
    assert world.laws.leaders == ["db1", "db2"]


def test_a_strict_cluster_acknowledges_nothing_alone_though_its_new_primary_takes_a_reload_late():
    """Whether commits wait at all is for the checkpointer to say, which on db1 is late; nobody may elect yet, so nothing would be lost."""
    world = a_world("1 slow_reload leader 20\n3 switchover db2 0\n12 power_off db2 40", nodes=2, synchronous_mode_strict=True)
    world.lasts_s = 60.0

    assert not world.run()
    assert world.laws.leaders[:3] == ["db1", "db2", "db1"]


def test_who_was_elected_leads_though_the_mode_was_turned_off_before_it_could():
    """The others wait for it for as long as `rivha/synchronous` says that it goes by votes (random seeds 1001154, 1001892, 1002979)."""
    world = a_world("1 power_off_in_win db1 0.02\n2 power_off leader 40\n6 mode_edited db1 16")
    world.lasts_s = 60.0

    assert not world.run()
    assert world.happened["mode_edited"]


def test_a_postgres_that_dies_while_etcd_takes_no_writes_is_started_in_place():
    """The key cannot be given back to the voters, nor a pledge be written: without a restart nothing would write until etcd has room."""
    world = a_world("1 etcd_full db1 60\n5 postmaster_killed leader 1")
    world.lasts_s = 70.0

    assert not world.run()
    assert world.laws.leaders == ["db1"]
    assert world.clients.longest_outage_s(world.whole_at) < 5.0


@pytest.mark.parametrize("mode", ["off", "quorum"])
@pytest.mark.parametrize(
    ("what", "settings"),
    [
        ("5 postmaster_killed leader 1", {"primary_start_timeout": 0}),
        ("; ".join(f"{at} postmaster_killed leader 1" for at in (5, 11, 17, 23)), {}),
        ("0.5 slow_checkpoint leader 10; 0.6 switchover db2 0", {}),
    ],
    ids=["no patience", "a crash loop", "a hand-over under way"],
)
def test_nothing_that_ends_a_leadership_keeps_postgres_down_while_etcd_takes_no_writes(what: str, settings: dict[str, object], mode: str):
    """Each gives the key back before it starts anything, and for as long as that is refused nothing was started."""
    world = a_world(f"1 etcd_full db1 60; {what}".replace(";", "\n"), **{**settings, "synchronous_mode": mode})
    world.lasts_s = 70.0

    assert not world.run()
    assert world.laws.leaders == ["db1"]
    assert world.clients.longest_outage_s(world.whole_at) < 15.0  # 2 s each, and here clients write every 5 s; it was 40 s and more


def test_a_leader_that_looks_seldom_is_not_convicted_by_silence_between_the_agents_alone():
    """Patroni's timing, and a firewall between the agents' ports: its renewals are the other witness (DESIGN 6.1)."""
    world = a_world("1.0 agents_unheard db1 100", ttl=30, loop_wait=10, retry_timeout=10)
    world.lasts_s = 80.0

    assert not world.run()
    assert world.laws.leaders == ["db1"]


def test_a_voter_promoted_by_hand_while_etcd_is_silent_takes_nothing_over():
    """With nobody to tell it who leads it serves reads again, on a timeline of its own that ranks first."""
    world = a_world("1.0 etcd_down db1 14\n12.0 power_off leader 100")
    world.lasts_s = 30.0
    world.later(8.0, promoted_by_hand(world, "db3"))

    assert not world.run()
    assert "db3" not in world.laws.leaders


def test_a_new_ttl_in_the_middle_of_a_hand_over_does_not_end_it():
    """A key on another lease is another term, and the hand-over is of the old one: its Postgres was started again."""
    world = a_world("1.0 slow_checkpoint db1 3\n2.0 switchover db2 0\n3.0 ttl_edited db1 15")
    world.lasts_s = 25.0

    assert not world.run()
    assert world.laws.leaders == ["db1", "db2"]


def test_a_standby_whose_agent_began_anew_in_a_pause_is_a_voter_again_before_its_end():
    """Its history is compared although the cluster is paused: commits waited for nobody until the resume."""
    world = a_world("5.0 pause leader 60\n8.0 cut_from_standbys db1 6\n9.0 agent_killed db2 0", nodes=2)
    world.lasts_s = 40.0
    voters = []
    world.later(30.0, lambda: voters.append(world.store.value("sync")))

    assert not world.run()
    assert "db2" in str(voters)


def restored(world: World, *writes: Put | Delete) -> Callable[[], None]:
    """Just before etcd answers it is as in a backup in which db3 led."""

    def now() -> None:
        world.laws.given.add(world.store.revision + 1)
        world.store.write(writes or (Put(records.LEADER, "db3", world.store.grant(10)),))

    return now


def cut_loose() -> World:
    """etcd is down from 15.4 to 27.4, and db3's stream broken: it streams from nobody. The others go on."""
    world = a_world("10.0 etcd_down db1 12")
    world.lasts_s = 45.0
    world.later(10.0, cut(world, "db1", "db3", 30.0))
    return world


def test_who_streams_from_nobody_for_want_of_etcd_was_not_elected():
    """The key that names it came out of a backup: it was promoted, and rows that two others had confirmed were lost."""
    world = cut_loose()
    world.later(27.3, restored(world))

    assert not world.run()
    assert lost(world) == 0
    assert "db3" not in world.laws.leaders


def test_nor_was_it_if_sync_says_so():
    """Nobody leads, nothing is lost, and people must say how it goes on (docs/operations.md)."""
    world = cut_loose()
    sync = Put(records.SYNC, records.sync_text("db3", ["db1"]))
    world.later(27.3, restored(world, Delete(records.LEADER), sync))
    world.run()

    assert world.instances["db3"].disk.timeline == 1
    assert "db3" not in world.laws.leaders
