"""A real HAProxy on haproxy/haproxy.cfg's own text, byte for byte: the addresses come in through its environment."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.lab import binaries
from tests.lab.ports import LOOPBACK, free_ports
from tests.lab.processes import Process, account, give_away

CONFIG = Path(__file__).resolve().parents[2] / "haproxy" / "haproxy.cfg"
SERVERS = 3  # the file's
NOBODY = (1, 1)  # ports where nothing listens, for servers that this lab does not have


@dataclass(frozen=True, slots=True)
class Backend:
    """What HAProxy needs to know about a node."""

    postgres_port: int
    rest_port: int


class Proxy:
    def __init__(self, root: Path, session: aiohttp.ClientSession, backends: Sequence[Backend], *, primary_port: int | None = None) -> None:
        if len(backends) > SERVERS:
            raise ValueError(f"haproxy.cfg is for {SERVERS} nodes, not {len(backends)}")
        self.folder = root / "haproxy"
        self.folder.mkdir(mode=0o755)
        give_away(self.folder)
        (self.primary_port, self.replica_port, self.sync_port, self.async_port, self.stats_port) = free_ports(5)
        self.primary_port = primary_port or self.primary_port
        self.stats_host = LOOPBACK
        self._session = session
        argv = [str(binaries.haproxy()), "-db", "-f", str(CONFIG)]
        self.process = Process("haproxy", argv, folder=self.folder, env=self._addresses(backends) | binaries.haproxy_environment())

    def _addresses(self, backends: Sequence[Backend]) -> dict[str, str]:
        who = account()
        names = {"RIVHA_PROXY_USER": who.name, "RIVHA_PROXY_GROUP": who.group}
        for number in range(1, SERVERS + 1):
            there = number <= len(backends)
            postgres, rest = (backends[number - 1].postgres_port, backends[number - 1].rest_port) if there else NOBODY
            names[f"RIVHA_DB{number}"] = f"{LOOPBACK}:{postgres}"
            names[f"RIVHA_DB{number}_HOST"] = LOOPBACK
            names[f"RIVHA_DB{number}_REST"] = str(rest)
        ports = {"PRIMARY": self.primary_port, "REPLICA": self.replica_port, "SYNC": self.sync_port}
        ports |= {"ASYNC": self.async_port, "STATS": self.stats_port}
        return names | {f"RIVHA_{section}_BIND": f"{LOOPBACK}:{port}" for section, port in ports.items()}

    async def start(self, deadline_s: float = 15.0) -> None:
        """Returns when it accepts connections."""
        self.process.start()
        until = time.monotonic() + deadline_s
        while not await self.up():
            if not self.process.alive or time.monotonic() > until:
                raise RuntimeError(f"HAProxy does not come up:\n{self.process.tail()}")
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        await self.process.stop(5.0)

    async def up(self) -> list[tuple[str, str]]:
        """(section, server) of each server that HAProxy would route to now, and ("stats", "FRONTEND"); empty when it does not answer."""
        try:
            url = f"http://{self.stats_host}:{self.stats_port}/;csv"
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return []
        rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
        return [(row["pxname"], row["svname"]) for row in rows if row["svname"] != "BACKEND" and row["status"].startswith(("UP", "OPEN"))]

    async def routed(self, section: str) -> list[str]:
        """The servers that a new client of `section` may be sent to: ["db1"]."""
        return [server for where, server in await self.up() if where == section and server != "FRONTEND"]
