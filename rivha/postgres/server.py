"""`Server`: rivha.postgres.base.Postgres on a real PostgreSQL. It wires the parts, and keeps the verbs from running into each other.

It must never decide policy, never start a directory that carries a marker, and never touch one that it does not understand. Called by the
agent's tick (`status`) and its job slot (all other verbs, one at a time).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set

from rivha.errors import CommandFailed, NoSpace, PostgresUnavailable
from rivha.model import Data, History, HistoryLine, PostgresStatus, Role, State, Upstream, WalEnd
from rivha.postgres import bootstrap, clone, compare, rewind, running, slots, stopping, synchronous
from rivha.postgres.callbacks import Callbacks
from rivha.postgres.parts import Parts
from rivha.postgres.process import processes_of
from rivha.postgres.settings import PostgresSettings
from rivha.postgres.starting import start
from rivha.postgres.status import Watcher
from rivha.postgres.validate import validate

RESTART_FAST_S = 60.0  # a restart's fast stop; later it is immediate, and crash recovery follows


class Server:
    def __init__(self, settings: PostgresSettings, clock: Callable[[], float]) -> None:
        self._parts = Parts.of(settings, clock)
        self._watcher = Watcher(self._parts)
        self.callbacks = Callbacks(settings)
        self._validated: Mapping[str, str] | None = None

    async def check_binaries(self) -> int:
        """The major version of PostgreSQL. Raises CannotRun when it cannot work with this data directory, saying why."""
        return await self._parts.programs.check()

    def reload_settings(self, settings: PostgresSettings) -> None:
        """The node's file says something new. Nothing is written before `configure`; the name, scope and data directory stay."""
        self._parts.link.close()
        self._parts = self._parts.with_settings(settings)
        self._watcher.parts = self._parts
        self.callbacks.settings = settings

    # ---- looking

    async def status(self, budget_s: float) -> PostgresStatus:
        status = await self._watcher.look(budget_s)
        if status.state is State.RUNNING and self._watcher.answered:
            self._watcher.keep_ready()
        return status

    def on_death(self, callback: Callable[[], None]) -> None:
        self._parts.postmaster.on_death(callback)

    async def is_left(self) -> bool:
        return self._parts.postmaster.alive or bool(await asyncio.to_thread(processes_of, self._parts.settings.data_dir))

    async def compare(self, leader: Upstream) -> tuple[History, str]:
        return await compare.compare(self._parts, leader)

    async def timelines(self) -> tuple[HistoryLine, ...]:
        last = self._watcher.last
        return await asyncio.to_thread(compare.local_history, self._parts, (last.timeline if last else None) or 0)

    # ---- making data

    async def bootstrap(self) -> str:
        system_id = await bootstrap.bootstrap(self._parts)
        self._watcher.look_for_pending = True
        return system_id

    async def clone(self, source: Upstream) -> None:
        await self._refuse_while_running("clone")
        await clone.clone(self._parts, source)

    async def rewind(self, source: Upstream) -> None:
        await self._refuse_while_running("rewind")
        try:
            await rewind.rewind(self._parts, source)
        except CommandFailed as failed:
            if await asyncio.to_thread(self._parts.data.has_no_room):
                full = f"the disk of {self._parts.settings.data_dir} is full or read-only; {failed.what}"
                raise NoSpace(full, failed.output, failed.code) from failed
            raise

    async def set_aside(self, why: str) -> str:
        await self._refuse_while_running("move away")
        await self._parts.postmaster.kill_all()
        return await asyncio.to_thread(self._parts.data.set_aside, why)

    async def _refuse_while_running(self, what: str) -> None:
        found = await asyncio.to_thread(self._parts.postmaster.look)
        if found is not None:
            raise CommandFailed(f"cannot {what} {self._parts.settings.data_dir}: Postgres (pid {found.pid}) is running on it")

    # ---- starting and stopping

    async def start(self, *, primary: bool, upstream: Upstream | None, names: str | None = None) -> None:
        synchronous.checked(names or "")  # Postgres would refuse to start with them
        found = await asyncio.to_thread(self._parts.postmaster.look)
        if found is not None and await self._is_started(primary=primary, upstream=upstream):
            return
        self._watcher.dropped()
        await start(self._parts, primary=primary, upstream=upstream, names=names)

    async def _is_started(self, *, primary: bool, upstream: Upstream | None) -> bool:
        """False when the postmaster that was seen turned out to be dying."""
        try:
            role = await running.role_when_it_answers(self._parts)
        except PostgresUnavailable:
            if await asyncio.to_thread(self._parts.postmaster.look) is None:
                return False
            raise
        if (role is Role.PRIMARY) != primary:
            raise CommandFailed(f"Postgres runs already, but as {role}")
        if not primary:
            await self.follow(upstream)
        return True

    async def stop(self, *, fast_s: float, quit_s: float = 1.0, linger_s: float | None = None) -> None:
        self._watcher.dropped()
        self._parts.link.close()
        await stopping.stop(self._parts, fast_s=fast_s, quit_s=quit_s, linger_s=linger_s)

    async def restart(self) -> None:
        primary = await running.role_when_it_answers(self._parts) is Role.PRIMARY
        await self._learn_names()
        upstream = self._parts.conf.upstream
        await self.stop(fast_s=RESTART_FAST_S)
        await start(self._parts, primary=primary, upstream=upstream, keep_frozen=True)

    # ---- while it runs

    async def promote(self) -> None:
        await running.promote(self._parts)

    async def follow(self, upstream: Upstream | None) -> None:
        await running.follow(self._parts, upstream)

    async def freeze(self) -> WalEnd:
        return await running.freeze(self._parts, self._watcher.known_timeline)

    async def synchronize(self, names: str, *, surely: bool = False) -> None:
        before, self._watcher.confirmed = self._watcher.confirmed, None
        pid = self._parts.postmaster.pid
        waiting = before is not None and before[0] == pid and synchronous.checked(before[1]) is not None
        everywhere = await synchronous.synchronize(self._parts, names, waiting=waiting, surely=surely)
        if everywhere and self._parts.postmaster.pid is not None:
            self._watcher.confirmed = (self._parts.postmaster.pid, names)

    async def checkpoint(self) -> None:
        await running.checkpoint(self._parts)

    def assume(self, dynamic: Mapping[str, object]) -> None:
        self._parts.conf.dynamic = dict(dynamic)

    async def configure(self, dynamic: Mapping[str, object], *, reload: bool) -> None:
        self._parts.conf.dynamic = dict(dynamic)
        contents = await asyncio.to_thread(self._parts.data.look)
        if contents.data is not Data.VALID:
            return
        await running.refuse_other_version(self._parts)
        await self._validate()
        await self._learn_names()
        changed = await asyncio.to_thread(self._parts.conf.write, standby=contents.standby)
        running_one = await asyncio.to_thread(self._parts.postmaster.look)
        if reload and changed and running_one is not None:
            await running.reload(self._parts)
        self._watcher.look_for_pending = True

    async def _learn_names(self) -> None:
        """Of a Postgres whose files Rivha never wrote: what is in force there must not be lost by writing them."""
        conf = self._parts.conf
        await asyncio.to_thread(conf.read_back)
        if conf.names is None and await asyncio.to_thread(self._parts.postmaster.look) is not None:
            found = await synchronous.in_force(self._parts)
            conf.names = found if conf.names is None else conf.names

    async def _validate(self) -> None:
        """Once for every new set of parameters."""
        wanted = self._parts.conf.parameters()
        if wanted != self._validated:
            await validate(self._parts)
            self._validated = wanted

    async def keep_slots(self, wanted: Set[str], advance: Mapping[str, int]) -> None:
        last = self._watcher.last
        permanent, _ = slots.operators_slots(self._parts.conf.dynamic)
        if last is None or last.state is not State.RUNNING or slots.in_order(last, wanted | permanent, advance):
            return
        await slots.keep(self._parts, wanted, advance)

    async def close(self) -> None:
        self._watcher.close()
        self._parts.link.close()
        self._parts.postmaster.unwatch()
