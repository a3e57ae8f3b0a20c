"""The model of one PostgreSQL: the process on a disk, its sessions, and the faults that it can have.

It lives in the world, not in the agent: an agent that dies in the middle of a verb leaves whatever Postgres goes on to do by itself. How
WAL comes to a standby is in receiver.py, which commits wait for whom in syncrep.py. Held to tests/contract/test_postgres*.py.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rivha.model import Lsn, Role, State
from tests.sim.disk import Disk, Entry, promoted
from tests.sim.receiver import Receiver
from tests.sim.syncrep import Answer, SyncRep, Told, parse

if TYPE_CHECKING:
    from tests.sim.world import World

LOOK_S = 0.05  # how often what waits inside a process looks again
DRAIN_LOOK_S = 0.005
CHECKPOINT_S = 30.0  # until the checkpoint that a promotion asks for by itself, unless somebody orders one
KILLED_S = 0.01  # an immediate stop that is heard
CHECKPOINTER = "checkpointer"


@dataclass(slots=True)
class Trouble:
    """Faults of this Postgres, set by the script. Seconds; 0 is at once."""

    hung: bool = False
    unmounted: bool = False  # the data directory is not there
    start_s: float = 0.1
    stop_s: float = 0.05  # a fast stop's checkpoint
    promote_s: float = 0.03
    checkpoint_s: float = 0.05  # one that somebody orders
    copy_s: float = 1.0
    compare_s: float = 0.03  # for the agent to compare this one's history with another's
    files_s: float = 0.0  # for the agent to write a configuration file
    rewind_s: float = 0.5
    flush_s: float = 0.0  # of what a standby has received
    report_s: float = 0.0  # until what a standby tells its upstream arrives
    replay_s: float = 0.0  # for one entry: more than 0 makes a backlog
    reload_s: float = 0.01  # until fresh backends have a changed setting; the running processes take as long again
    late_takers: dict[str, float] = field(
        default_factory=dict
    )  # and of these one takes so much longer: CHECKPOINTER, or a standby's sender


class Instance:
    def __init__(self, host: str, world: World, rng: random.Random) -> None:
        self.host, self.world, self.rng = host, world, rng
        self.disk = Disk()
        self.state, self.role = State.STOPPED, Role.UNKNOWN
        self.stopping = False  # a fast stop was heard: no sessions any more
        self.shut = False  # its shutdown checkpoint is written
        self.left_until = 0.0  # children of a dead postmaster stay so long, unless somebody ends them
        self.promoting = False  # from when it was asked: it streams from nobody any more, whatever primary_conninfo says
        self.generation = 0  # of the process: what was under way for an older one is void
        self.trouble = Trouble()
        self.on_death: list[Callable[[], None]] = []
        self.led_term = 0  # the leadership in which it last became a writable primary, for the laws
        self.replay_paused = False
        self.too_small: Mapping[str, tuple[int, int]] = {}  # the settings that replay has stopped for
        self.names = ""  # synchronous_standby_names as a fresh backend shows it; what counts is in `syncrep`
        self.syncrep = SyncRep(world.loop.time)
        self.receiver = Receiver(self)

    # ---- what it is

    @property
    def alive(self) -> bool:
        return self.state in (State.STARTING, State.RUNNING)

    @property
    def left(self) -> bool:
        """The postmaster is dead, and a child of it is not: what it writes or sends, it still writes or sends."""
        return not self.alive and self.world.loop.now < self.left_until

    @property
    def bare(self) -> bool:
        """It runs, and its directory was removed under it."""
        return not self.disk.system_id and self.alive

    @property
    def hung(self) -> bool:
        """Nobody is answered, and nothing goes on. Without its directory no session begins (HAZARDS E 73)."""
        return self.trouble.hung or self.bare

    @property
    def writable(self) -> bool:
        return self.state is State.RUNNING and self.role is Role.PRIMARY and not self.hung and not self.stopping

    @property
    def receiving(self) -> str:
        """The host that the WAL receiver is connected to."""
        return self.receiver.upstream

    @property
    def replayed(self) -> Lsn:
        return self.disk.wal[self.disk.replayed - 1].end if self.disk.replayed else 0

    def sees(self, text: str) -> bool:
        """Whether a fresh session finds that row."""
        return any(e.text == text and e.ident not in self.syncrep.waiting for e in self.disk.wal[: self.disk.replayed])

    def _say(self, what: str) -> None:
        self.world.note(self.host, f"Postgres {what}")

    # ---- life and death

    def die(self, *, power: bool = False) -> None:
        """The postmaster is gone, at once and without a word; with the power also what was not flushed."""
        if self.alive:
            self._end(State.CRASHED, quietly=power)
            self.disk.clean = self.shut
            self._say("was ended when its shutdown checkpoint was written" if self.shut else "died")
        if power:
            self.left_until = 0.0
            self.disk.lose_power()

    def _end(self, state: State, *, quietly: bool = False) -> None:
        self.state, self.stopping, self.promoting, self.replay_paused = state, False, False, False
        self.generation, self.too_small = self.generation + 1, {}
        self.receiver.drop(quietly=quietly)
        self.syncrep.end()
        for callback in tuple(self.on_death):
            self.world.loop.call_soon(callback)
        if not quietly:
            self.world.upstream_gone(self.host)

    async def _lasts(self, seconds: float) -> bool:
        """Work of this process, which takes longer while it hangs. False when it died meanwhile."""
        mine = self.generation
        await asyncio.sleep(seconds)
        while self.hung and self.generation == mine:
            await asyncio.sleep(LOOK_S)
        return self.generation == mine

    async def start(self) -> bool:
        """Crash recovery included, which makes commits visible that were waiting. False when it died meanwhile or has no directory."""
        if not self.disk.system_id:
            return False
        self.generation, self.left_until = self.generation + 1, 0.0
        self.state, self.role = State.STARTING, Role.STANDBY if self.disk.standby else Role.PRIMARY
        self.stopping = self.shut = self.disk.clean = False
        if not await self._lasts(self.trouble.start_s):
            return False
        if self.disk.full or self.trouble.unmounted:
            self.die()
            return False
        self.state, self.names = State.RUNNING, self.disk.names
        self._say(f"runs as {self.role}, timeline {self.disk.timeline}")
        self.syncrep.names = parse(self.names)
        if self.role is Role.PRIMARY:
            self.disk.flushed = self.disk.replayed = len(self.disk.wal)
            self.world.became_primary(self)
            self.checkpoint(self.generation)  # its crash recovery's
        else:
            self.disk.flushed = len(self.disk.wal)
            self.receiver.started()
        return True

    async def stop(self, fast_s: float, quit_s: float, linger_s: float | None = None) -> None:
        """Fast: connected standbys get the shutdown checkpoint. Then immediate: crash recovery follows, unless it was written."""
        if not self.alive:
            self.left_until = 0.0
            return
        mine = self.generation
        if fast_s > 0 and self.state is State.RUNNING:
            await self._stop_fast(self.world.loop.now + fast_s, linger_s)
        if self.generation == mine:
            await asyncio.sleep(quit_s if self.trouble.hung else min(KILLED_S, quit_s))
        if self.generation == mine:
            self.die()

    async def _stop_fast(self, end: float, linger_s: float | None) -> None:
        mine, loop = self.generation, self.world.loop
        while self.hung and self.generation == mine and loop.now < end:
            await asyncio.sleep(LOOK_S)
        if self.generation != mine or loop.now >= end:
            return
        self.stopping = True
        self.syncrep.end_sessions()
        await asyncio.sleep(min(self.trouble.stop_s, end - loop.now))
        if self.generation != mine or self.hung or loop.now >= end:
            return
        if self.role is Role.PRIMARY:
            if self.disk.full:
                self.die()
                return
            self.append("shutdown checkpoint")
            self.shut, self.disk.checkpointed = True, self.disk.timeline
            end = end if linger_s is None else min(end, loop.now + linger_s)
            while any(s.flush < self.disk.end for s in self.syncrep.live().values()) and self.generation == mine and loop.now < end:
                await asyncio.sleep(DRAIN_LOOK_S)
        if self.generation == mine and loop.now < end:
            self._end(State.STOPPED)
            self.disk.clean = True
            self._say("has shut down")

    # ---- writing

    def append(self, text: str) -> Entry:
        """Flushed here when it returns."""
        entry = self.disk.append(self.world.next_ident(), text)
        for standby in self.world.receivers_of(self.host):
            standby.receiver.deliver_soon()
        return entry

    def commit(self, text: str, told: Told) -> Entry:
        """One transaction of a client, who is told how it ended: now, or when the standbys named have it."""
        if self.disk.full:
            entry = Entry(self.world.next_ident(), self.disk.timeline, self.disk.end, text)
            self.die()  # PANIC: could not write to pg_wal
            told(entry, Answer.BROKEN)
            return entry
        entry = self.append(text)
        self.syncrep.commit(entry, told)
        return entry

    def reload(self, names: str) -> None:
        """SIGHUP: fresh backends have the setting at once, the processes that run take what the file says in their own time."""
        self.disk.names = names
        world, trouble = self.world, self.trouble
        world.later(trouble.reload_s, self._shows, self.generation)
        world.later(2 * trouble.reload_s + trouble.late_takers.get(CHECKPOINTER, 0.0), self._takes, self.generation)
        for host, sender in self.syncrep.senders.items():
            late_s = trouble.late_takers.get(host, 0.0)
            world.later(2 * trouble.reload_s + late_s, self._sender_takes, self.generation, host, sender.connection)

    @property
    def names_are_everywhere(self) -> bool:
        """Every process goes by what the file says; on a standby only backends do."""
        names, rep = parse(self.disk.names), self.syncrep
        taken = rep.names == names and all(sender.names == names for sender in rep.live().values())
        return self.names == self.disk.names and (taken or self.role is not Role.PRIMARY)

    def forget_names(self) -> None:
        """A standby that follows or is frozen has none."""
        if self.disk.names:
            self.reload("")

    def _shows(self, generation: int) -> None:
        if generation == self.generation:
            self.names = self.disk.names

    def _takes(self, generation: int) -> None:
        if generation == self.generation:
            self.syncrep.take(parse(self.disk.names))
            self.world.laws.names_taken(self)

    def _sender_takes(self, generation: int, host: str, connection: int) -> None:
        sender = self.syncrep.senders.get(host)
        if generation == self.generation and sender is not None and sender.connection == connection:
            self.syncrep.sender_takes(host, parse(self.disk.names))
            self.world.laws.names_taken(self)

    # ---- standbys

    def lose_upstream(self) -> None:
        self.receiver.upstream_ended()

    def point_at(self, upstream: str) -> None:
        """primary_conninfo by reload: a receiver with another setting ends, after it has flushed what it received."""
        if self.disk.upstream != upstream:
            self.disk.upstream = upstream
            self.receiver.drop()
            self.disk.flushed = len(self.disk.wal)
            self.receiver.replay()
            self.receiver.connect_soon(0.0)

    def replay_stops(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        """The WAL wants larger settings than this standby was started with: it goes on receiving and serving, until it is started anew."""
        if self.state is State.RUNNING and self.role is Role.STANDBY:
            self.replay_paused, self.too_small = True, sizes
            self._say("replays no more: " + ", ".join(sizes))

    @property
    def has_backlog(self) -> bool:
        return self.disk.replayed < len(self.disk.wal) and not self.replay_paused

    async def promote(self) -> bool:
        """Replays all that lies here first. False when it died meanwhile."""
        if self.role is not Role.STANDBY:
            return True
        self.promoting = True
        self.point_at("")
        self.replay_paused = False
        self.receiver.replay()
        while self.has_backlog:
            if not await self._lasts(LOOK_S):
                return False
        began = self.world.loop.now
        while (left_s := began + self.trouble.promote_s - self.world.loop.now) > 0:
            if not await self._lasts(min(left_s, LOOK_S)):
                return False
        if self.role is not Role.STANDBY:
            return True
        if self.disk.full:
            self.die()
            return False
        promoted(self.disk, "no recovery target specified")
        self.role, self.promoting = Role.PRIMARY, False
        self.syncrep.senders.clear()  # a cascade's end with the recovery
        self._say(f"is promoted, timeline {self.disk.timeline}")
        self.append("end of recovery")
        self.world.later(CHECKPOINT_S, self._own_checkpoint, self.generation)
        self.world.became_primary(self)
        self.world.upstream_gone(self.host)  # a cascade is cut at its promotion
        return True

    def _own_checkpoint(self, generation: int) -> None:
        if self.hung and generation == self.generation:
            self.world.later(CHECKPOINT_S, self._own_checkpoint, generation)
        else:
            self.checkpoint(generation)

    def checkpoint(self, generation: int) -> None:
        if generation == self.generation and self.writable and not self.disk.full:
            self.append("checkpoint")
            self.disk.checkpointed = self.disk.timeline
