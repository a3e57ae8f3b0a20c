"""`Lab`: a whole cluster on loopback in one temporary directory - etcd, nodes with their agents and Postgres, HAProxy - and its end."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.lab import binaries
from tests.lab.etcd import Etcd
from tests.lab.janitor import Janitor
from tests.lab.node import SQL_ERRORS, Node, Passwords, Wishes
from tests.lab.processes import Process, give_away
from tests.lab.proxy import Backend, Proxy
from tests.lab.writer import Account, Writer

POLL_S = 0.05
PATIENCE_S = 60.0  # how long a condition may take on a busy machine before the lab gives up on it; nothing is measured by it


class GaveUpError(AssertionError):
    """A condition did not come true in time; the text shows the state of the whole lab."""


class Lab:
    """`async with Lab() as lab: await lab.up()`. Members are called db1, db2, ... as HAProxy's servers are."""

    def __init__(
        self, nodes: int = 3, *, postgres: int | None = None, etcd: str = "", wishes: Wishes | None = None, primary_port: int | None = None
    ) -> None:
        self.count = nodes
        self.bin_dir = binaries.postgres(postgres)
        self.wishes = wishes or Wishes()
        self._etcd_version = etcd
        self._primary_port = primary_port
        self.passwords = Passwords(*(secrets.token_urlsafe(12) for _ in range(3)))
        self.prefix = f"/service/{self.wishes.scope}/"
        self.nodes: list[Node] = []
        self._processes: list[Process] = []

    async def __aenter__(self) -> Self:
        # Short, because a Unix socket's path ends after 107 bytes.
        self.root = give_away(Path(tempfile.mkdtemp(prefix="rivha-", dir="/tmp")))
        self.root.chmod(0o755)
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        self.janitor = Janitor(self.root, [self.bin_dir, binaries.etcd(self._etcd_version), binaries.haproxy()])
        try:
            self.etcd = Etcd(self.root, self.session, self._etcd_version)
            for number in range(1, self.count + 1):
                self.nodes.append(self._node(f"db{number}"))
            backends = [Backend(node.postgres_port, node.rest_port) for node in self.nodes]
            self.proxy = Proxy(self.root, self.session, backends, primary_port=self._primary_port)
            self._processes = [self.etcd.process, self.proxy.process, *(node.agent for node in self.nodes)]
            await self.etcd.start()
            await self.proxy.start()
        except BaseException:
            await self._close()
            raise
        return self

    def _node(self, name: str) -> Node:
        return Node(self.root, self.session, name, etcd=self.etcd.hosts, bin_dir=self.bin_dir, passwords=self.passwords, wishes=self.wishes)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._close()

    async def _close(self) -> None:
        """No graceful stop: what matters has been looked at, and the janitor proves that hard ends leave nothing behind."""
        for node in self.nodes:
            await node.agent.kill()
        await self.session.close()
        await asyncio.to_thread(self.janitor.dismiss)
        for process in self._processes:
            await process.kill()  # it is dead; this collects its exit status

    # ---- who is who

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    async def keys(self) -> dict[str, str]:
        """etcd's content below the cluster's prefix, with relative names; {} when etcd does not answer."""
        try:
            found = await self.etcd.get(self.prefix)
        except (aiohttp.ClientError, TimeoutError):
            return {}
        return {key.removeprefix(self.prefix): value for key, value in found.items()}

    async def members(self) -> dict[str, dict[str, Any]]:
        """What the agents published."""
        return {key.removeprefix("members/"): json.loads(value) for key, value in (await self.keys()).items() if key.startswith("members/")}

    async def leader(self) -> Node | None:
        """The holder of the leader key, if its own agent says that it may be written to."""
        name = (await self.keys()).get("leader")
        node = next((node for node in self.nodes if node.name == name), None)
        return node if node is not None and await node.healthy("/primary") else None

    async def primary(self, deadline_s: float = PATIENCE_S) -> Node:
        """The leader, waiting until there is one."""
        found: list[Node] = []

        async def somebody_leads() -> bool:
            found[:] = [node] if (node := await self.leader()) else []
            return bool(found)

        await self.wait_for(somebody_leads, "somebody leads and takes writes", deadline_s)
        return found[0]

    async def replicas(self) -> list[Node]:
        """Everybody but the leader."""
        leader = await self.primary()
        return [node for node in self.nodes if node is not leader]

    async def streaming_from(self, primary: Node) -> set[str]:
        """Names of the members that stream from this Postgres, asked by SQL; {} when it does not answer."""
        try:
            rows = await primary.fetch("select application_name from pg_stat_replication where state = 'streaming'")
        except SQL_ERRORS:
            return set()
        return {row["application_name"] for row in rows}

    async def primaries(self) -> set[str]:
        """Names of the nodes whose Postgres answers and is not in recovery, whatever anybody believes."""
        found = set()
        for node in self.nodes:
            try:
                [row] = await node.fetch("select pg_is_in_recovery() as standby")
            except SQL_ERRORS:
                continue
            if not row["standby"]:
                found.add(node.name)
        return found

    async def healed(self) -> bool:
        """One leader; every other node that was started streams from it, as both agents say, and votes; HAProxy routes accordingly."""
        leader = await self.leader()
        if leader is None:
            return False
        standbys = [node for node in self.nodes if node is not leader and node.agent.alive]
        others = {node.name for node in standbys}
        if not others <= await self.streaming_from(leader):
            return False
        # What others know of a node may be a moment old, so each is asked itself: it may have just been started.
        if [node for node in standbys if (await node.status()).get("replication_state") != "streaming"]:
            return False
        code, text = await leader.ask("GET", "/cluster")
        told = {member["name"]: member["state"] for member in json.loads(text)["members"]} if code == 200 else {}
        if told != {leader.name: "running"} | dict.fromkeys(others, "streaming"):
            return False
        if await self.proxy.routed("primary") != [leader.name]:
            return False
        return set(await self.proxy.routed("replica")) == others and await self._voters_are_there(others)

    async def mode(self) -> str:
        """`off`, `on` or `quorum`, as the cluster's own configuration says."""
        said = str(json.loads((await self.keys()).get("config", "{}")).get("synchronous_mode", "off")).lower()
        return {"false": "off", "true": "on"}.get(said, said)

    async def voters(self) -> set[str]:
        """Who holds each acknowledged commit, or may, by etcd's `sync`."""
        sync = json.loads((await self.keys()).get("sync") or "{}")
        return set((sync.get("sync_standby") or "").split(",")) - {""}

    async def _voters_are_there(self, standbys: set[str]) -> bool:
        """`on`: as many as commits wait for; `quorum`: everybody who may lead, or whoever there is if nobody may."""
        mode, config = await self.mode(), json.loads((await self.keys()).get("config", "{}"))
        if mode == "off":
            return True
        tags = {name: member.get("tags", {}) for name, member in (await self.members()).items()}
        able = {name for name in standbys if not tags.get(name, {}).get("nosync")}
        best = {name for name in able if not tags.get(name, {}).get("nofailover")}
        voters, count = await self.voters(), int(config.get("synchronous_node_count", 1))
        if mode == "on" or len(best) < count:
            return voters <= able and len(voters) == min(count, len(able))
        return voters == best

    # ---- acting

    async def up(self, deadline_s: float = 2 * PATIENCE_S) -> Node:
        """Starts every agent and returns the leader when the cluster is whole."""
        return await self.heal(deadline_s)

    async def heal(self, deadline_s: float = 2 * PATIENCE_S) -> Node:
        """Starts the agents that are down and waits until the cluster is whole; its leader."""
        for node in self.nodes:
            if not node.agent.alive:
                node.start()

        async def whole() -> bool:
            if ended := [node.name for node in self.nodes if not node.agent.alive]:
                raise GaveUpError(f"the agents of {ended} ended by themselves\n{await self.describe()}")
            return await self.healed()

        await self.wait_for(whole, "every node runs and streams, and HAProxy routes to it", deadline_s)
        return await self.primary()

    async def pause(self, on: bool) -> None:
        """Returns when every agent knows."""

        async def all_know() -> bool:
            answered = False
            for node in self.nodes:
                if not answered:
                    answered = (await node.ask("PATCH", "/config", {"pause": on or None}))[0] == 200
            return [(await node.status()).get("pause", False) for node in self.nodes] == [on] * len(self.nodes)

        await self.wait_for(all_know, f"every agent knows that pause is {on}")

    def writer(self, table: str = "written", pace_s: float = 0.005) -> Writer:
        return Writer(self.proxy.primary_port, self.passwords.superuser, table, pace_s)

    async def account(self, writer: Writer) -> Account:
        """Stops the writer and compares what it was told with what the primary has."""
        await writer.stop()
        rows = await (await self.primary()).fetch(f"select number from {writer.table}", timeout_s=PATIENCE_S)
        return writer.settle({row["number"] for row in rows})

    # ---- waiting

    async def wait_for(
        self, condition: Callable[[], Awaitable[bool]], what: str, deadline_s: float = PATIENCE_S, *, poll_s: float = POLL_S
    ) -> None:
        """Polls until `condition()` holds. Raises GaveUpError with what the lab looks like then."""
        until = time.monotonic() + deadline_s
        while not await condition():
            if time.monotonic() > until:
                raise GaveUpError(f"waited {deadline_s:.0f} s, and not yet: {what}\n{await self.describe()}")
            await asyncio.sleep(poll_s)

    async def describe(self) -> str:
        """The whole lab in text, for whoever has to find out why."""
        lines = [f"lab {self.root}, Postgres {binaries.version_of(self.bin_dir)}", "etcd:"]
        lines += [f"  {key} = {value}" for key, value in sorted((await self.keys()).items())] or ["  (empty or silent)"]
        lines.append(f"haproxy routes: {[pair for pair in await self.proxy.up() if pair[1] != 'FRONTEND']}")
        for node in self.nodes:
            alive = f"agent {node.agent.pid}" if node.agent.alive else f"agent ended with {node.agent.exit_code}"
            lines.append(f"{node.name}: {alive}, postmaster {node.postmaster()}, says {json.dumps(await node.status())}")
            lines += [f"    {line}" for line in node.agent.tail(25).splitlines()] if node.agent.log.exists() else []
            lines += [f"    postgres: {line}" for line in _postgres_log(node)]
        return "\n".join(lines)


def _postgres_log(node: Node, lines: int = 8) -> list[str]:
    """The last lines of whatever Postgres logged to: the newest *.log file in its directories but the agent's own."""
    files = [path for path in [*node.folder.glob("*.log"), *node.data.glob("log/*"), *node.data.glob("*.log")] if path != node.agent.log]
    newest = max(files, key=os.path.getmtime, default=None)
    return newest.read_text(errors="replace").splitlines()[-lines:] if newest else []
