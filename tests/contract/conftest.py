"""The implementations that the contract suites run on. Another one is one more line in STORES: a context manager yielding a Store."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import pytest

from rivha.dcs.base import Dcs
from rivha.dcs.etcd import Etcd, EtcdSettings
from tests.etcd_process import EtcdServer, etcd_server


class Store(Protocol):
    """One store, and as many clients of it as wanted, all below one prefix of their own."""

    def client(self) -> Dcs: ...

    def compact(self) -> None:
        """Forgets the history of the keys."""
        ...

    async def close(self) -> None: ...


class RealEtcd:
    def __init__(self, server: EtcdServer) -> None:
        self._server = server
        self._prefix = f"/service/{uuid.uuid4()}"
        self._clients: list[Dcs] = []

    def client(self) -> Dcs:
        client = Etcd(EtcdSettings((self._server.host,)), self._prefix, time.monotonic)
        self._clients.append(client)
        return client

    def compact(self) -> None:
        self._server.compact()

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


@pytest.fixture(scope="session", params=[pytest.param("", id="etcd-of-the-machine"), pytest.param("3.5", id="etcd-3.5")])
def real_etcd(request: pytest.FixtureRequest) -> Iterator[EtcdServer]:
    with etcd_server(request.param) as server:
        yield server


@pytest.fixture
async def store(real_etcd: EtcdServer) -> AsyncIterator[Store]:
    store = RealEtcd(real_etcd)
    yield store
    await store.close()


@pytest.fixture
def dcs(store: Store) -> Dcs:
    return store.client()
