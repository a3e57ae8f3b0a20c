"""Faults that overlap: a short one does not end a long one of its kind, nor another that does the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim import faults
from tests.sim.network import ETCD
from tests.sim.shape import QUORUM, Shape
from tests.sim.world import World

Seen = Callable[[World], bool]
LONG_S, SHORT_S = 8.0, 2.0


def cut(a: str, b: str) -> Seen:
    return lambda world: not world.network.passes(a, b)


def tagged(world: World) -> bool:
    return bool(world.hosts["db2"].tags.get("nofailover"))


def paused(world: World) -> bool:
    config = world.laws.cluster().config
    return bool(config and config.get("pause"))


@pytest.mark.parametrize(
    ("long", "short", "lasts"),
    [
        ("cut_from_etcd", "cut_from_etcd", cut("db2", ETCD)),
        ("cut_from_all", "cut_one_way", cut(ETCD, "db2")),
        ("agents_unheard", "agents_unheard", cut("db1", "db2:8008")),
        ("postgres_hung", "postgres_hung", lambda world: world.instances["db2"].trouble.hung),
        ("postgres_hung", "host_frozen", lambda world: world.instances["db2"].trouble.hung),
        ("agent_frozen", "host_frozen", lambda world: world.hosts["db2"].frozen_agent),
        ("power_off", "power_off", lambda world: not world.hosts["db2"].on),
        ("disk_full", "disk_full", lambda world: world.instances["db2"].disk.full),
        ("data_unmounted", "data_unmounted", lambda world: world.instances["db2"].trouble.unmounted),
        ("slow_flush", "one_flushes_slowly", lambda world: world.instances["db2"].trouble.flush_s > 0),
        ("one_reports_late", "one_reports_late", lambda world: world.instances["db2"].trouble.report_s > 0),
        ("etcd_down", "etcd_elects", lambda world: not world.store.up),
        ("messages_lost", "messages_lost", lambda world: world.network.loss > 0),
        ("requests_late", "requests_late", lambda world: world.network.late > 0),
        ("slow_network", "crawling_network", lambda world: world.network.slow > 1),
        ("sync_lands_late", "sync_lands_late", lambda world: "sync" in world.network.late_keys),
        ("tags_edited", "tags_edited", tagged),
        ("pause", "pause", paused),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_longer_one_counts(long: str, short: str, lasts: Seen):
    """Where a kind makes more seconds of its number, the short one still ends first."""
    script = f"1 {long} db2 {LONG_S}\n3 {short} db2 {SHORT_S}\n"
    world = World(2, Shape(settings=dict(QUORUM)), script=faults.parse(script))
    world.lasts_s = 25.0
    seen: dict[float, bool] = {}

    def look() -> None:
        at = round(world.loop.now - world.whole_at, 1) if world.whole_at else -1.0
        seen[at] = lasts(world)
        if at < 24.0:
            world.later(0.1, look)

    world.later(0.1, look)

    assert not world.run()
    assert world.laws.leaders[0] != "db2", "some kinds choose another host for a leader's"
    assert all(seen[at] for at in seen if 3.2 < at < 1.0 + LONG_S - 0.2), "the short one has ended the long one"
    assert long == "slow_flush" or not any(seen[at] for at in seen if at > 20.0), "nobody undoes it any more"


def test_a_machine_that_lost_its_power_hangs_no_longer_than_it_is_told_to_from_then_on():
    world = World(1, script=faults.parse("1 postgres_hung db2 40\n3 power_off db2 2\n10 postgres_hung db2 2\n"))
    world.lasts_s = 30.0
    hung: list[float] = []

    def look() -> None:
        if world.instances["db2"].trouble.hung:
            hung.append(world.loop.now - world.whole_at)
        if not world.healed:
            world.later(0.1, look)

    world.later(0.1, look)

    assert not world.run()
    assert 11.8 < max(hung) <= 12.0


def test_what_is_put_back_is_what_was_there_before_both():
    """The later one has seen the tag, or the freeze, of the earlier."""
    world = World(2, script=faults.parse("1 tags_edited db2 4\n1 agent_frozen db3 4\n3 tags_edited db2 4\n3 agent_frozen db3 4\n"))
    world.lasts_s = 20.0
    seen: dict[float, tuple[bool, bool]] = {}
    for at in (6.0, 8.0):
        world.later(at + 2.5, lambda at=at: seen.__setitem__(at, (tagged(world), world.hosts["db3"].frozen_agent)))

    assert not world.run()
    assert world.whole_at == 2.5
    assert seen == {6.0: (True, True), 8.0: (False, False)}
