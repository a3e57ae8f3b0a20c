"""Real Postgres servers for the tests of rivha.postgres: one Node is a Server, its address, and a client's view of it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from rivha.model import PostgresStatus, Upstream
from rivha.postgres.process import processes_of
from rivha.postgres.server import Server
from rivha.postgres.settings import Credentials, PostgresSettings
from tests.lab.ports import free_ports

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

    async def sql(self, statement: str, *args: object) -> Any:
        """One value, over a fresh connection."""
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.settings.port, user="postgres", password="secret's", database="postgres", timeout=10, ssl=False
        )
        try:
            return await connection.fetchval(statement, *args, timeout=DEADLINE_S)
        finally:
            await connection.close(timeout=10)

    async def streams(self) -> bool:
        return (await self.status()).streaming

    def again(self) -> Node:
        """The same node under a new agent, which knows nothing of the old one."""
        return Node(self.name, Server(self.settings, time.monotonic), self.settings)

    def kill_postmaster(self) -> int:
        pid = int((self.data_dir / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        return pid

    async def end(self) -> None:
        await self.server.stop(fast_s=0, quit_s=0)
        await self.server.close()
        assert processes_of(self.settings.data_dir) == []


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
        for node in self.made:
            await node.end()


async def slots(node: Node, *wanted: str) -> None:
    await node.status()
    await node.server.keep_slots(set(wanted), {})


async def eventually(condition: Callable[[], Awaitable[Any]], within_s: float = DEADLINE_S) -> Any:
    """The first true answer. Fails, showing the last one, when there is none in time."""
    end = time.monotonic() + within_s
    while not (answer := await condition()):
        assert time.monotonic() < end, f"{condition} did not come true; last: {answer!r}"
        await asyncio.sleep(0.02)
    return answer


async def caught_up(standby: Node, primary: Node) -> None:
    """The standby has replayed what the primary has written by now."""
    target = await primary.sql("SELECT pg_current_wal_lsn()::text")

    async def there() -> bool:
        return bool(await standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{target}'::pg_lsn"))

    await eventually(there)


async def commit(primary: Node, table: str) -> None:
    await primary.sql(f"CREATE TABLE {table} AS SELECT 1 AS x")


async def has(node: Node, table: str) -> bool:
    return await node.sql("SELECT to_regclass($1) IS NOT NULL", table)


async def take_over(standby: Node, *followers: str) -> None:
    """What the agent does of a failover on the winner."""
    await standby.server.freeze()
    await standby.server.promote()
    await slots(standby, *followers)
    await standby.server.checkpoint()
