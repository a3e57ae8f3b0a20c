"""Empty directories become a cluster: one node initialises, the others clone it. On the machine's Postgres and on 18."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from tests.cluster.conftest import writes_again, writing
from tests.lab.cluster import Lab
from tests.lab.node import now
from tests.lab.ports import LOOPBACK

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[None, 18], ids=["machine", "18"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with Lab(postgres=request.param) as lab:
        await lab.up()
        yield lab


async def test_one_node_initialises_and_the_others_are_copies_of_it(lab: Lab) -> None:
    leader = await lab.primary()
    keys = await lab.keys()
    assert keys["leader"] == leader.name
    for node in lab.nodes:
        [row] = await node.fetch("select system_identifier::text as id, pg_is_in_recovery() as standby from pg_control_system()")
        assert row["id"] == keys["initialize"]
        assert row["standby"] == (node is not leader)
    config = json.loads(keys["config"])
    assert config["ttl"] == 10
    assert config["synchronous_mode"] == "quorum", "nobody said anything, and nothing acknowledged shall be lost"


async def test_checksums_are_on_and_each_standby_has_its_slot_on_the_primary(lab: Lab) -> None:
    leader = await lab.primary()
    [row] = await leader.fetch("show data_checksums")
    assert row["data_checksums"] == "on"
    others = {node.name for node in lab.nodes} - {leader.name}

    async def slots() -> bool:
        rows = await leader.fetch("select slot_name from pg_replication_slots where active")
        return {row["slot_name"] for row in rows} == others

    await lab.wait_for(slots, f"active slots of {others}")


async def test_the_members_publish_what_patronis_tools_read(lab: Lab) -> None:
    leader = await lab.primary()

    async def settled() -> bool:
        members = await lab.members()
        roles = {name: member["role"] for name, member in members.items()}
        states = {member["state"] for member in members.values()}
        return roles == {node.name: "primary" if node is leader else "replica" for node in lab.nodes} and states == {"running"}

    await lab.wait_for(settled, "members publish role and state")
    member = (await lab.members())[leader.name]
    assert member["conn_url"] == f"postgres://{LOOPBACK}:{leader.postgres_port}/postgres"
    assert member["api_url"] == f"http://{LOOPBACK}:{leader.rest_port}/patroni"
    assert member["timeline"] == 1


async def test_haproxy_sends_writers_to_the_primary_and_readers_to_standbys(lab: Lab) -> None:
    async def standby_behind(port: int) -> bool:
        connection = await asyncpg.connect(
            host=LOOPBACK, port=port, user="postgres", password=lab.passwords.superuser, database="postgres", timeout=10
        )
        try:
            return bool(await connection.fetchval("select pg_is_in_recovery()", timeout=10))
        finally:
            await connection.close(timeout=5)

    assert not await standby_behind(lab.proxy.primary_port)
    assert await standby_behind(lab.proxy.replica_port)


async def test_a_lost_node_is_replaced_and_comes_back_as_a_standby(lab: Lab) -> None:
    old = await lab.primary()
    async with writing(lab) as writer:
        died = now()
        await old.kill_everything()
        await writes_again(lab, writer, died)
        new = await lab.primary()
        assert new is not old
        assert await lab.heal() is new
        assert await lab.primaries() == {new.name}
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())
