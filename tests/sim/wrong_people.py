"""Operators who act at bad moments, and what they leave in etcd."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rivha.dcs import records, writes
from rivha.dcs.base import Delete, Put
from tests.sim import wrong_machines

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World


MAKES_UP_HIS_MIND_S = 20.0


def switchover(world: World, host: Host, _: float) -> None:
    """An operator asks for a switchover to this host; to anybody, when it leads."""
    _ask_for_switchover(world, host, None)


def switchover_later(world: World, host: Host, seconds: float) -> None:
    """An operator asks for a switchover at so many seconds from now; his own clock is right."""
    _ask_for_switchover(world, host, datetime.fromtimestamp(world.wall() + seconds, UTC).isoformat())


def _ask_for_switchover(world: World, host: Host, at: str | None) -> None:
    c = world.laws.cluster()
    leader = c.leader.name if c.leader else None
    if leader is not None and not c.failover_revision:
        candidate = host.name if host.name != leader else None
        world.store.commit(writes.file_failover(c, leader, candidate, at))


def manual_failover(world: World, host: Host, _: float) -> None:
    """An operator asks for a failover to this host; to another, when it leads."""
    c, other = world.laws.cluster(), _another(world, host)
    if not c.failover_revision:
        world.store.commit(writes.file_failover(c, None, other, None))


def _another(world: World, host: Host) -> str:
    """This host, or the next, when it leads."""
    names, leader = sorted(world.hosts), world.store.value(records.LEADER)
    return host.name if host.name != leader else names[(names.index(host.name) + 1) % len(names)]


def request_withdrawn(world: World, host: Host, number: float) -> None:
    """An operator takes back what was asked for; if nothing was, he asks for a switchover, and takes it back a tenth of so many s later."""
    if world.laws.cluster().failover_revision:
        _withdraw(world)
    else:
        switchover(world, host, 0.0)
        world.later(number / 10.0, _withdraw, world)


def _withdraw(world: World) -> None:
    c = world.laws.cluster()
    if c.failover_revision:
        world.laws.lookout.needless.withdrawn.add(c.failover_revision)
        world.store.commit(writes.clear_failover(c))


def pause(world: World, _: Host, seconds: float) -> None:
    """An operator pauses the cluster, and resumes it after so long."""
    edit_config(world, pause=True)
    world.for_a_while("pause", seconds, lambda: edit_config(world, pause=False))


def ttl_edited(world: World, _: Host, number: float) -> None:
    """An operator sets the ttl: below 10 to what it was at first, from 10 on to twice that."""
    ttl = world.settings["ttl"]
    assert isinstance(ttl, int)
    edit_config(world, ttl=ttl if number < 10 else 2 * ttl)


def names_edited(world: World, _: Host, seconds: float) -> None:
    """Synchronous replication of the operator's own making: commits wait for any one standby, for a while."""
    edit_config(world, postgresql={"parameters": {"synchronous_standby_names": "ANY 1 (*)"}})
    world.for_a_while("names", seconds, lambda: edit_config(world, postgresql={}))


def config_edited_on_a_slow_disk(world: World, host: Host, seconds: float) -> None:
    """The tick writes configuration files: on a disk that hangs it hangs too, and only the fence is left."""
    wrong_machines.troubled(world, host, "files_s", 3 * seconds, seconds)
    edit_config(world, hang_timeout=round(10 + seconds, 3))


def tags_edited(world: World, host: Host, seconds: float) -> None:
    """nofailover for so long, and back: a file that is read again on SIGHUP."""
    tagged(world, host, {"nofailover": True}, seconds)


def tagged(world: World, host: Host, tags: Mapping[str, object], seconds: float) -> None:
    """For so long; then what it was started with."""
    retag(host, tags)
    world.for_a_while((host.name, "tags"), seconds, lambda: retag(host, world.shape.tags.get(host.name, {})))


def retag(host: Host, tags: object) -> None:
    if host.core is not None:
        host.core.tick.base = replace(host.core.tick.base, tags=tags)  # type: ignore[arg-type]


def restart_asked(world: World, host: Host, _: float) -> None:
    """An operator asks this host's agent to restart its Postgres."""
    if host.core is not None and not host.frozen_agent:
        world.loop.spawn(host.process, _ask(host, "restart"))


def reinit_asked(world: World, host: Host, _: float) -> None:
    """An operator asks this host's agent to clone its data anew."""
    if host.core is not None and not host.frozen_agent:
        world.loop.spawn(host.process, _ask(host, "reinitialize"))


async def _ask(host: Host, kind: str) -> None:
    """Who is told that it was done can see that it was: of a restart a new process, of a reinit another directory."""
    assert host.core is not None
    counted = (lambda: host.instance.generation) if kind == "restart" else (lambda: host.instance.disk.aside)
    before = counted()
    answer = await host.core.desk.ask(kind, {}, 30.0)
    if answer is not None and answer[0] and counted() == before:
        host.world.broken("told that a request was carried out, and it was not", f"{host.name}: {kind}, {answer[1]}")


def garbage_request(world: World, _: Host, seconds: float) -> None:
    """Somebody writes what does not parse over the request for a failover, and mends it after so long."""
    _scrawl(world, records.FAILOVER, seconds)


def garbage_config(world: World, _: Host, seconds: float) -> None:
    """The same over the configuration."""
    _scrawl(world, records.CONFIG, seconds)


def garbage_pledge(world: World, host: Host, seconds: float) -> None:
    """The same over this host's pledge."""
    _scrawl(world, records.PLEDGES + host.name, seconds)


def garbage_history(world: World, _: Host, seconds: float) -> None:
    """The same over the history."""
    _scrawl(world, records.HISTORY, seconds)


def _scrawl(world: World, key: str, seconds: float) -> None:
    """What does not parse, until its author sees it and puts back what was there."""
    before = world.store.value(key)
    world.store.write((Put(key, "{]"),))

    def mend() -> None:
        if world.store.value(key) == "{]":
            world.store.write((Delete(key) if before is None or key != records.CONFIG else Put(key, before),))

    world.later(seconds, mend)


def edit_config(world: World, **changes: object) -> None:
    found, c = world.store.value(records.CONFIG), world.laws.cluster()
    if found is not None and c.config is not None:
        world.store.commit(writes.put_config(c, {**json.loads(found), **changes}))


async def tidy_up(world: World) -> None:
    """After the faults: who paused resumes, who scrawled wipes it away; again and again, since the config may be restored only later."""
    healed_at = world.loop.now
    while True:
        c = world.laws.cluster()
        for key in [kv.key for kv in world.store.keys.values() if kv.value == "{]"]:
            keep = key == records.CONFIG
            world.store.write((Put(key, json.dumps(world.settings)) if keep else Delete(key),))
        if c.config is not None and c.config.get("pause"):
            edit_config(world, pause=False)
        waited = world.loop.now - healed_at
        if c.leader is None and waited > MAKES_UP_HIS_MIND_S:
            _take_the_decision(world, lost=world.happened["disk_lost"] > 0 and waited > 3 * MAKES_UP_HIS_MIND_S)
        await asyncio.sleep(1.0)


def _take_the_decision(world: World, *, lost: bool) -> None:
    """What Rivha rightly leaves to a person: the config is gone with a pause in it, or whoever holds the data may not lead by itself.

    Where a disk was `lost`, what is left may even be what a later leader went on without. And he sees that what he asked for before
    does not happen: the node that he named has lost its data since, or its tags bar it.
    """
    c = world.laws.cluster()
    if c.config_revision == 0:
        world.store.write((Put(records.CONFIG, json.dumps(world.settings)),))
    usable = [i for i in world.instances.values() if i.disk.system_id and not i.disk.marker]
    asked = c.failover.candidate if c.failover is not None and c.failover.leader is None else None
    if usable and (asked or lost or not any(world.laws.may_lead_by_itself(i) for i in usable)):
        best = max(usable, key=lambda i: (i.host == asked, i.disk.timeline, i.disk.end))
        retag(world.hosts[best.host], {})
        if best.host != asked:  # nobody, or one that has lost its data since
            world.store.commit(writes.file_failover(c, None, best.host, None))


KINDS: tuple[Callable[[World, Host, float], None], ...] = (
    switchover,
    switchover_later,
    manual_failover,
    request_withdrawn,
    pause,
    ttl_edited,
    names_edited,
    config_edited_on_a_slow_disk,
    tags_edited,
    restart_asked,
    reinit_asked,
    garbage_request,
    garbage_config,
    garbage_pledge,
    garbage_history,
)
