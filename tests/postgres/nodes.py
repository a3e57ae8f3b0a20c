"""Real Postgres servers for the tests of rivha.postgres: one Node is a Server, its address, and a client's view of it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from rivha.model import Lsn, PostgresStatus, Upstream
from rivha.postgres.process import processes_of
from rivha.postgres.server import Server
from rivha.postgres.settings import Credentials, PostgresSettings
from tests.lab.janitor import forget_shared_memory
from tests.lab.ports import free_ports
from tests.lab.processes import signal_all, sweep

DEADLINE_S = 60.0
LOOK_S = 5.0
DYNAMIC = {"postgresql": {"parameters": {"max_connections": 50, "wal_keep_size": "64MB"}, "use_pg_rewind": True}}


@dataclass
class Node:
    name: str
    server: Server
    settings: PostgresSettings
    deaths: list[float] = field(default_factory=list)

    @property
    def upstream(self) -> Upstream:
        return Upstream(self.name, "127.0.0.1", self.settings.port)

    @property
    def data_dir(self) -> Path:
        return Path(self.settings.data_dir)

    async def status(self) -> PostgresStatus:
        return await self.server.status(LOOK_S)

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            host="127.0.0.1", port=self.settings.port, user="postgres", password="secret's", database="postgres", timeout=10, ssl=False
        )

    async def sql(self, statement: str, *args: object) -> Any:
        """One value, over a fresh connection."""
        connection = await self._connect()
        try:
            return await connection.fetchval(statement, *args, timeout=DEADLINE_S)
        finally:
            await connection.close(timeout=10)

    async def streams(self) -> bool:
        return (await self.status()).streaming

    async def commit(self, table: str) -> None:
        await self.sql(f"CREATE TABLE {table} AS SELECT 1 AS x")

    async def has(self, table: str) -> bool:
        return bool(await self.sql("SELECT to_regclass($1) IS NOT NULL", table))

    async def end_of_wal(self) -> Lsn:
        return int(await self.sql("SELECT (pg_current_wal_lsn() - '0/0')::bigint"))

    async def has_replayed(self, upto: Lsn) -> bool:
        return bool(await self.sql("SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint >= $1", upto))

    async def pause_replay(self) -> None:
        await self.sql("SELECT pg_wal_replay_pause()")

    async def hold_promotion(self) -> None:
        """The startup process, which ends the recovery, stands still."""
        os.kill(await self.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'"), signal.SIGSTOP)

    async def is_being_promoted(self) -> bool:
        return (self.data_dir / "promote").exists()  # the startup process takes it away

    def let_promotion_end(self) -> None:
        self.go_on()

    async def session(self) -> Session:
        return Session(self, await self._connect())

    def again(self) -> Node:
        """The same node under a new agent, which knows nothing of the old one."""
        node = Node(self.name, Server(self.settings, time.monotonic), self.settings)
        node.server.on_death(lambda: node.deaths.append(time.monotonic()))
        return node

    def kill_postmaster(self) -> int:
        pid = self._postmaster()
        os.kill(pid, signal.SIGKILL)
        return pid

    def leave_children(self) -> None:
        """All stand still, then the postmaster is killed: SIGKILL is heard all the same."""
        self.hang()
        self.kill_postmaster()

    def hang(self) -> None:
        """The postmaster first: whom it starts while the others are told would go on."""
        signal_all([self._postmaster(), *processes_of(self.settings.data_dir)], signal.SIGSTOP)

    def go_on(self) -> None:
        signal_all(processes_of(self.settings.data_dir), signal.SIGCONT)

    async def stop_reporting(self, standby: Node) -> None:
        """With a sender that never gives it up, the standby's machine stands still."""
        await self.sql("ALTER SYSTEM SET wal_sender_timeout = 0")
        await self.sql("SELECT pg_reload_conf()")

        async def taken() -> bool:
            return bool(await self.sql("SHOW wal_sender_timeout") == "0")

        await eventually(taken)
        standby.hang()

    def _postmaster(self) -> int:
        return int((self.data_dir / "postmaster.pid").read_text().split()[0])

    def mark(self, what: str) -> None:
        """As if `what` had been interrupted."""
        (self.data_dir / f"rivha.unfinished.{what}").touch()

    def lose_directory(self) -> None:
        shutil.rmtree(self.data_dir)

    @property
    def runs(self) -> bool:
        return bool(processes_of(self.settings.data_dir))

    @property
    def copying(self) -> bool:
        return (self.data_dir / ".rivha-new" / "base").exists()

    @property
    def aside(self) -> int:
        """How many directories were moved out of the way."""
        return len([p for p in self.data_dir.parent.iterdir() if re.match(rf"{self.name}\.[a-z]+\.", p.name)])

    async def end(self) -> None:
        await self.server.stop(fast_s=0, quit_s=0)
        await self.server.close()
        assert processes_of(self.settings.data_dir) == []


class Session:
    """One client's connection, whose commits may wait for standbys."""

    def __init__(self, node: Node, connection: asyncpg.Connection) -> None:
        self._node, self._connection = node, connection
        self._warnings: list[str] = []
        connection.add_log_listener(lambda _, message: self._warnings.append(f"{message} {message.detail}"))
        self._pid = connection.get_server_pid()

    async def commit(self, table: str) -> str:
        """ "acknowledged", "only local" (with PostgreSQL's warning), or "broken"."""
        try:
            await self._connection.execute(f"CREATE TABLE {table} AS SELECT 1 AS x", timeout=DEADLINE_S)
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError, OSError):
            return "broken"
        only_local = any("might not have been replicated" in warning for warning in self._warnings)
        await self._connection.close(timeout=10)
        return "only local" if only_local else "acknowledged"

    async def execute(self, statement: str) -> None:
        await self._connection.execute(statement, timeout=DEADLINE_S)

    async def close(self) -> None:
        await self._connection.close(timeout=10)

    async def waits(self) -> bool:
        return await self._node.sql("SELECT wait_event FROM pg_stat_activity WHERE pid = $1", self._pid) == "SyncRep"

    async def cancel(self) -> None:
        await self._node.sql("SELECT pg_cancel_backend($1)", self._pid)


class Nodes:
    """Makes nodes of one version below one folder, and ends them all."""

    def __init__(self, bin_dir: Path, folder: Path) -> None:
        self.bin_dir = bin_dir
        self._folder = folder
        self.made: list[Node] = []

    def node(self, name: str, **settings: Any) -> Node:
        port = free_ports(1)[0]
        given: dict[str, Any] = {
            "listen": f"127.0.0.1:{port}",
            "connect_address": f"127.0.0.1:{port}",
            "bin_dir": str(self.bin_dir),
            "pgpass": str(self._folder / f"{name}.pgpass"),
            "superuser": Credentials("postgres", "secret's"),
            "replication": Credentials("replicator", "re:pl\\"),
            "rewind": Credentials("rewinder", "rew"),
            "parameters": {"unix_socket_directories": str(self._folder), "fsync": "off"},
            **settings,
        }
        made = PostgresSettings(name=name, scope="tests", data_dir=str(self._folder / name), **given)
        node = Node(name, Server(made, time.monotonic), made)
        node.server.on_death(lambda: node.deaths.append(time.monotonic()))
        self.made.append(node)
        return node

    async def primary(self, name: str = "a", **settings: Any) -> Node:
        node = self.node(name, **settings)
        await node.server.configure(DYNAMIC, reload=False)
        await node.server.bootstrap()
        await node.server.configure(DYNAMIC, reload=True)
        return node

    async def standby(self, of: Node, name: str = "b", **settings: Any) -> Node:
        """Cloned, started, streaming."""
        node = self.node(name, **settings)
        await node.server.configure(DYNAMIC, reload=False)
        await slots(of, name)
        await node.server.clone(of.upstream)
        await node.server.start(primary=False, upstream=of.upstream)
        await eventually(node.streams)
        return node

    async def end(self) -> None:
        """Whatever the test did: no process is left, and no System V segment of a postmaster that was killed."""
        try:
            for node in self.made:
                await node.end()
            if cancelled := {task for task in asyncio.all_tasks() if task.cancelling()}:  # a program that is killed takes its time to die
                await asyncio.wait(cancelled, timeout=DEADLINE_S)
        finally:
            await sweep(self._folder, programs=self.bin_dir)
            for pid_file in self._folder.glob("*/postmaster.pid"):
                forget_shared_memory(pid_file)


async def slots(node: Any, *wanted: str) -> None:
    await node.status()
    await node.server.keep_slots(set(wanted), {})


async def eventually(condition: Callable[[], Awaitable[Any]], within_s: float = DEADLINE_S) -> Any:
    """The first true answer. Fails, showing the last one, when there is none in time."""
    clock = asyncio.get_running_loop().time  # so that a simulated loop may run fast
    end = clock() + within_s
    while not (answer := await condition()):
        assert clock() < end, f"{condition} did not come true; last: {answer!r}"
        await asyncio.sleep(0.02)
    return answer


async def caught_up(standby: Any, primary: Any) -> None:
    """The standby has replayed what the primary has written by now."""
    target = await primary.end_of_wal()
    await eventually(lambda: standby.has_replayed(target))


async def commit(primary: Any, table: str) -> None:
    await primary.commit(table)


async def has(node: Any, table: str) -> bool:
    return bool(await node.has(table))


async def take_over(standby: Any, *followers: str) -> None:
    """What the agent does of a failover on the winner."""
    await standby.server.freeze()
    await standby.server.promote()
    await slots(standby, *followers)
    await standby.server.checkpoint()


@asynccontextmanager
async def stopped(node: Node, backend_type: str, application_name: str = "") -> AsyncIterator[None]:
    """One process of a server stands still."""
    pid = await node.sql(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = $1 AND ($2 = '' OR application_name = $2)", backend_type, application_name
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def stays_undone(work: asyncio.Task[Any]) -> None:
    """It cannot be done, however long one waits; a mistake would show within milliseconds."""
    done, _ = await asyncio.wait([work], timeout=1.0)
    assert not done
