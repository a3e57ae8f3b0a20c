"""A real etcd cluster of three that loses servers, its leader, its quorum."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from rivha.dcs.base import Put, Txn
from rivha.errors import DcsUnavailable
from rivha.model import Outcome
from tests.dcs.conftest import Connect
from tests.etcd_process import EtcdServer, etcd_cluster, eventually

pytestmark = pytest.mark.real

BUDGET_S = 15.0


def status(text: str) -> Txn:
    return Txn((), (Put("status", text),))


@pytest.fixture(params=["", "3.5"], ids=["etcd-of-the-machine", "etcd-3.5"])
def servers(request: pytest.FixtureRequest) -> Iterator[list[EtcdServer]]:
    with etcd_cluster(3, request.param) as servers:
        yield servers


def leader_of(servers: list[EtcdServer]) -> EtcdServer:
    answers = {server: server.post("/v3/maintenance/status", {}) for server in servers}
    return next(server for server, said in answers.items() if said["header"]["member_id"] == said["leader"])


async def test_etcds_leader_freezes_and_everything_goes_on(servers: list[EtcdServer], connect: Connect) -> None:
    """What a lost host does when it carried etcd's leader too: nothing is refused, nobody says anything."""
    leader = leader_of(servers)
    dcs = connect(leader.host, *(server.host for server in servers if server is not leader))
    seen: list[str] = []
    watching = asyncio.create_task(dcs.watch(seen.append))
    await eventually(lambda: seen == [""], "the watch begins")
    lease_id = await dcs.grant(60, BUDGET_S)
    leader.freeze()

    reading = await dcs.read(BUDGET_S)
    assert reading.items == ()
    assert await dcs.renew(lease_id, BUDGET_S) == 60.0
    assert await dcs.commit(status("1"), BUDGET_S) is Outcome.DONE
    await eventually(lambda: seen.count("") == 2, "the watch begins again elsewhere")
    assert await dcs.commit(status("2"), BUDGET_S) is Outcome.DONE
    await eventually(lambda: "status" in seen, "it tells of changes")

    leader.thaw()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_server_without_a_quorum_does_not_answer_from_memory_and_is_left_for_the_others_when_they_are_back(
    servers: list[EtcdServer], connect: Connect
) -> None:
    dcs = connect(*(server.host for server in servers))
    seen: list[str] = []
    watching = asyncio.create_task(dcs.watch(seen.append))
    assert await dcs.commit(status("1"), BUDGET_S) is Outcome.DONE
    for server in servers[1:]:
        server.freeze()

    with pytest.raises(DcsUnavailable):
        await dcs.read(3.0)
    assert await dcs.commit(status("2"), 3.0) is Outcome.UNKNOWN

    for server in servers[1:]:
        server.thaw()
    await dcs.read(BUDGET_S)
    begun = seen.count("")
    assert await dcs.commit(status("3"), BUDGET_S) is not Outcome.REFUSED
    await eventually(lambda: "status" in seen[begun:] or seen.count("") > begun, "the watch tells, or begins anew")
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
