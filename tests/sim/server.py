"""The model of one PostgreSQL: the process on a disk, its replication, and the faults that it can have.

It lives in the world, not in the agent: an agent that dies in the middle of a verb leaves whatever Postgres goes on to do by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rivha.model import Role, State
from tests.sim.disk import Disk, Entry, agree, promoted

if TYPE_CHECKING:
    from tests.sim.world import World

RETRY_S = 0.2  # wal_retrieve_retry_interval
RECEIVER_TIMEOUT_S = 5.0  # a silent upstream is noticed so late
IN_A_ROW = 50  # entries a delivery carries at the most


@dataclass(slots=True)
class Trouble:
    """Faults of this Postgres, set by the script."""

    hung: bool = False
    start_s: float = 0.1
    stop_s: float = 0.05
    promote_s: float = 0.03
    copy_s: float = 1.0
    rewind_s: float = 0.5


@dataclass(slots=True)
class Instance:
    host: str
    world: World
    rng: random.Random
    disk: Disk = field(default_factory=Disk)
    state: State = State.STOPPED
    role: Role = Role.UNKNOWN
    receiving: str = ""  # the host that the WAL receiver is connected to
    generation: int = 0  # of the process: what was under way for an older one is void
    trouble: Trouble = field(default_factory=Trouble)
    on_death: list[Callable[[], None]] = field(default_factory=list)
    led_term: int = 0  # the leadership in which it last became a writable primary, for the laws
    heard_end: int = 0

    # ---- life and death

    @property
    def alive(self) -> bool:
        return self.state in (State.STARTING, State.RUNNING)

    @property
    def writable(self) -> bool:
        return self.state is State.RUNNING and self.role is Role.PRIMARY and not self.trouble.hung

    def die(self) -> None:
        """The postmaster is gone, at once and without a word."""
        if self.alive:
            self.state, self.receiving = State.CRASHED, ""
            self.disk.clean = False
            self.generation += 1
            for callback in tuple(self.on_death):
                self.world.loop.call_soon(callback)
            self.world.upstream_gone(self.host)

    async def start(self) -> bool:
        """Crash recovery included. False when it died meanwhile."""
        self.generation += 1
        mine = self.generation
        self.state, self.role = State.STARTING, Role.STANDBY if self.disk.standby else Role.PRIMARY
        self.disk.clean = False
        await asyncio.sleep(self.trouble.start_s)
        if self.generation != mine:
            return False
        self.state = State.RUNNING
        if self.role is Role.PRIMARY:
            self.world.became_primary(self)
        else:
            self.connect_soon(0.0)
        return True

    async def stop(self, fast_s: float, quit_s: float) -> None:
        """Fast: the standbys that are connected get the shutdown checkpoint. Immediate: crash recovery follows."""
        if not self.alive:
            return
        mine = self.generation
        if fast_s > 0 and not self.trouble.hung and self.state is State.RUNNING:
            await asyncio.sleep(min(self.trouble.stop_s, fast_s))
            if self.generation != mine:
                return
            if self.trouble.stop_s <= fast_s:
                await self._shut_down()
                return
        await asyncio.sleep(min(0.01, quit_s))
        if self.generation == mine:
            self.die()

    async def _shut_down(self) -> None:
        if self.role is Role.PRIMARY:
            self.append("shutdown checkpoint")
            self.role = Role.UNKNOWN  # acknowledges nothing any more
            await asyncio.sleep(self.world.network.delay_s() * 4)
            self.role = Role.PRIMARY
        self.state, self.receiving = State.STOPPED, ""
        self.disk.clean = True
        self.generation += 1
        self.world.upstream_gone(self.host)

    # ---- writing and replicating

    def append(self, text: str) -> Entry:
        entry = self.disk.append(self.world.next_ident(), text)
        for standby in self.world.receivers_of(self.host):
            standby.deliver_soon(self)
        return entry

    def connect_soon(self, after_s: float) -> None:
        mine = self.generation
        self.world.loop.call_later(after_s, self._connect, mine)

    def _connect(self, generation: int) -> None:
        """The WAL receiver's attempt; it tries again for ever, like the real one."""
        if generation != self.generation or self.state is not State.RUNNING or self.role is not Role.STANDBY or self.receiving:
            return
        upstream = self.world.instances.get(self.disk.upstream) if self.disk.upstream else None
        if upstream is None or self.trouble.hung:
            if self.disk.upstream:
                self.connect_soon(RETRY_S)
            return
        reachable = self.world.network.talk(self.host, upstream.host) and upstream.state is State.RUNNING and not upstream.trouble.hung
        if reachable and upstream.disk.system_id == self.disk.system_id and agree(self.disk.wal, upstream.disk.wal) == len(self.disk.wal):
            self.receiving = upstream.host
            self.deliver_soon(upstream)
        else:
            self.connect_soon(RETRY_S)

    def deliver_soon(self, upstream: Instance) -> None:
        self.world.loop.call_later(self.world.network.delay_s(), self._deliver, upstream, self.generation, upstream.generation)

    def _deliver(self, upstream: Instance, mine: int, theirs: int) -> None:
        if mine != self.generation or theirs != upstream.generation or self.receiving != upstream.host or self.trouble.hung:
            return
        if not self.world.network.talk(self.host, upstream.host) or upstream.trouble.hung:
            self.world.loop.call_later(RECEIVER_TIMEOUT_S, self._time_out, mine, upstream.host)
            return
        fresh = upstream.disk.wal[len(self.disk.wal) : len(self.disk.wal) + IN_A_ROW]
        if fresh:
            self.world.received(self, fresh)
            self.disk.wal.extend(fresh)
            self.disk.timeline, self.disk.past = fresh[-1].timeline, upstream.disk.past
        self.heard_end = upstream.disk.end
        if len(self.disk.wal) < len(upstream.disk.wal):
            self.deliver_soon(upstream)

    def _time_out(self, generation: int, upstream: str) -> None:
        if generation == self.generation and self.receiving == upstream:
            other = self.world.instances[upstream]
            if self.world.network.talk(self.host, upstream) and not other.trouble.hung and other.alive:
                self.deliver_soon(other)
            else:
                self.lose_upstream()

    def lose_upstream(self) -> None:
        self.receiving = ""
        self.connect_soon(RETRY_S)

    def point_at(self, upstream: str) -> None:
        """primary_conninfo by reload: a receiver with another setting ends."""
        if self.disk.upstream != upstream:
            self.disk.upstream, self.receiving = upstream, ""
            self.connect_soon(0.0)

    async def promote(self) -> bool:
        mine = self.generation
        self.receiving = ""
        await asyncio.sleep(self.trouble.promote_s)
        if self.generation != mine or self.role is not Role.STANDBY:
            return self.role is Role.PRIMARY
        promoted(self.disk, "no recovery target specified")
        self.role = Role.PRIMARY
        self.append("end of recovery")
        self.world.became_primary(self)
        self.world.upstream_gone(self.host)  # a cascade is cut at its promotion
        return True
