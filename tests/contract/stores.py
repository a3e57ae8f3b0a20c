"""The stores that the contract of Dcs is tested on. Each has clients of its own, all below one prefix."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Coroutine
from typing import Any, Protocol

from rivha.dcs.base import Dcs
from rivha.dcs.etcd import Etcd, EtcdSettings
from tests.contract.running import RealTime, VirtualTime
from tests.etcd_process import EtcdServer
from tests.sim.etcd import SimDcs


class Store(Protocol):
    def run(self, work: Coroutine[Any, Any, Any]) -> Any: ...

    def client(self) -> Dcs: ...

    def compact(self) -> None:
        """Forgets the history of the keys."""
        ...

    async def elect(self) -> None:
        """Another server becomes etcd's leader. Only of a store with three."""
        ...

    def lose_quorum(self) -> None: ...

    def regain_quorum(self) -> None: ...

    def close(self) -> None: ...


class ModelStore:
    def __init__(self) -> None:
        self._time = VirtualTime()
        self._clients = 0
        self.run = self._time.run
        self.close = self._time.close

    def client(self) -> Dcs:
        self._clients += 1
        return SimDcs(self._time.world.store, self._time.world.network, f"db{self._clients}")

    def compact(self) -> None:
        """The model's watches hear of changes when they happen: there is no history that they could need."""

    async def elect(self) -> None:
        self._time.world.store.change_leader()

    def lose_quorum(self) -> None:
        self._time.world.store.up = False

    def regain_quorum(self) -> None:
        self._time.world.store.up = True
        self._time.world.store.change_leader()


class RealStore:
    def __init__(self, *servers: EtcdServer) -> None:
        self._time = RealTime()
        self._servers = servers
        self._prefix = f"/service/{uuid.uuid4()}"
        self._clients: list[Etcd] = []
        self._frozen: list[EtcdServer] = []
        self.run = self._time.run

    def client(self) -> Dcs:
        client = Etcd(EtcdSettings(tuple(server.host for server in self._servers)), self._prefix, time.monotonic)
        self._clients.append(client)
        return client

    def compact(self) -> None:
        self._servers[0].compact()

    async def elect(self) -> None:
        """By hand-over, and waits until all know."""
        states = {server: server.post("/v3/maintenance/status", {}) for server in self._servers}
        ids = {server: state["header"]["member_id"] for server, state in states.items()}
        leader = next(server for server, state in states.items() if state["leader"] == ids[server])
        heir = next(ids[server] for server in self._servers if server is not leader)
        leader.post("/v3/maintenance/transfer-leadership", {"targetID": heir})
        while any(server.post("/v3/maintenance/status", {}).get("leader") != heir for server in self._servers):
            await asyncio.sleep(0.02)

    def lose_quorum(self) -> None:
        self._frozen = list(self._servers[1:])
        for server in self._frozen:
            server.freeze()

    def regain_quorum(self) -> None:
        for server in self._frozen:
            server.thaw()
        self._frozen = []

    def close(self) -> None:
        self.regain_quorum()
        for client in self._clients:
            self.run(client.close())
        self._time.close()
