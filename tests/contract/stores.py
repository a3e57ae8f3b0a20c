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
from tests.etcd_process import EtcdServer, Proxy
from tests.sim.etcd import SimDcs

AGES_S = 3600.0


class Store(Protocol):
    def run(self, work: Coroutine[Any, Any, Any]) -> Any: ...

    def client(self) -> Dcs: ...

    def compact(self) -> None:
        """Forgets the history of the keys."""
        ...

    async def client_behind_a_wall(self) -> Dcs:
        """Its connections can be held up, one such client in a test."""
        ...

    def hold(self) -> None:
        """Nothing more comes to that client, and its connections stay open."""
        ...

    def let_go(self) -> None: ...

    async def elect(self) -> None:
        """Another server becomes etcd's leader. Only of a store with three."""
        ...

    async def strand(self, *, leader: bool) -> Dcs:
        """A client of one server, of etcd's leader or of another, which reaches no other server until `regain_quorum`."""
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
        self._time.world.store.compact()

    async def client_behind_a_wall(self) -> Dcs:
        self._walled = SimDcs(self._time.world.store, self._time.world.network, "db9")
        return self._walled

    def hold(self) -> None:
        self._walled.held = True

    def let_go(self) -> None:
        self._walled.held = False

    async def elect(self) -> None:
        self._time.world.store.change_leader()

    async def strand(self, *, leader: bool) -> Dcs:
        client = self.client()
        self._time.world.store.isolate(f"db{self._clients}", AGES_S, leads=leader)
        return client

    def lose_quorum(self) -> None:
        self._time.world.store.up = False

    def regain_quorum(self) -> None:
        self._time.world.store.heal()
        self._time.world.store.change_leader()


class RealStore:
    def __init__(self, *servers: EtcdServer) -> None:
        self._time = RealTime()
        self._servers = servers
        self._prefix = f"/service/{uuid.uuid4()}"
        self._clients: list[Etcd] = []
        self._frozen: list[EtcdServer] = []
        self._wall: Proxy | None = None
        self.run = self._time.run

    def client(self) -> Dcs:
        return self._client_of(*(server.host for server in self._servers))

    def _client_of(self, *hosts: str) -> Dcs:
        client = Etcd(EtcdSettings(hosts), self._prefix, time.monotonic)
        self._clients.append(client)
        return client

    def compact(self) -> None:
        self._servers[0].compact()

    async def client_behind_a_wall(self) -> Dcs:
        self._wall = Proxy(self._servers[0].port)
        await self._wall.open()
        return self._client_of(self._wall.host)

    def hold(self) -> None:
        assert self._wall is not None
        self._wall.forwards = False

    def let_go(self) -> None:
        assert self._wall is not None
        self._wall.forwards = True

    def _leader(self) -> tuple[EtcdServer, dict[EtcdServer, str]]:
        """It, and all by their ids."""
        states = {server: server.post("/v3/maintenance/status", {}) for server in self._servers}
        ids = {server: state["header"]["member_id"] for server, state in states.items()}
        return next(server for server, state in states.items() if state["leader"] == ids[server]), ids

    async def strand(self, *, leader: bool) -> Dcs:
        found, _ = self._leader()
        left = found if leader else next(server for server in self._servers if server is not found)
        self._frozen = [server for server in self._servers if server is not left]
        for server in self._frozen:
            server.freeze()
        return self._client_of(left.host)

    async def elect(self) -> None:
        """By hand-over, and waits until all know."""
        leader, ids = self._leader()
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
        if self._wall is not None:
            self.run(self._wall.close())
        self._time.close()
