"""What runs on the hosts of the fault lab: a database with its agent, the three etcds, HAProxy, each at its usual ports."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.faults import world
from tests.faults.host import Host, Service
from tests.lab import binaries
from tests.lab.etcd import Etcd
from tests.lab.node import REPOSITORY, Node, Place
from tests.lab.processes import POLL_S, Process, account, signal_all, working_below
from tests.lab.proxy import CONFIG, Proxy

POSTGRES, REST, ETCD, PEER, STATS = 5432, 8008, 2379, 2380, 7000
NETWORK = f"{world.WIRE_NET}.0/24"
DIE_S = 20.0
ANSWER_S = 1.5  # of one etcd server, before the next is asked


class Database(Node):
    """A node whose agent runs on a host, watched by the host's first process as by systemd."""

    def __init__(self, host: Host, root: Path, session: aiohttp.ClientSession, **rest: Any) -> None:
        self.host = host
        place = Place(host.address, NETWORK, host.admin, str(root / host.name), POSTGRES, REST)
        super().__init__(root, session, host.name, place=place, **rest)

    def _agent_process(self) -> Process:
        argv = [sys.executable, "-X", "faulthandler", "-m", self.wishes.module, str(self.config)]
        return self.host.service("agent", argv, env={"PYTHONPATH": str(REPOSITORY)})

    @property
    def service(self) -> Service:
        assert isinstance(self.agent, Service)
        return self.agent

    def postmaster(self) -> int | None:
        """Its PID as the lab sees it: postmaster.pid holds the one inside the host."""
        pids = self.processes()
        return next((pid for pid in pids if _parent(pid) not in pids), None)

    async def kill_everything(self) -> None:
        await self.host.power_off()

    async def kill_all_programs(self) -> None:
        """kill -9 of agent, guard and Postgres: none sees another die. The host lives, and its kernel resets their connections."""
        signal_all(working_below(self.folder), signal.SIGSTOP)
        until = time.monotonic() + DIE_S
        while pids := working_below(self.folder):
            if time.monotonic() > until:
                raise TimeoutError(f"processes {pids} of {self.name} do not die")
            signal_all(pids, signal.SIGKILL)
            await asyncio.sleep(POLL_S)
        await self.service.ended(DIE_S)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


class Etcds(Etcd):
    """Three servers; whoever answers is asked."""

    def __init__(self, hosts: Sequence[Host], session: aiohttp.ClientSession, version: str = "") -> None:
        self._session = session
        self.program = binaries.etcd(version)
        self.members = list(hosts)
        self.url = ""
        cluster = ",".join(f"{host.name}=http://{host.address}:{PEER}" for host in hosts)
        for host in hosts:
            # fmt: off
            host.service("etcd", [
                str(self.program), "--name", host.name, "--data-dir", str(host.folder / "data"),
                "--listen-client-urls", f"http://0.0.0.0:{ETCD}", "--advertise-client-urls", f"http://{host.address}:{ETCD}",
                "--listen-peer-urls", f"http://{host.address}:{PEER}", "--initial-advertise-peer-urls", f"http://{host.address}:{PEER}",
                "--initial-cluster", cluster, "--logger", "zap", "--log-level", "warn",
            ])
            # fmt: on

    @property
    def hosts(self) -> str:
        return ",".join(f"{host.address}:{ETCD}" for host in self.members)

    async def start(self, deadline_s: float = 30.0) -> None:
        """Returns when a majority serves linearizable reads."""
        for host in self.members:
            if not host.services["etcd"].alive:
                host.services["etcd"].start()
        until = time.monotonic() + deadline_s
        while True:
            try:
                await self.get("health-of-the-lab")
            except (aiohttp.ClientError, TimeoutError):
                if time.monotonic() > until:
                    raise RuntimeError("\n".join(host.services["etcd"].tail() for host in self.members)) from None
                await asyncio.sleep(0.05)
            else:
                return

    async def _ask(self, path: str, body: dict[str, object]) -> dict[str, object]:
        failure: Exception = TimeoutError("no etcd host is on")
        for host in self.members:
            self.url = f"http://{host.admin}:{ETCD}"
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await super()._ask(path, body)
            except (aiohttp.ClientError, TimeoutError) as silent:
                failure = silent
        raise failure

    async def leader(self) -> Host:
        """Raises TimeoutError when nobody leads. Each is asked who it is and whom it follows."""
        for host in self.members:
            self.url = f"http://{host.admin}:{ETCD}"
            try:
                async with asyncio.timeout(ANSWER_S):
                    said: dict[str, Any] = await super()._ask("/v3/maintenance/status", {})
            except (aiohttp.ClientError, TimeoutError):
                continue
            if said.get("leader") == said["header"]["member_id"]:
                return host
        raise TimeoutError("no etcd leads")


class SiteProxy(Proxy):
    """HAProxy on a host of its own, at its usual ports, with the repository's file as it is."""

    def __init__(self, host: Host, session: aiohttp.ClientSession, nodes: Sequence[Node]) -> None:
        self.primary_port, self.stats_host, self.stats_port = POSTGRES, host.admin, STATS
        self._session = session
        names = {"RIVHA_STATS_BIND": f"{host.admin}:{STATS}", "RIVHA_PROXY_USER": account().name, "RIVHA_PROXY_GROUP": account().group}
        for number, node in enumerate(nodes, 1):
            names[f"RIVHA_DB{number}"] = f"{node.place.address}:{POSTGRES}"
            names[f"RIVHA_DB{number}_HOST"] = node.place.address
            names[f"RIVHA_DB{number}_REST"] = str(REST)
        argv = [str(binaries.haproxy()), "-db", "-f", str(CONFIG)]
        self.process = host.service("haproxy", argv, env=names | binaries.haproxy_environment())
