"""The `Postgres` that a simulated agent has: the protocol's verbs on a model instance. Held to tests/contract/test_postgres*.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Set
from typing import Any, TypeVar

from rivha.errors import CommandFailed, PostgresUnavailable
from rivha.model import Data, History, HistoryLine, PostgresStatus, Replication, Role, State, Upstream, WalEnd
from tests.sim.disk import agree
from tests.sim.server import Instance

T = TypeVar("T")

STARTED_BY_S = 3600.0


class SimPostgres:
    def __init__(self, instance: Instance) -> None:
        self._i = instance
        self._callback: Callable[[], None] | None = None

    # ---- looking

    async def status(self, budget_s: float) -> PostgresStatus:
        i, d = self._i, self._i.disk
        if i.trouble.hung and i.alive:
            await asyncio.sleep(budget_s)
            if i.trouble.hung and i.alive:
                return PostgresStatus(State.SILENT, self._data(), role=i.role, problem="no answer", system_id=d.system_id or None)
        await asyncio.sleep(0.001)
        if not d.system_id:
            return PostgresStatus(State.STOPPED, self._data(), unfinished=d.marker)
        if not i.alive:
            state = State.STOPPED if d.clean else State.CRASHED
            role = Role.STANDBY if d.standby else Role.PRIMARY
            common = {"role": role, "system_id": d.system_id, "timeline": d.timeline, "wal_lsn": d.end, "clean": d.clean}
            return PostgresStatus(state, self._data(), unfinished=d.marker, **common)  # type: ignore[arg-type]
        if i.state is State.STARTING:
            return PostgresStatus(State.STARTING, self._data(), role=i.role)
        return self._running()

    def _running(self) -> PostgresStatus:
        i, d = self._i, self._i.disk
        if i.role is not Role.STANDBY:
            rows = tuple(
                Replication(s.host, None, "replicator", "streaming", "async", 0, d.end, s.disk.end, s.disk.end)
                for s in i.world.receivers_of(i.host)
            )
            role = i.role if i.role is Role.PRIMARY else Role.PRIMARY
            return PostgresStatus(State.RUNNING, role=role, system_id=d.system_id, timeline=d.timeline, wal_lsn=d.end, replication=rows)
        upstream = i.world.address_of(d.upstream) if d.upstream else None
        return PostgresStatus(
            State.RUNNING,
            role=Role.STANDBY,
            system_id=d.system_id,
            timeline=d.timeline,
            receive_lsn=d.end,
            replay_lsn=d.end,
            latest_end_lsn=i.heard_end or None,
            upstream=upstream,
            streaming=bool(i.receiving),
        )

    def _data(self) -> Data:
        if self._i.disk.marker:
            return Data.UNFINISHED
        return Data.VALID if self._i.disk.system_id else Data.EMPTY

    def on_death(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._i.on_death = [self._i.world.as_agent(self._i.host, callback)]

    # ---- verbs

    async def _by_itself(self, work: Coroutine[Any, Any, T]) -> T:
        """What Postgres goes on doing when the agent that asked for it is cancelled or dies."""
        return await asyncio.shield(self._i.world.loop.spawn("", work))

    async def bootstrap(self) -> str:
        i = self._i
        if self._data() is not Data.EMPTY:
            raise CommandFailed("the directory is not empty")
        i.disk.marker = "bootstrap"
        try:
            await asyncio.sleep(0.8)
        except asyncio.CancelledError:
            i.disk.wipe()
            raise
        i.disk.system_id, i.disk.standby, i.disk.marker = i.world.new_system_id(), False, ""
        i.disk.append(i.world.next_ident(), "initdb")
        await self._by_itself(i.start())
        return i.disk.system_id

    async def clone(self, source: Upstream) -> None:
        i = self._i
        if i.alive:
            raise CommandFailed("Postgres runs on it")
        if i.disk.marker:
            i.disk.wipe()
        elif i.disk.system_id:
            raise CommandFailed("the directory is not empty")
        i.disk.marker = "clone"
        other = await self._copying(source, i.trouble.copy_s)
        i.disk.copy_from(other.disk, len(other.disk.wal))
        i.disk.standby, i.disk.clean, i.disk.marker, i.disk.upstream = True, True, "", ""

    async def _copying(self, source: Upstream, seconds: float) -> Instance:
        """A connection to the source for so long; it breaks off when that dies or is cut off."""
        other = self._i.world.instances[source.name]
        generation = other.generation
        for _ in range(5):
            reachable = self._i.world.network.talk(self._i.host, other.host)
            if not reachable or other.generation != generation or other.state is not State.RUNNING or other.trouble.hung:
                raise CommandFailed(f"the connection to {source.name} broke off")
            await asyncio.sleep(seconds / 5)
        return other

    async def start(self, *, primary: bool, upstream: Upstream | None) -> None:
        i = self._i
        if i.disk.marker:
            i.world.broken("a directory with a marker was started", i.host)
            raise CommandFailed(f"an interrupted {i.disk.marker} is not started")
        if i.alive:
            if (i.role is Role.PRIMARY) != primary:
                raise CommandFailed("runs in another role")
            return
        i.disk.standby, i.disk.upstream = not primary, upstream.name if upstream else ""
        i.world.starting(i, primary=primary)
        if not await self._by_itself(i.start()):
            raise CommandFailed("Postgres died while it started")

    async def stop(self, *, fast_s: float, quit_s: float = 1.0) -> None:
        self._i.world.stopping(self._i)
        await self._by_itself(self._i.stop(fast_s, quit_s))

    async def promote(self) -> None:
        self._reachable()
        self._i.world.promoting(self._i)
        if not await self._by_itself(self._i.promote()):
            raise CommandFailed("Postgres died while it was promoted")

    async def follow(self, upstream: Upstream | None) -> None:
        self._reachable()
        await asyncio.sleep(0.01)
        self._reachable()
        self._i.point_at(upstream.name if upstream else "")

    async def freeze(self) -> WalEnd:
        self._reachable()
        await asyncio.sleep(0.01)
        self._reachable()
        self._i.point_at("")
        await asyncio.sleep(0.1)
        self._reachable()
        return WalEnd(self._i.disk.timeline, self._i.disk.end)

    def _reachable(self) -> None:
        if self._i.state is not State.RUNNING or self._i.trouble.hung:
            raise PostgresUnavailable("Postgres does not answer")

    async def compare(self, leader: Upstream) -> tuple[History, str]:
        other = self._i.world.instances[leader.name]
        await asyncio.sleep(0.03)
        if not self._i.world.network.talk(self._i.host, other.host) or not other.writable:
            return History.UNKNOWN, f"{leader.name} does not answer"
        mine, theirs = self._i.disk.wal, other.disk.wal
        return (History.SAME, "a prefix") if agree(mine, theirs) == len(mine) else (History.DIVERGED, "not a prefix")

    async def rewind(self, source: Upstream) -> None:
        i = self._i
        if i.alive:
            raise CommandFailed("Postgres runs on it")
        i.disk.marker = "rewind"
        other = await self._copying(source, i.trouble.rewind_s)
        i.disk.copy_from(other.disk, len(other.disk.wal))
        i.disk.standby, i.disk.clean, i.disk.marker, i.disk.upstream = True, True, "", ""

    async def set_aside(self, why: str) -> str:
        if self._i.alive:
            raise CommandFailed("Postgres runs on it")
        self._i.disk.wipe()
        return f"data.{why}"

    async def checkpoint(self) -> None:
        self._reachable()
        await asyncio.sleep(0.05)

    async def timelines(self) -> tuple[HistoryLine, ...]:
        return self._i.disk.past

    async def restart(self) -> None:
        i = self._i
        standby, upstream = i.role is Role.STANDBY, i.disk.upstream
        await self._by_itself(i.stop(10.0, 1.0))
        i.disk.standby, i.disk.upstream = standby, upstream
        i.world.starting(i, primary=not standby)
        if not await self._by_itself(i.start()):
            raise CommandFailed("Postgres died while it started")

    async def configure(self, dynamic: Mapping[str, object], *, reload: bool) -> None:
        if self._i.disk.full:
            raise CommandFailed("No space left on device")

    async def keep_slots(self, wanted: Set[str], advance: Mapping[str, int]) -> None:
        return

    async def close(self) -> None:
        return
