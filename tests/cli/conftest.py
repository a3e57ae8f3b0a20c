from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cli.stage import Stage
from tests.etcd_process import EtcdServer, etcd_server


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdServer]:
    with etcd_server("") as server:
        yield server


@pytest.fixture
async def stage(etcd: EtcdServer) -> AsyncIterator[Stage]:
    async with Stage(etcd.host, f"demo-{uuid.uuid4().hex[:8]}") as running:
        yield running
