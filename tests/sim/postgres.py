"""The `Postgres` that a simulated agent has: the protocol's verbs on a model instance. Held to tests/contract/test_postgres*.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Set
from typing import Any, TypeVar

from rivha.errors import CommandFailed, PostgresUnavailable
from rivha.model import Data, History, HistoryLine, PostgresStatus, Replication, Role, State, Upstream, WalEnd
from rivha.postgres import sizes
from tests.sim.disk import agree
from tests.sim.network import POSTGRES
from tests.sim.server import Instance
from tests.sim.syncrep import parse

T = TypeVar("T")

POLL_S = 0.05
STANDS_STILL_S = 0.1
IN_FORCE_S = 10.0
MOVE_S = 0.02
SYNC_POLL_S = 0.01


class SimPostgres:
    def __init__(self, instance: Instance) -> None:
        self._i = instance
        self._callback: Callable[[], None] | None = None
        self._confirmed: tuple[int, str] | None = None
        self.copying = False

    # ---- looking

    async def status(self, budget_s: float) -> PostgresStatus:
        i, d = self._i, self._i.disk
        if i.hung and i.alive:
            await asyncio.sleep(budget_s)
            if i.hung and i.alive:
                return PostgresStatus(State.SILENT, self._data(), role=i.role, problem="no answer", system_id=d.system_id or None)
        await asyncio.sleep(0.001)
        if i.trouble.unmounted and not i.alive:
            return PostgresStatus(State.STOPPED, self._data(), problem="the data directory is not mounted")
        if not d.system_id:
            return PostgresStatus(State.STOPPED, self._data(), unfinished=d.marker)
        if not i.alive:
            state = State.STOPPED if d.clean else State.CRASHED
            role = Role.STANDBY if d.standby else Role.PRIMARY
            common = {"role": role, "system_id": d.system_id, "timeline": d.timeline, "wal_lsn": d.checkpoint, "clean": d.clean}
            return PostgresStatus(state, self._data(), unfinished=d.marker, **common)  # type: ignore[arg-type]
        if i.stopping:
            return PostgresStatus(State.SILENT, self._data(), role=i.role, problem="Postgres is shutting down", system_id=d.system_id)
        if i.state is State.STARTING:
            return PostgresStatus(State.STARTING, self._data(), role=i.role, upstream=self._upstream(), system_id=d.system_id)
        return self._running()

    def _upstream(self) -> str | None:
        i = self._i
        return i.world.address_of(i.disk.upstream) if i.disk.upstream and i.role is Role.STANDBY else None

    def _running(self) -> PostgresStatus:
        i, d = self._i, self._i.disk
        common = {"system_id": d.system_id, "timeline": d.timeline, "slots": dict(d.slots), "synchronous_standby_names": i.names}
        common["names_confirmed"] = self._confirmed == (i.generation, i.names)
        if i.role is Role.PRIMARY:
            due = d.checkpointed != d.timeline
            return PostgresStatus(State.RUNNING, role=i.role, wal_lsn=d.end, replication=self._senders(), checkpoint_due=due, **common)  # type: ignore[arg-type]
        return PostgresStatus(
            State.RUNNING,
            role=i.role,
            receive_lsn=d.wal[d.flushed - 1].end if i.receiver.began and d.flushed else None,
            replay_lsn=i.replayed,
            replay_age_s=0.0,
            replay_paused=i.replay_paused,
            too_small=i.too_small,
            problem=sizes.told(i.too_small),
            latest_end_lsn=i.receiver.heard_end,
            upstream=self._upstream(),
            streaming=bool(i.receiving),
            replication=self._senders(),
            **common,  # type: ignore[arg-type]
        )

    def _senders(self) -> tuple[Replication, ...]:
        i = self._i
        live, named, names = i.syncrep.live(), i.syncrep.named() if i.role is Role.PRIMARY else {}, parse(i.names)
        states = names.states({host: priority for host, (priority, _) in named.items()}) if names else {}
        return tuple(
            Replication(
                host,
                i.world.hosts[host].address[0],
                "replicator",
                "streaming",
                states.get(host, "async"),
                named.get(host, (0, 0))[0],
                i.disk.end,
                sender.flush,
                sender.replay,
                f"{sender.replied:.6f}" if sender.replied else None,
            )
            for host, sender in live.items()
        )

    def _data(self) -> Data:
        if self._i.trouble.unmounted:
            return Data.INACCESSIBLE
        if self._i.disk.marker:
            return Data.UNFINISHED
        return Data.VALID if self._i.disk.system_id else Data.EMPTY

    def on_death(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._i.on_death = [self._i.world.as_agent(self._i.host, callback)]

    async def is_left(self) -> bool:
        return self._i.alive or self._i.left

    # ---- verbs

    async def _by_itself(self, work: Coroutine[Any, Any, T]) -> T:
        """What Postgres goes on doing when the agent that asked for it is cancelled or dies."""
        return await asyncio.shield(self._i.world.loop.spawn("", work))

    async def bootstrap(self) -> str:
        i = self._i
        i.world.doing(i.host, "bootstrap")
        if self._data() is not Data.EMPTY:
            raise CommandFailed("the directory is not empty")
        i.disk.marker = "bootstrap"
        try:
            await asyncio.sleep(0.8)
        except asyncio.CancelledError:
            i.disk.wipe()
            raise
        i.disk.system_id, i.disk.standby, i.disk.marker, i.disk.names = i.world.new_system_id(), False, "", ""
        i.disk.append(i.world.next_ident(), "initdb")
        await self._by_itself(i.start())
        return i.disk.system_id

    async def clone(self, source: Upstream) -> None:
        """Into a staging folder; under its marker only while that is moved into place."""
        i = self._i
        i.world.doing(i.host, "clone")
        i.world.laws.lookout.asking(i.host, source.name, "clone")
        self._refuse()
        if i.disk.marker:
            i.disk.wipe()
        elif i.disk.system_id:
            raise CommandFailed("the directory is not empty")
        other = await self._copying(source, i.trouble.copy_s)
        i.disk.marker = "clone"
        i.disk.copy_from(other.disk, other.disk.flushed)
        await asyncio.sleep(MOVE_S)
        i.disk.standby, i.disk.clean, i.disk.marker, i.disk.upstream = True, True, "", ""

    async def _copying(self, source: Upstream, seconds: float) -> Instance:
        """A connection to the source for so long; it breaks off when that dies or is cut off."""
        other = self._i.world.instances[source.name]
        generation, self.copying = other.generation, True
        try:
            for _ in range(5):
                if not self._reaches(other) or other.generation != generation or not _serves(other):
                    raise CommandFailed(f"the connection to {source.name} broke off")
                if self._i.disk.full:
                    raise CommandFailed("No space left on device")
                await asyncio.sleep(seconds / 5)
        finally:
            self.copying = False
        return other

    def _reaches(self, other: Instance) -> bool:
        return self._i.world.network.reaches(self._i.host, other.host, POSTGRES)

    def _refuse(self) -> None:
        """What no work on a directory goes on with."""
        if self._i.alive:
            raise CommandFailed("Postgres is running on it")
        if self._i.trouble.unmounted:
            raise CommandFailed("the data directory is not mounted")

    async def start(self, *, primary: bool, upstream: Upstream | None, names: str | None = None) -> None:
        i = self._i
        _checked(names or "")
        if i.alive:
            await self._start_running(primary, upstream)
            return
        self._refuse()
        if i.disk.marker:
            i.world.broken("a directory with a marker was started", i.host)
            raise CommandFailed(f"an interrupted {i.disk.marker} is not started")
        if not i.disk.system_id:
            raise CommandFailed("the directory is empty")
        i.disk.standby, i.disk.upstream = not primary, upstream.name if upstream else ""
        i.disk.names = (i.disk.names if names is None else names) if primary else ""  # a standby has none
        i.world.starting(i, primary=primary)
        if not await self._by_itself(i.start()):
            raise CommandFailed("Postgres died while it started" if not i.disk.full else "No space left on device")

    async def _start_running(self, primary: bool, upstream: Upstream | None) -> None:
        i = self._i
        while i.state is State.STARTING:
            await asyncio.sleep(POLL_S)
        self._reachable()
        if (i.role is Role.PRIMARY) != primary:
            raise CommandFailed(f"Postgres runs already, but as {i.role}")
        if not primary:
            await self.follow(upstream)

    async def stop(self, *, fast_s: float, quit_s: float = 1.0, linger_s: float | None = None) -> None:
        self._i.world.stopping(self._i)
        await self._by_itself(self._i.stop(fast_s, quit_s, linger_s))

    async def synchronize(self, names: str, *, surely: bool = False) -> None:
        """The model's processes take a reload one after another: backends first, then the senders and the checkpointer."""
        i = self._i
        i.world.doing(i.host, "synchronize")
        _checked(names)
        self._reachable()
        self._confirmed = None
        if i.disk.full:
            raise CommandFailed("No space left on device")
        i.reload(names)
        generation, end = i.generation, i.world.loop.now + IN_FORCE_S
        while not i.names_are_everywhere or (surely and i.syncrep.names != parse(names)):
            await asyncio.sleep(SYNC_POLL_S)
            if i.generation != generation:
                raise PostgresUnavailable("Postgres is not running")
            self._reachable()
            if i.world.loop.now >= end:
                raise CommandFailed(f"synchronous_standby_names = '{names}' is not in force {IN_FORCE_S:g} s after a reload")
        if i.syncrep.names == parse(names):  # a standby's checkpointer may come later
            self._confirmed = (generation, names)

    async def promote(self) -> None:
        self._reachable()
        self._i.world.promoting(self._i)
        if not await self._by_itself(self._i.promote()):
            raise CommandFailed("Postgres died while it was promoted")

    async def follow(self, upstream: Upstream | None) -> None:
        self._in_recovery("a primary cannot follow anybody without being stopped")
        await asyncio.sleep(0.01)
        self._in_recovery("promoted meanwhile")
        self._i.forget_names()
        self._i.point_at(upstream.name if upstream else "")

    async def freeze(self) -> WalEnd:
        """No receiver, and all that lies here replayed: then its end is known (HAZARDS H 10). It may take as long as the backlog is."""
        i = self._i
        i.world.doing(i.host, "pledge")
        self._in_recovery("a primary cannot be frozen")
        await asyncio.sleep(0.01)
        self._in_recovery("promoted meanwhile")
        i.forget_names()
        i.point_at("")
        await asyncio.sleep(STANDS_STILL_S)
        while i.has_backlog:
            self._in_recovery("promoted meanwhile")
            await asyncio.sleep(POLL_S)
        self._in_recovery("promoted meanwhile")
        return WalEnd(i.disk.timeline, i.disk.end)

    def _reachable(self) -> None:
        i = self._i
        if i.state is not State.RUNNING or i.hung or i.stopping:
            raise PostgresUnavailable("Postgres does not answer")

    def _in_recovery(self, otherwise: str) -> None:
        self._reachable()
        if self._i.role is not Role.STANDBY:
            raise CommandFailed(otherwise)

    async def compare(self, leader: Upstream) -> tuple[History, str]:
        other = self._i.world.instances[leader.name]
        self._i.world.laws.lookout.asking(self._i.host, leader.name, "compare")
        await asyncio.sleep(self._i.trouble.compare_s)
        if not self._reaches(other) or not other.writable:
            return History.UNKNOWN, f"{leader.name} ({leader.address}) does not answer"
        mine, theirs = self._i.disk, other.disk
        if mine.system_id != theirs.system_id:
            return History.UNKNOWN, f"{leader.name} is of another cluster"
        return (History.SAME, "a prefix") if agree(mine.wal, theirs.wal) == len(mine.wal) else (History.DIVERGED, "not a prefix")

    async def rewind(self, source: Upstream) -> None:
        """Crash recovery of a dirty directory first, and only then the marker."""
        i, other = self._i, self._i.world.instances[source.name]
        i.world.doing(i.host, "rewind")
        i.world.laws.replacing(i, source.name, "rewind")
        i.world.laws.lookout.asking(i.host, source.name, "rewind")
        self._refuse()
        if not self._reaches(other) or not other.writable:
            raise PostgresUnavailable(f"{source.name} ({source.address}) does not answer")
        if other.disk.checkpointed != other.disk.timeline:
            raise PostgresUnavailable(f"{source.name} has not finished a checkpoint since its promotion: rewinding after it")
        if not i.disk.clean and not i.disk.marker:
            await asyncio.sleep(i.trouble.start_s)
            if i.disk.full:
                raise CommandFailed("No space left on device")
            i.disk.clean = True
        i.disk.marker = "rewind"
        i.disk.half_rewound(agree(i.disk.wal, other.disk.wal))
        other = await self._copying(source, i.trouble.rewind_s)
        i.disk.copy_from(other.disk, other.disk.flushed)
        i.disk.standby, i.disk.clean, i.disk.marker, i.disk.upstream, i.disk.names = True, True, "", "", ""

    async def set_aside(self, why: str) -> str:
        self._i.world.doing(self._i.host, "set_aside")
        if why == "diverged":
            self._i.world.laws.replacing(self._i, self._i.world.store.value("leader") or self._i.host, why)
        self._refuse()
        self._i.disk.wipe()
        return f"data.{why}"

    async def checkpoint(self) -> None:
        self._reachable()
        generation, end = self._i.generation, self._i.world.loop.now + self._i.trouble.checkpoint_s
        while self._i.world.loop.now < end:
            await asyncio.sleep(min(POLL_S, end - self._i.world.loop.now))
            if self._i.generation != generation:
                raise PostgresUnavailable("the server closed the connection unexpectedly")
        self._i.checkpoint(generation)

    async def timelines(self) -> tuple[HistoryLine, ...]:
        return self._i.disk.past

    async def restart(self) -> None:
        i = self._i
        self._reachable()
        standby, upstream = i.role is Role.STANDBY, i.disk.upstream
        names = "" if standby else i.disk.names
        await self._by_itself(i.stop(10.0, 1.0))
        i.disk.standby, i.disk.upstream, i.disk.names = standby, upstream, names
        i.world.starting(i, primary=not standby)
        if not await self._by_itself(i.start()):
            raise CommandFailed("Postgres died while it started")

    def assume(self, dynamic: Mapping[str, object]) -> None:
        """Of all settings the model knows one, and that one is `synchronize`'s."""

    async def configure(self, dynamic: Mapping[str, object], *, reload: bool) -> None:
        """Of all settings the model knows one, and that one is `synchronize`'s."""
        i = self._i
        end = i.world.loop.now + i.trouble.files_s
        while i.world.loop.now < end and i.trouble.files_s:
            await asyncio.sleep(POLL_S)
        if i.disk.full:
            raise CommandFailed("No space left on device")

    async def keep_slots(self, wanted: Set[str], advance: Mapping[str, int]) -> None:
        """Made where the WAL ends now; in use while that standby streams; moved up to what is replayed here."""
        i = self._i
        if i.state is not State.RUNNING or i.hung or (i.disk.slots.keys() == wanted and not advance):
            return
        live, slots = i.syncrep.live(), i.disk.slots
        for name in [n for n in slots if n not in wanted and n not in live]:
            del slots[name]
        for name in wanted:
            slots.setdefault(name, i.replayed)
            if i.role is Role.STANDBY and name in advance:
                slots[name] = max(slots[name], min(advance[name], i.replayed))

    async def close(self) -> None:
        return


def _checked(names: str) -> None:
    try:
        parse(names)
    except ValueError as e:
        raise CommandFailed(str(e)) from None


def _serves(i: Instance) -> bool:
    return i.state is State.RUNNING and not i.hung and not i.stopping
