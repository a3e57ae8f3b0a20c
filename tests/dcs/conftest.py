"""A real etcd per module where a test may share it, and clients that are closed."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeAlias

import pytest
from hypothesis import settings

from rivha.dcs import records, writes
from rivha.dcs.etcd import Etcd, EtcdSettings
from tests.dcs.store import A_LEASE, SYSTEM, Store
from tests.etcd_process import EtcdServer, Proxy, etcd_server, proxy_to

settings.register_profile("shared-machine", deadline=None)  # how long an example takes says nothing where others work too
settings.load_profile("shared-machine")

Connect: TypeAlias = Callable[..., Etcd]


@pytest.fixture(scope="module")
def shared_etcd() -> Iterator[EtcdServer]:
    """Not to be stopped, frozen, or locked."""
    with etcd_server() as server:
        yield server


@pytest.fixture
def own_etcd() -> Iterator[EtcdServer]:
    with etcd_server() as server:
        yield server


@pytest.fixture
async def proxy(shared_etcd: EtcdServer) -> AsyncIterator[Proxy]:
    async with proxy_to(shared_etcd) as proxy:
        yield proxy


@pytest.fixture
def prefix() -> str:
    return f"/service/{uuid.uuid4()}"


@pytest.fixture
async def connect(prefix: str) -> AsyncIterator[Connect]:
    """`connect("host:port", ..., username=..., clock=...)`: a client for this test's prefix."""
    clients: list[Etcd] = []

    def connect(*hosts: str, clock: Callable[[], float] = time.monotonic, **settings: str) -> Etcd:
        client = Etcd(EtcdSettings(hosts, **settings), prefix, clock)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
def store() -> Store:
    """a leads in its first term; b and c are its voters."""
    store = Store()
    assert store.commit(writes.claim_bootstrap(1))
    assert store.commit(writes.finish_bootstrap(store.cluster(), "a", A_LEASE, SYSTEM, {"ttl": 10}))
    store.put("sync", records.sync_text("a", {"b", "c"}, 1))
    return store
