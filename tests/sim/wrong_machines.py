"""Faults of machines: hosts, agents, Postgres, disks, clocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim import wrong_network
from tests.sim.network import ETCD
from tests.sim.server import Trouble

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World


def troubled(world: World, host: Host, name: str, value: object, seconds: float) -> None:
    """That `Trouble` of its Postgres, for so long."""
    setattr(host.instance.trouble, name, value)
    world.for_a_while((host.name, name), seconds, lambda: setattr(host.instance.trouble, name, getattr(Trouble(), name)))


def postmaster_killed(world: World, host: Host, _: float) -> None:
    """`kill -9` of the postmaster: crash recovery follows at the next start."""
    host.instance.die()


def power_off(world: World, host: Host, seconds: float) -> None:
    """No power for so long: what was not flushed is gone."""
    host.power_off()
    world.for_a_while((host.name, "power"), seconds, host.power_on)


def agent_killed(world: World, host: Host, _: float) -> None:
    """`kill -9` of the agent: Postgres runs on, and systemd starts the agent again within a second."""
    host.kill_agent()


def agent_told_to_end(world: World, host: Host, seconds: float) -> None:
    """`systemctl stop` of the agent, which stops its Postgres and hands over, and `systemctl start` after so long."""
    if host.core is not None and not host.frozen_agent:
        host.core.stop()
        world.later(seconds, host.start_agent)


def agent_frozen(world: World, host: Host, seconds: float) -> None:
    """Its Postgres runs on, and nobody fences it: no watchdog yet (issue 4). HAProxy takes it out of routing."""
    if host.agent_runs:
        host.freeze_agent()
        mine = host.process
        world.for_a_while((mine, "frozen"), seconds, lambda: host.thaw_agent() if host.process == mine and host.frozen_agent else None)


def host_frozen(world: World, host: Host, seconds: float) -> None:
    """The whole machine stands still: agent and Postgres."""
    if host.agent_runs:
        troubled(world, host, "hung", True, seconds)
        agent_frozen(world, host, seconds)


def suspended(world: World, host: Host, seconds: float) -> None:
    """A machine that stood still wakes up, and its network to etcd only later: what was answered before it slept is all it knows."""
    if host.agent_runs:
        host_frozen(world, host, seconds)
        pairs = {(host.name, ETCD), (ETCD, host.name)}
        world.later(0.01, wrong_network.cut, world, pairs, 2 * seconds + 4.99)  # what is on its way still arrives


def postgres_hung(world: World, host: Host, seconds: float) -> None:
    """Postgres lives and answers nothing for so long."""
    troubled(world, host, "hung", True, seconds)


def slow_start(world: World, host: Host, seconds: float) -> None:
    """Each start of its Postgres takes so long, until all is healed."""
    host.instance.trouble.start_s = seconds


def slow_stop(world: World, host: Host, seconds: float) -> None:
    """Each fast stop's checkpoint takes so long, until all is healed."""
    host.instance.trouble.stop_s = seconds


def slow_promotion(world: World, host: Host, seconds: float) -> None:
    """Each promotion takes so long, on all hosts, until all is healed."""
    for h in world.hosts.values():
        h.instance.trouble.promote_s = seconds


def slow_replay(world: World, host: Host, number: float) -> None:
    """A backlog: what was received is not yet seen, and a freeze and a promotion wait for it. Up to a second for an entry."""
    for h in world.hosts.values():
        h.instance.trouble.replay_s = number / 20.0


def slow_flush(world: World, host: Host, number: float) -> None:
    """A standby's disk: what it received is lost with the power for a while, and counts for no commit yet."""
    for h in world.hosts.values():
        troubled(world, h, "flush_s", number / 20.0, math.inf)


def slow_checkpoint(world: World, host: Host, seconds: float) -> None:
    """Much to write: who wants to rewind from a new primary waits for it."""
    for h in world.hosts.values():
        h.instance.trouble.checkpoint_s = seconds


def slow_copies(world: World, host: Host, seconds: float) -> None:
    """A large database: clones and rewinds take long."""
    for h in world.hosts.values():
        h.instance.trouble.copy_s, h.instance.trouble.rewind_s = 2 * seconds, seconds


def disk_full(world: World, host: Host, seconds: float) -> None:
    """Postgres panics at its next write, and does not start."""
    disk = host.instance.disk
    disk.full = True
    world.for_a_while((host.name, "full"), seconds, lambda: setattr(disk, "full", False))


def crash_loop(world: World, host: Host, seconds: float) -> None:
    """Its primary starts quickly and dies again, each time it writes a while (HAZARDS G 99)."""
    instance, until = host.instance, world.loop.now + 3 * seconds

    def again() -> None:
        if instance.writable:
            instance.die()
        if world.loop.now < until and not world.healed:
            world.later(0.7, again)

    again()


def may_lose_its_data(world: World, host: Host) -> bool:
    """Not the last copy, and not while etcd has forgotten the cluster (see etcd_wiped): every fault that destroys data asks this."""
    others = (h for h in world.hosts.values() if h is not host and h.job not in ("clone", "rewind", "set_aside"))
    return any(h.instance.disk.system_id and not h.instance.disk.marker for h in others) and bool(world.store.value("initialize"))


def disk_lost(world: World, host: Host, seconds: float) -> None:
    """The machine comes back with an empty disk, after so many seconds. Not the last copy: `may_lose_its_data`."""
    if not may_lose_its_data(world, host):
        return
    host.power_off()
    host.instance.disk.wipe()
    host.cached = None
    world.for_a_while((host.name, "power"), seconds, host.power_on)


def data_unmounted(world: World, host: Host, seconds: float) -> None:
    """Postgres dies of it, and what is left must neither be started nor filled."""
    troubled(world, host, "unmounted", True, seconds)
    host.instance.die()


def clock_drifts(world: World, host: Host, number: float) -> None:
    """Up to two per cent, far beyond what NTP leaves alone; the lease's margins are for it. Without a jump: rates change, not times."""
    now = host.clock()
    host.rate = 1.0 + (number - 10.0) / 500.0
    host.offset += now - host.clock()


def wall_clock_jumps(world: World, host: Host, number: float) -> None:
    """Its wall clock jumps by up to ten minutes, back below 10 and on above."""
    host.wall_step += (number - 10.0) * 60.0


def directory_removed(world: World, host: Host, seconds: float) -> None:
    """`rm -rf` under a Postgres that runs (HAZARDS E 73): it ends by itself after so many seconds. See `may_lose_its_data`."""
    instance = host.instance
    if not may_lose_its_data(world, host):
        return
    generation = instance.generation
    instance.disk.wipe()
    host.cached = None
    world.later(seconds, lambda: instance.die() if instance.generation == generation else None)


def children_left(world: World, host: Host, seconds: float) -> None:
    """The postmaster is killed, and a child of it stands still: it stays for so long, unless somebody ends it."""
    host.instance.die()
    host.instance.left_until = world.loop.now + seconds


KINDS: tuple[Callable[[World, Host, float], None], ...] = (
    postmaster_killed,
    power_off,
    agent_killed,
    agent_told_to_end,
    agent_frozen,
    host_frozen,
    suspended,
    postgres_hung,
    slow_start,
    slow_stop,
    slow_promotion,
    slow_replay,
    slow_flush,
    slow_checkpoint,
    slow_copies,
    disk_full,
    crash_loop,
    disk_lost,
    data_unmounted,
    clock_drifts,
    wall_clock_jumps,
    directory_removed,
    children_left,
)
