"""One database node of a lab: its configuration in Patroni's format, its agent, its Postgres, and the ways to hurt them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import yaml

from tests.lab.ports import LOOPBACK, free_ports
from tests.lab.processes import Process, give_away, guards_below, signal_all, sweep, working_below

# What asyncpg raises when the other side is gone or has said no; InternalClientError when it went in the middle of an exchange.
SQL_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
REPOSITORY = Path(__file__).resolve().parents[2]
ASK_S = 5.0


@dataclass(frozen=True, slots=True)
class Passwords:
    """Random for each lab, the same on all its nodes."""

    superuser: str
    replication: str
    rewind: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a lab asks of its cluster beyond the defaults: `dynamic` and `parameters` go to bootstrap.dcs, `local` over each node's file."""

    scope: str = "lab"
    dynamic: Mapping[str, object] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    tags: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # node name -> its tags
    local: Mapping[str, object] = field(default_factory=dict)
    module: str = "rivha"  # what is run as the agent: tests.lab.watched catches blocking calls


# Small, because three of them share a developer's machine. fsync stays on: a lab shall cost what the real thing costs.
PARAMETERS = {
    "shared_buffers": "16MB",
    "max_connections": 50,
    "max_wal_senders": 10,
    "max_replication_slots": 10,
    "wal_keep_size": "128MB",
    "wal_level": "replica",
    "hot_standby": "on",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node lives, and how the lab gets at it past whatever it does to the cluster's own network."""

    address: str = LOOPBACK  # by which HAProxy and the other nodes know it
    network: str = f"{LOOPBACK}/32"  # where they come from
    rest: str = LOOPBACK  # where the lab asks the agent, which listens there too
    sql: str = LOOPBACK  # where the lab asks Postgres; a directory: its Unix socket
    postgres_port: int = 0
    rest_port: int = 0

    @property
    def rest_listen(self) -> str:
        return self.address if self.rest == self.address else "0.0.0.0"


class Node:
    def __init__(
        self,
        root: Path,
        session: aiohttp.ClientSession,
        name: str,
        *,
        etcd: str,
        bin_dir: Path,
        passwords: Passwords,
        wishes: Wishes,
        place: Place | None = None,
    ) -> None:
        self.name = name
        self.folder = root / name
        self.folder.mkdir(mode=0o755, exist_ok=True)
        give_away(self.folder)
        self.data = self.folder / "data"
        self.place = place or Place(LOOPBACK, f"{LOOPBACK}/32", LOOPBACK, LOOPBACK, *free_ports(2))
        self.postgres_port, self.rest_port = self.place.postgres_port, self.place.rest_port
        self.bin_dir = bin_dir
        self.etcd = etcd
        self.passwords = passwords
        self.wishes = wishes
        self._session = session
        self.config = self.folder / "rivha.yml"
        self.agent = self._agent_process()
        self.write_config()

    def _agent_process(self) -> Process:
        # -X faulthandler: SIGABRT shows where a stuck agent stands.
        argv = [sys.executable, "-X", "faulthandler", "-m", self.wishes.module, str(self.config)]
        return Process("agent", argv, folder=self.folder, env={"PYTHONPATH": str(REPOSITORY)})

    # ---- configuration

    def write_config(self, **changes: object) -> None:
        """The node's YAML file; `changes` replace whole top-level sections."""
        text = yaml.safe_dump(self._settings() | dict(self.wishes.local) | changes, sort_keys=False)
        self.config.touch(mode=0o600)
        give_away(self.config)
        self.config.write_text(text)

    def _settings(self) -> dict[str, object]:
        return {
            "scope": self.wishes.scope,
            "name": self.name,
            "log": {"type": "json", "level": "INFO"},
            "restapi": {
                "listen": f"{self.place.rest_listen}:{self.rest_port}",
                "connect_address": f"{self.place.address}:{self.rest_port}",
            },
            "etcd3": {"hosts": self.etcd},
            "bootstrap": {
                "dcs": self._dynamic(),
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
                "pg_hba": [
                    "local all all scram-sha-256",
                    f"host all all {self.place.network} scram-sha-256",
                    f"host replication replicator {self.place.network} scram-sha-256",
                ],
            },
            "postgresql": {
                "listen": f"{self.place.address}:{self.postgres_port}",
                "connect_address": f"{self.place.address}:{self.postgres_port}",
                "data_dir": str(self.data),
                "bin_dir": str(self.bin_dir),
                "pgpass": str(self.folder / "pgpass"),
                "authentication": {
                    "superuser": {"username": "postgres", "password": self.passwords.superuser},
                    "replication": {"username": "replicator", "password": self.passwords.replication},
                    "rewind": {"username": "rewinder", "password": self.passwords.rewind},
                },
                "parameters": {"unix_socket_directories": str(self.folder)},
            },
            "tags": dict(self.wishes.tags.get(self.name, {})),
        }

    def _dynamic(self) -> dict[str, object]:
        parameters = PARAMETERS | dict(self.wishes.parameters)
        dynamic: dict[str, object] = {"ttl": 10, "loop_wait": 1, "retry_timeout": 3}
        return dynamic | {"postgresql": {"use_pg_rewind": True, "parameters": parameters}} | dict(self.wishes.dynamic)

    # ---- the agent

    def start(self) -> None:
        self.agent.start()

    async def stop(self, deadline_s: float = 60.0) -> int:
        """SIGTERM to the agent, which stops its Postgres or hands over; its exit code. Raises TimeoutError."""
        self.agent.signal(signal.SIGTERM)
        return await self.agent.ended(deadline_s)

    async def kill_agent(self) -> None:
        """kill -9; Postgres goes on running (REFERENCE 1.18)."""
        await self.agent.kill()

    # ---- its Postgres, seen by the kernel

    def postmaster(self) -> int | None:
        """The PID in postmaster.pid, if such a process works in our data directory (a stale file names anybody)."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        return pid if pid in self.processes() else None

    def processes(self) -> list[int]:
        """The postmaster and its children."""
        return working_below(self.data, programs=self.bin_dir)

    def guard(self) -> int | None:
        """The PID of the process that acts for a frozen or killed agent."""
        return next(iter(guards_below(self.folder)), None)

    def kill_postmaster(self) -> int:
        """kill -9 of the postmaster alone, as the OOM killer or a bug does it; its children notice and end by themselves. Its PID."""
        pid = self.postmaster()
        if pid is None:
            raise RuntimeError(f"{self.name} has no postmaster to kill")
        os.kill(pid, signal.SIGKILL)
        return pid

    async def kill_postgres(self) -> None:
        """kill -9 of the postmaster and all its children."""
        await sweep(self.data, programs=self.bin_dir)

    async def kill_everything(self) -> None:
        """What the loss of the host does: agent, guard and Postgres die together, nothing says goodbye."""
        self.agent.freeze()  # so that it neither sees Postgres die nor starts another
        signal_all(guards_below(self.folder), signal.SIGKILL)
        signal_all(working_below(self.folder, programs=self.bin_dir), signal.SIGKILL)
        await self.agent.kill()
        await sweep(self.folder, programs=self.bin_dir)

    def freeze_everything(self) -> None:
        self.agent.freeze()
        signal_all(guards_below(self.folder) + self.processes(), signal.SIGSTOP)

    def thaw_everything(self) -> None:
        signal_all(self.processes() + guards_below(self.folder), signal.SIGCONT)
        self.agent.thaw()

    def freeze_postgres(self) -> None:
        signal_all(self.processes(), signal.SIGSTOP)

    def thaw_postgres(self) -> None:
        signal_all(self.processes(), signal.SIGCONT)

    # ---- what it says

    async def ask(self, method: str, path: str, body: object = None, timeout_s: float = ASK_S) -> tuple[int, str]:
        """(status, text) of its REST API; (0, why) when it does not answer."""
        url = f"http://{self.place.rest}:{self.rest_port}{path}"
        data = None if body is None else json.dumps(body)
        try:
            async with self._session.request(method, url, data=data, timeout=aiohttp.ClientTimeout(total=timeout_s)) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError) as silent:
            return 0, repr(silent)

    async def status(self) -> dict[str, Any]:
        """`GET /patroni`; {"problem": ...} when it does not answer, or not with JSON."""
        code, text = await self.ask("GET", "/patroni")
        try:
            said: dict[str, Any] = json.loads(text)
        except ValueError:
            return {"problem": f"{code} {text}"}
        return said

    async def healthy(self, path: str) -> bool:
        return (await self.ask("GET", path))[0] == 200

    def log_records(self) -> list[dict[str, Any]]:
        """The agent's JSON log; lines that are no JSON (a traceback of the interpreter) come as {"text": line}."""
        records = []
        for line in self.agent.log.read_text(errors="replace").splitlines() if self.agent.log.exists() else []:
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            records.append(record if isinstance(record, dict) else {"text": line})
        return records

    # ---- SQL, past HAProxy

    async def connect(self, *, database: str = "postgres", timeout_s: float = ASK_S) -> asyncpg.Connection[asyncpg.Record]:
        """As superuser. The caller closes it."""
        return await asyncpg.connect(
            host=self.place.sql, port=self.postgres_port, user="postgres", password=self.passwords.superuser, database=database,
            timeout=timeout_s,
        )  # fmt: skip

    async def fetch(self, sql: str, *arguments: object, timeout_s: float = ASK_S) -> list[asyncpg.Record]:
        """The rows of one statement, over a connection of its own. Raises OSError, TimeoutError or asyncpg's errors."""
        connection = await self.connect(timeout_s=timeout_s)
        try:
            return await connection.fetch(sql, *arguments, timeout=timeout_s)
        finally:
            await close(connection)


async def close(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Politely for a second, else at once: the other side may be frozen."""
    try:
        await connection.close(timeout=1.0)
    except SQL_ERRORS:
        connection.terminate()


def now() -> float:
    """The one clock of the lab: it is the same in every process of this machine."""
    return time.monotonic()
