"""Faults that matter where commits wait for standbys: single processes, single connections, modes changed at run time.

Only scripts of synchronous seeds draw from these (faults.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rivha.dcs import records, writes
from tests.sim import wrong_machines, wrong_network, wrong_people
from tests.sim.network import AGENT, ETCD, POSTGRES
from tests.sim.server import CHECKPOINTER

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World

MODES = (
    {"synchronous_mode": "off"},
    {"synchronous_mode": "quorum"},
    {"synchronous_mode": "on"},
    {"synchronous_mode": "on", "synchronous_node_count": 2},
    {"synchronous_mode": "quorum", "synchronous_node_count": 2},
    {"synchronous_mode_strict": True},
    {"synchronous_mode_strict": False},
    {"degrade_after": 1},
)


def _leader(world: World) -> str:
    return world.store.value(records.LEADER) or sorted(world.hosts)[0]


def _other(world: World, name: str, number: float) -> str:
    others = [other for other in sorted(world.hosts) if other != name]
    return others[int(number * 31) % len(others)]


# ---- Postgres


def slow_reload(world: World, host: Host, number: float) -> None:
    """One process of the leader's takes a reload late: the checkpointer, or the sender to one standby. Up to 15 s: beyond all patience."""
    leader = world.hosts[_leader(world)]
    processes = [CHECKPOINTER, *(name for name in sorted(world.hosts) if name != leader.name)]
    taker, takers = processes[int(number * 31) % len(processes)], leader.instance.trouble.late_takers
    takers[taker] = 0.75 * number
    world.for_a_while((leader.name, "takes", taker), 3 * number, lambda: takers.pop(taker, None))


def one_flushes_slowly(world: World, host: Host, number: float) -> None:
    """One standby's disk: received, and for up to five seconds not safe there."""
    name = host.name if host.name != _leader(world) else _other(world, host.name, number)
    wrong_machines.troubled(world, world.hosts[name], "flush_s", number / 4.0, 2 * number)


def one_reports_late(world: World, host: Host, number: float) -> None:
    """What it has flushed is told late, though it lives and streams: up to six seconds, longer than the sender waits."""
    name = host.name if host.name != _leader(world) else _other(world, host.name, number)
    wrong_machines.troubled(world, world.hosts[name], "report_s", number * 0.3, 2 * number)


def waits_cancelled(world: World, host: Host, seconds: float) -> None:
    """A statement timeout, again and again: commits stand, seen by all, and nobody was told that they are safe (HAZARDS H 1)."""
    until = world.loop.now + seconds

    def again() -> None:
        for instance in world.instances.values():
            for entry, _ in list(instance.syncrep.waiting.values()):
                instance.syncrep.cancel(entry)
        if world.loop.now < until and not world.healed:
            world.later(0.3, again)

    again()


# ---- the network


def one_cut_from_leader(world: World, host: Host, seconds: float) -> None:
    """Everything else is well: a voter that neither streams nor hears the leader's agent."""
    leader = _leader(world)
    other = host.name if host.name != leader else _other(world, leader, seconds)
    wrong_network.cut(world, {(leader, other), (other, leader)}, seconds)


def one_way_between(world: World, host: Host, seconds: float) -> None:
    """Packets pass one way only between two hosts."""
    other = _other(world, host.name, seconds)
    wrong_network.cut(world, {(host.name, other) if seconds < 10.0 else (other, host.name)}, seconds)


def agents_unheard(world: World, host: Host, seconds: float) -> None:
    """A firewall between agents: nobody's probes are answered, and that alone must not convict anybody."""
    wrong_network.cut(world, {(a, f"{b}{AGENT}") for a in world.hosts for b in world.hosts}, seconds)


def leaders_agent_unheard(world: World, host: Host, seconds: float) -> None:
    """The same for the leader's only, which is cut off from etcd too: it lives, streams, and both witnesses speak against it."""
    leader = _leader(world)
    pairs = {(name, f"{leader}{AGENT}") for name in world.hosts}
    wrong_network.cut(world, pairs | {(leader, ETCD), (ETCD, leader)}, seconds)


def leaders_postgres_unheard(world: World, host: Host, seconds: float) -> None:
    """A firewall before the leader's Postgres: agents talk, nothing streams."""
    leader = _leader(world)
    wrong_network.cut(world, {(name, f"{leader}{POSTGRES}") for name in world.hosts}, seconds)


def _late(world: World, key: str, seconds: float) -> None:
    world.network.late_keys.add(key)
    world.for_a_while(("late", key), seconds, lambda: world.network.late_keys.discard(key))


def sync_lands_late(world: World, _: Host, seconds: float) -> None:
    """Most writes of `sync` are carried out after their sender has given up."""
    _late(world, records.SYNC, seconds)


def pledges_land_late(world: World, _: Host, seconds: float) -> None:
    """A pledge, or its withdrawal, is carried out after its writer went on to something else."""
    _late(world, records.PLEDGES, seconds)


def wins_land_late(world: World, _: Host, seconds: float) -> None:
    """Whatever takes the leader key, moves it or gives it back is carried out after its sender has given up."""
    _late(world, records.LEADER, seconds)


def standbys_restart_without_etcd(world: World, host: Host, number: float) -> None:
    """etcd is gone for most of a minute, and the standbys' machines start anew meanwhile, one after another."""
    wrong_network.etcd_down(world, host, 25.0 + number)
    leader = _leader(world)
    for n, name in enumerate(name for name in sorted(world.hosts) if name != leader):
        world.later(3.0 + 8.0 * n, _power_off, world, world.hosts[name], 1.0 + number / 4.0)


def _power_off(world: World, host: Host, seconds: float) -> None:
    if not world.healed:
        wrong_machines.power_off(world, host, seconds)


# ---- people


def mode_edited(world: World, _: Host, number: float) -> None:
    """An operator changes the synchronous mode, its number of standbys or its strictness: one of `MODES`, chosen by the number."""
    wrong_people.edit_config(world, **MODES[int(number * 31) % len(MODES)])


def nosync_for_a_while(world: World, host: Host, seconds: float) -> None:
    """A tag that takes a standby out of the voters, and back."""
    wrong_people.tagged(world, host, {**host.tags, "nosync": True}, seconds)


def failover_with_loss(world: World, host: Host, number: float) -> None:
    """An operator gives up on whoever holds the commits, and whose power goes for 10 s and twice so many. It counts once nobody leads."""
    c, leader = world.laws.cluster(), _leader(world)
    named = host.name if host.name != leader else _other(world, leader, number)
    if not c.failover_revision:
        world.store.commit(writes.file_failover(c, None, named, None, accept_loss=True))
        wrong_machines.power_off(world, world.hosts[leader], 10.0 + 2.0 * number)


KINDS: tuple[Callable[[World, Host, float], None], ...] = (
    slow_reload,
    one_flushes_slowly,
    one_reports_late,
    waits_cancelled,
    one_cut_from_leader,
    one_way_between,
    agents_unheard,
    leaders_agent_unheard,
    leaders_postgres_unheard,
    sync_lands_late,
    pledges_land_late,
    standbys_restart_without_etcd,
    mode_edited,
    nosync_for_a_while,
    failover_with_loss,
    wins_land_late,
)
