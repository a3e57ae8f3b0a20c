"""Faults that only a written script has: no seed draws them, so that a new one here leaves every seed's run as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from rivha.dcs import records
from rivha.dcs.base import Put
from tests.sim import wrong_machines

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World

SIZES = {"max_connections": (50, 100)}  # in force here, and the primary's


def key_restored(world: World, host: Host, _: float) -> None:
    """The leader key is as in a backup in which this host led, on a lease of the usual ttl; or somebody wrote it by hand."""
    ttl = world.settings["ttl"]
    assert isinstance(ttl, int)
    world.laws.given.add(world.store.revision + 1)
    world.store.write((Put(records.LEADER, host.name, world.store.grant(ttl)),))


def sizes_raised(world: World, host: Host, _: float) -> None:
    """The primary was started with a larger max_connections: all standbys stop to replay, until each is started anew (PostgreSQL 14 on)."""
    for instance in world.instances.values():
        instance.replay_stops(SIZES)


def slow_comparison(world: World, host: Host, seconds: float) -> None:
    """This host reads WAL slowly: to compare its history with the leader's takes so long."""
    wrong_machines.troubled(world, host, "compare_s", seconds, math.inf)


KINDS: tuple[Callable[[World, Host, float], None], ...] = (key_restored, sizes_raised, slow_comparison)
