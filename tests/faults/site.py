"""The fault lab: three database hosts, three etcd hosts, HAProxy and a client, each a host of its own on a wire that can be cut anywhere.

It is tests/lab's `Lab` on other ground: the same agents, the same Postgres, HAProxy's file as it is. It runs inside `world.enter` only.
The lab asks agents over the admin network and Postgres through its Unix socket, so no cut of the wire blinds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import aiohttp

from tests.faults import clock, world
from tests.faults.clock import Clock
from tests.faults.host import Host, Service
from tests.faults.ledger import Holdings, Ledger
from tests.faults.servers import POSTGRES, Database, Etcds, SiteProxy
from tests.lab.cluster import PATIENCE_S, Lab
from tests.lab.node import REPOSITORY, SQL_ERRORS, Node, Wishes, now
from tests.lab.processes import give_away

CLIENTS = ({"kind": "insert", "pace_s": 0.005}, {"kind": "insert", "pace_s": 0.02}, *({"kind": "append", "pace_s": 0.02},) * 2)
MEASURED = "insert1"  # the client whose gaps are the outages
CLOCK_JUMP_S = 600.0
BEGAN = 20  # acknowledgements after which a client counts as writing


class Site(Lab):
    """`async with Site() as site: await site.up()`."""

    def __init__(
        self,
        *,
        wishes: Wishes | None = None,
        clients: Sequence[Mapping[str, object]] = CLIENTS,
        postgres: int | None = None,
        disk: str = "",
        clocks: bool = False,
        careless: bool = False,
        node: type[Database] = Database,
    ) -> None:
        """`disk`: the size of each database's own small file system ("600m", in memory); "": the machine's.

        `clocks`: each database host has a wall clock of its own. `careless`: clients wait for no standby, to see that a loss is noticed.
        """
        super().__init__(3, postgres=postgres, wishes=wishes)
        settings = {"settings": {"synchronous_commit": "local"}} if careless else {}
        self.clients = [settings | dict(client) for client in clients]
        self._disk = disk
        self._with_clocks = clocks
        self._clocks: dict[str, Clock] = {}
        self._ballast: list[Path] = []
        self._kept = bool(os.environ.get("RIVHA_LAB_KEEP"))
        self.judged_until = 0.0  # what clients were told before is not asked for any more: it was lost, and that was allowed
        self._node_class = node

    async def __aenter__(self) -> Self:
        self.root = world.new_root()
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        self.ledger = Ledger(self.root / "client" / "ledger")
        self.hosts: list[Host] = []
        try:
            await world.lay_cables()
            self.databases = [self._host(f"db{n}", 10 + n) for n in (1, 2, 3)]
            etcds = [self._host(f"etcd{n}", 20 + n) for n in (1, 2, 3)]
            proxy, self.client_host = self._host("proxy", 31), self._host("client", 41)
            if self._disk:
                for host in self.databases:
                    await world.run("mount", "-t", "tmpfs", "-o", f"size={self._disk},mode=755", "none", str(host.folder))
                    give_away(host.folder)
            if self._with_clocks:
                library = clock.build(self.root)
                for host in self.databases:
                    self._clocks[host.name] = Clock(library, host.folder)
                    host.environment |= self._clocks[host.name].environment
            for host in self.hosts:
                await host.power_on()
            self.etcd = self.etcds = Etcds(etcds, self.session)
            self.nodes = [self._node(host.name) for host in self.databases]
            self.proxy = SiteProxy(proxy, self.session, self.nodes)
            self._clients = self._make_clients()
            await self.etcd.start()
            await self.proxy.start()
        except BaseException:
            await self._close()
            raise
        return self

    def _host(self, name: str, number: int) -> Host:
        host = Host(self.root, name, number)
        self.hosts.append(host)
        return host

    def _node(self, name: str) -> Node:
        host = next(host for host in self.databases if host.name == name)
        return self._node_class(
            host, self.root, self.session, etcd=self.etcd.hosts, bin_dir=self.bin_dir, passwords=self.passwords, wishes=self.wishes
        )

    def _make_clients(self) -> Service:
        specification = self.client_host.folder / "clients.json"
        specification.touch(mode=0o600)
        give_away(specification)
        content = {"host": self.proxy_address, "port": POSTGRES, "password": self.passwords.superuser, "clients": self.clients}
        specification.write_text(json.dumps(content | {"ledger": str(self.ledger.path)}))
        argv = [sys.executable, "-m", "tests.faults.client", str(specification)]
        return self.client_host.service("clients", argv, env={"PYTHONPATH": str(REPOSITORY)})

    @property
    def proxy_address(self) -> str:
        return next(host.address for host in self.hosts if host.name == "proxy")

    async def _close(self) -> None:
        """All hosts are switched off; only files are left, and they go, too, unless RIVHA_LAB_KEEP is set."""
        await asyncio.gather(*(host.power_off() for host in self.hosts))
        await self.session.close()
        if self._disk:
            for host in self.databases:
                await world.run("umount", str(host.folder))
        if self._kept:
            (self.root / "kept").touch()
        else:
            await asyncio.to_thread(shutil.rmtree, self.root)

    # ---- who is who

    def database(self, name: str) -> Database:
        node = self[name]
        assert isinstance(node, Database)
        return node

    async def primary_database(self) -> Database:
        return self.database((await self.primary()).name)

    async def standbys(self) -> list[Database]:
        """Voters first: in mode `on` one of them is none, and may take nothing over."""
        leader, voters = await self.primary(), await self.voters()
        found = [self.database(node.name) for node in self.nodes if node is not leader]
        return sorted(found, key=lambda node: node.name not in voters)

    async def mode(self) -> str:
        """`off`, `on` or `quorum`, as the cluster's own configuration says."""
        said = json.loads((await self.keys()).get("config", "{}")).get("synchronous_mode", "off")
        return {"false": "off", "true": "on"}.get(str(said).lower(), str(said).lower())

    async def healed(self) -> bool:
        """As `Lab` has it, and in a synchronous mode the leader's voters are all the others again."""
        if not await super().healed():
            return False
        mode = await self.mode()
        if mode == "off":
            return True
        sync = json.loads((await self.keys()).get("sync") or "{}")
        voters = set((sync.get("sync_standby") or "").split(",")) - {""}
        others = {node.name for node in self.nodes} - {sync.get("leader")}
        # `on` has as many as synchronous_node_count asks for: one, by default.
        return bool(sync.get("leader")) and (voters == others or (mode == "on" and bool(voters)))

    # ---- the network

    def cut(self, ones: Iterable[Host], others: Iterable[Host], *, both_ways: bool = True) -> None:
        """What `ones` send does not reach `others` any more, and the other way round."""
        ones, others = list(ones), list(others)
        for host in others:
            host.deaf_to |= {one.address for one in ones if one is not host}
        if both_ways:
            for host in ones:
                host.deaf_to |= {other.address for other in others if other is not host}
        for host in {*ones, *others}:
            host.filter()

    async def mend_network(self) -> None:
        for host in self.hosts:
            await host.hurry()
            if host.deaf_to or host.loses:
                host.deaf_to.clear()
                host.loses = 0.0
                host.filter()
            if host.unplugged:
                await host.plug_in()

    # ---- the disk and the clock

    def fill_disk(self, node: Database) -> None:
        """Its own small file system has no free block any more."""
        assert self._disk, "this site's databases have no disks of their own: --disk 400m"
        self._ballast.append(node.folder / "ballast")
        with self._ballast[-1].open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(2**16))

    def set_clock(self, node: Node, seconds: float) -> None:
        """The wall clock of its host is so far from the others' from now on."""
        assert self._clocks, "this site's hosts have no clocks of their own: --clocks"
        self._clocks[node.name].step(seconds)

    def _mend_disks_and_clocks(self) -> None:
        for file in self._ballast:
            file.unlink(missing_ok=True)
        for own in self._clocks.values():
            own.step(0)

    # ---- up and whole

    async def up(self, deadline_s: float = 2 * PATIENCE_S) -> Node:
        primary = await super().up(deadline_s)
        for statement in ("written (number bigint primary key)", "lists (key bigint primary key, items bigint[] not null)"):
            await primary.fetch(f"create table if not exists {statement}")
        await self.heal()
        self._clients.start()
        await self.writing(now())
        return primary

    async def heal(self, deadline_s: float = 2 * PATIENCE_S) -> Node:
        """Takes every fault back and waits until the cluster is whole."""
        self._mend_disks_and_clocks()
        await self.mend_network()
        for host in self.hosts:
            await host.power_on()
        for node in self.nodes:
            node.thaw_everything()
        for host in self.hosts:
            for service in host.services.values():
                service.thaw()
                if service is not self._clients and not service.alive:
                    service.start()
        return await super().heal(deadline_s)

    async def writing(self, since: float, deadline_s: float = PATIENCE_S) -> None:
        """Returns when clients have been acknowledged again after `since`."""

        async def enough() -> bool:
            return self.ledger.read().count("A", since) >= BEGAN

        await self.wait_for(enough, "clients write", deadline_s)

    async def another_leads(self, old: Node, deadline_s: float = PATIENCE_S) -> Node:
        """The new leader, that takes writes."""
        found: list[Node] = []

        async def somebody_else() -> bool:
            leader = await self.leader()
            found[:] = [leader] if leader is not None and leader is not old else []
            return bool(found)

        await self.wait_for(somebody_else, f"somebody else than {old.name} leads", deadline_s)
        return found[0]

    async def leave_writing(self) -> None:
        """Ends the clients; what they were told is in the ledger."""
        await self._clients.stop()
        self.ledger.read()

    async def holdings(self) -> dict[str, Holdings]:
        """Of every node, once it has replayed all that the primary has now. Call it when the cluster is whole."""
        primary = await self.primary()
        [row] = await primary.fetch("select pg_current_wal_lsn()::text as lsn")
        found = {}
        for node in self.nodes:
            if node is not primary:
                await self._replayed(node, row["lsn"])
            rows = await node.fetch("select number from written", timeout_s=PATIENCE_S)
            lists = await node.fetch("select key, items from lists", timeout_s=PATIENCE_S)
            found[node.name] = Holdings(frozenset(r["number"] for r in rows), {r["key"]: tuple(r["items"]) for r in lists})
        return found

    async def _replayed(self, node: Node, lsn: str) -> None:
        async def caught_up() -> bool:
            try:
                [row] = await node.fetch("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn as there", lsn)
            except SQL_ERRORS:
                return False
            return bool(row["there"])

        await self.wait_for(caught_up, f"{node.name} has replayed {lsn}")

    def keep(self) -> None:
        """The directory with all logs stays when the lab ends."""
        self._kept = True
