"""What goes wrong: a fault is (instant, kind, target, number), a script is a list of them, made from a seed or written by hand.

`docs/simulation.md` tells how to add one: a function in KINDS, and its undoing in `heal` if it leaves something behind.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rivha.dcs import records, writes
from tests.sim.network import CLIENT, ETCD

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    at: float  # seconds after the cluster was whole
    kind: str
    host: str  # a host, or LEADER: whoever leads then
    number: float  # kind-dependent: mostly how long, in seconds

    def __str__(self) -> str:
        return f"{self.at:.3f} {self.kind} {self.host} {self.number:.3f}"


Script = list[Fault]
LEADER = "leader"


class ScriptError(ValueError):
    """A script that does not parse, or names an unknown fault; the text says which line."""


def parse(text: str) -> Script:
    """One fault a line: `instant kind host number`; empty lines and # comments are skipped."""
    script = []
    for n, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 4:
            raise ScriptError(f"line {n}: should be `instant kind host number`, is {line!r}")
        at, kind, host, number = words
        if kind not in KINDS:
            raise ScriptError(f"line {n}: no fault is called {kind!r}; there are {', '.join(sorted(KINDS))}")
        try:
            script.append(Fault(float(at), kind, host, float(number)))
        except ValueError as error:
            raise ScriptError(f"line {n}: {error}") from error
    return sorted(script)


def random_script(rng: random.Random, hosts: list[str], seconds: float) -> Script:
    """Faults come in bursts: the second one while the first is being dealt with is what finds bugs."""
    script, at = [], 1.0
    while at < seconds:
        kind = rng.choice(sorted(KINDS))
        host = LEADER if rng.random() < 0.6 else rng.choice(hosts)
        script.append(Fault(at, kind, host, rng.uniform(0.1, 20.0)))
        at += rng.choice((0.02, 0.1, 0.5, 2.0, 5.0, 12.0, 20.0)) * rng.uniform(0.5, 1.5)
    return script


async def play(world: World, script: Script) -> None:
    began = world.loop.now
    for fault in script:
        await asyncio.sleep(max(0.0, began + fault.at - world.loop.now))
        name = fault.host
        if name == LEADER:
            name = world.store.value("leader") or world.rng.choice(sorted(world.hosts))
        if name not in world.hosts:
            raise ScriptError(f"there is no host {name}")
        world.happened[fault.kind] += 1
        world.note("", f"FAULT {fault.kind} {name} {fault.number:.3f}")
        KINDS[fault.kind](world, world.hosts[name], fault.number)
    await asyncio.sleep(1.0)


def heal(world: World) -> None:
    """The end of all faults."""
    world.note("", "HEAL")
    world.healed = True
    world.network.heal()
    world.store.up = True
    for host in world.hosts.values():
        host.instance.trouble.hung = False
        host.instance.trouble.start_s, host.instance.trouble.stop_s = 0.1, 0.05
        host.instance.disk.full = False
        host.rate = 1.0
        if host.frozen_agent:
            host.thaw_agent()
        if host.dcs is not None:
            host.dcs.deaf = False
        if not host.on:
            host.power_on()
    _edit_config(world, pause=False)


def later(world: World, seconds: float, undo: Callable[[], None]) -> None:
    world.loop.call_later(seconds, undo)


# ---- the kinds -------------------------------------------------------------------------------------------------------------------


def postmaster_killed(world: World, host: Host, _: float) -> None:
    host.instance.die()


def power_off(world: World, host: Host, seconds: float) -> None:
    host.power_off()
    later(world, seconds, host.power_on)


def agent_killed(world: World, host: Host, _: float) -> None:
    host.kill_agent()


def agent_told_to_end(world: World, host: Host, seconds: float) -> None:
    if host.core is not None and not host.frozen_agent:
        host.core.stop()
        later(world, seconds, host.start_agent)


def host_frozen(world: World, host: Host, seconds: float) -> None:
    """The whole machine stands still: agent and Postgres."""
    if host.agent_runs and not host.frozen_agent:
        host.freeze_agent()
        host.instance.trouble.hung = True

        def thaw() -> None:
            host.instance.trouble.hung = False
            host.thaw_agent()

        later(world, seconds, thaw)


def postgres_hung(world: World, host: Host, seconds: float) -> None:
    host.instance.trouble.hung = True
    later(world, seconds, lambda: setattr(host.instance.trouble, "hung", False))


def cut_from_etcd(world: World, host: Host, seconds: float) -> None:
    world.network.cut(host.name, ETCD)
    later(world, seconds, lambda: world.network.cuts.difference_update({(host.name, ETCD), (ETCD, host.name)}))


def cut_one_way(world: World, host: Host, seconds: float) -> None:
    """Its requests arrive, the answers do not."""
    world.network.cut(ETCD, host.name, one_way=True)
    later(world, seconds, lambda: world.network.cuts.discard((ETCD, host.name)))


def cut_from_all(world: World, host: Host, seconds: float) -> None:
    others = [*(h for h in world.hosts if h != host.name), ETCD, CLIENT]
    for other in others:
        world.network.cut(host.name, other)
    pairs = {(host.name, o) for o in others} | {(o, host.name) for o in others}
    later(world, seconds, lambda: world.network.cuts.difference_update(pairs))


def cut_from_standbys(world: World, host: Host, seconds: float) -> None:
    others = [h for h in world.hosts if h != host.name]
    for other in others:
        world.network.cut(host.name, other)
    pairs = {(host.name, o) for o in others} | {(o, host.name) for o in others}
    later(world, seconds, lambda: world.network.cuts.difference_update(pairs))


def etcd_down(world: World, _: Host, seconds: float) -> None:
    world.store.up = False

    def up() -> None:
        world.store.up = True
        world.store.change_leader()

    later(world, seconds, up)


def etcd_elects(world: World, _: Host, __: float) -> None:
    """A new leader of etcd, which extends every lease."""
    etcd_down(world, _, 1.5)


def messages_lost(world: World, _: Host, seconds: float) -> None:
    world.network.loss = 0.2
    later(world, seconds, lambda: setattr(world.network, "loss", 0.0))


def slow_network(world: World, _: Host, seconds: float) -> None:
    world.network.slow = 100.0
    later(world, seconds, lambda: setattr(world.network, "slow", 1.0))


def deaf_watch(world: World, host: Host, _: float) -> None:
    if host.dcs is not None:
        host.dcs.deaf = True


def slow_start(world: World, host: Host, seconds: float) -> None:
    host.instance.trouble.start_s = seconds


def slow_stop(world: World, host: Host, seconds: float) -> None:
    host.instance.trouble.stop_s = seconds


def clock_drifts(world: World, host: Host, number: float) -> None:
    """Up to two per cent, far beyond what NTP leaves alone; the lease's margins are for it. Without a jump: rates change, not times."""
    now = host.clock()
    host.rate = 1.0 + (number - 10.0) / 500.0
    host.offset += now - host.clock()


def wall_clock_jumps(world: World, host: Host, number: float) -> None:
    host.wall_step += (number - 10.0) * 60.0


def disk_full(world: World, host: Host, seconds: float) -> None:
    host.instance.disk.full = True
    later(world, seconds, lambda: setattr(host.instance.disk, "full", False))


def switchover(world: World, host: Host, number: float) -> None:
    c = world.laws.cluster()
    leader = c.leader.name if c.leader else None
    if leader is not None and not c.failover_revision:
        candidate = host.name if host.name != leader else None
        world.store.commit(writes.file_failover(c, leader, candidate, None))


def manual_failover(world: World, host: Host, number: float) -> None:
    c = world.laws.cluster()
    if not c.failover_revision and not (c.leader and c.leader.name == host.name):
        world.store.commit(writes.file_failover(c, None, host.name, None))


def pause(world: World, _: Host, seconds: float) -> None:
    _edit_config(world, pause=True)
    later(world, seconds, lambda: _edit_config(world, pause=False))


def ttl_edited(world: World, _: Host, number: float) -> None:
    _edit_config(world, ttl=10 if number < 10 else 20)


def restart_asked(world: World, host: Host, _: float) -> None:
    if host.core is not None and not host.frozen_agent:
        world.loop.spawn(host.process, _ask(host, "restart"))


def reinit_asked(world: World, host: Host, _: float) -> None:
    if host.core is not None and not host.frozen_agent:
        world.loop.spawn(host.process, _ask(host, "reinitialize"))


async def _ask(host: Host, kind: str) -> None:
    assert host.core is not None
    await host.core.desk.ask(kind, {}, 30.0)


def _edit_config(world: World, **changes: object) -> None:
    found = world.store.value(records.CONFIG)
    if found is not None:
        c = world.laws.cluster()
        world.store.commit(writes.put_config(c, {**json.loads(found), **changes}))


KINDS: dict[str, Callable[[World, Host, float], None]] = {
    f.__name__: f
    for f in (
        postmaster_killed,
        power_off,
        agent_killed,
        agent_told_to_end,
        host_frozen,
        postgres_hung,
        cut_from_etcd,
        cut_one_way,
        cut_from_all,
        cut_from_standbys,
        etcd_down,
        etcd_elects,
        messages_lost,
        slow_network,
        deaf_watch,
        slow_start,
        slow_stop,
        clock_drifts,
        wall_clock_jumps,
        disk_full,
        switchover,
        manual_failover,
        pause,
        ttl_edited,
        restart_asked,
        reinit_asked,
    )
}
