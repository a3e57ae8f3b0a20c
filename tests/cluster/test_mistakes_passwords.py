"""Wrong passwords, and a clone that breaks off: said with the user's name, nothing lost, and well again once it is mended."""

from __future__ import annotations

import base64
import json
import os
import signal

import aiohttp
import pytest

from tests.cluster.mistakes import a_node, beside, change, leads, listed, log_of, looks_on, says, streams, with_password
from tests.lab.cluster import Lab
from tests.lab.node import Node
from tests.lab.processes import signal_all, working_below

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


async def reload(node: Node) -> None:
    status, text = await node.ask("POST", "/reload")
    assert status == 202, text


# ---- Postgres


async def test_a_wrong_replication_password_stops_a_clone_with_the_users_name(ground: Lab) -> None:
    async with a_node(ground, "mute") as node:
        change(node, **with_password(node, "replication", "wrong"))
        node.start()
        await says(ground, node, 'password authentication failed for user "replicator"', "postgresql.authentication")
        assert len(await looks_on(ground, node, 8)) < 30
        assert 'user "replicator"' in await listed(node)
        node.write_config()
        await reload(node)
        await streams(ground, node)
        assert beside(node) == []


async def test_a_replication_password_that_was_changed_is_named_by_the_standby_that_cannot_stream() -> None:
    async with Lab(2) as lab:
        leader = await lab.up()
        [standby] = await lab.replicas()
        await leader.fetch("alter user replicator password 'other'")
        standby.kill_postmaster()
        await says(lab, standby, 'password authentication failed for user "replicator"', "postgresql.authentication")
        assert len(await looks_on(lab, standby, 8)) < 20
        assert 'user "replicator"' in await listed(leader)
        change(standby, **with_password(standby, "replication", "other"))
        await reload(standby)
        await streams(lab, standby)
        assert beside(standby) == []


async def test_a_wrong_superuser_password_is_named_and_stops_nobody() -> None:
    """The agents come back with a password that their own Postgres refuses: the leader goes on leading, the standby streaming."""
    async with Lab(2) as lab:
        leader = await lab.up()
        [standby] = await lab.replicas()
        pids = {node.name: node.postmaster() for node in lab.nodes}
        for node in (standby, leader):
            change(node, **with_password(node, "superuser", "wrong"))
            await node.kill_agent()
            node.start()
        for node in lab.nodes:
            await says(lab, node, 'password authentication failed for user "postgres"', "postgresql.authentication")
        await leads(lab, leader)
        for node in lab.nodes:
            assert len(await looks_on(lab, node, 5)) < 20
        assert pids == {node.name: node.postmaster() for node in lab.nodes}
        assert await lab.streaming_from(leader) == {standby.name}
        assert await lab.voters() == {standby.name}, "it holds every commit, though the leader's agent cannot see it"
        for node in lab.nodes:
            node.write_config()
            await reload(node)
        await lab.heal()
        assert pids == {node.name: node.postmaster() for node in lab.nodes}


async def test_a_wrong_rewind_password_costs_a_diverged_node_nothing_but_time() -> None:
    async with Lab(2) as lab:
        old = await lab.up()
        [new] = await lab.replicas()
        await old.kill_everything()
        await leads(lab, new)
        change(old, **with_password(old, "rewind", "wrong"))
        old.start()
        await says(lab, old, 'password authentication failed for user "rewinder"', "postgresql.authentication")
        assert len(await looks_on(lab, old, 12)) < 30
        assert old.postmaster() is None
        assert beside(old) == []
        old.write_config()
        await reload(old)
        await streams(lab, old)
        assert beside(old) == []


# ---- etcd


async def ask(lab: Lab, path: str, **body: object) -> None:
    async with lab.session.post(f"{lab.etcd.url}/v3/auth/{path}", data=json.dumps(body), timeout=aiohttp.ClientTimeout(total=10)) as answer:
        assert answer.status == 200, await answer.text()


async def test_an_etcd_that_refuses_the_user_is_told_from_one_that_is_absent() -> None:
    async with Lab(1) as lab:
        [node] = lab.nodes
        everything = base64.b64encode(b"\0").decode()
        await ask(lab, "role/add", name="root")
        await ask(lab, "role/add", name="agent")
        await ask(lab, "role/grant", name="agent", perm={"permType": "READWRITE", "key": everything, "range_end": everything})
        for user, role in (("root", "root"), ("rivha", "agent")):
            await ask(lab, "user/add", name=user, password="right")
            await ask(lab, "user/grant", user=user, role=role)
        await ask(lab, "enable")
        for section, words in (
            ({"username": "rivha", "password": "wrong"}, "refuses user 'rivha': wrong name or password"),
            ({}, "wants a user name and a password"),
        ):
            node.write_config(etcd3={"hosts": lab.etcd.hosts, **section})
            lines = len(node.log_records())
            node.start()
            await says(lab, node, "etcd does not answer")
            assert words in log_of(node)
            assert "etcd3.username" in log_of(node)
            assert len(node.log_records()) - lines < 12
            assert not node.data.exists()
            assert await node.stop() == 0
        node.write_config(etcd3={"hosts": lab.etcd.hosts, "username": "rivha", "password": "right"})
        node.start()
        await leads(lab, node)


# ---- a clone that breaks off


async def cloning(lab: Lab, node: Node) -> list[int]:
    """The pg_basebackups that fill the node's directory, once its copy has begun."""
    copy = node.data / ".rivha-new" / "base"
    found: list[int] = []

    async def at_work() -> bool:
        names = {pid: os.readlink(f"/proc/{pid}/exe") for pid in working_below(node.folder)}
        found[:] = [pid for pid, name in names.items() if name.endswith("pg_basebackup")]
        return bool(found) and copy.exists()

    await lab.wait_for(at_work, f"{node.name} is being cloned")
    return found


@pytest.mark.parametrize("what", ["program", "agent"])
async def test_a_clone_that_breaks_off_is_begun_again_and_leaves_no_rest(ground: Lab, what: str) -> None:
    async with a_node(ground, f"torn-{what}", postgresql={"basebackup": [{"max-rate": "4M"}]}) as node:
        node.start()
        programs = await cloning(ground, node)
        if what == "program":
            signal_all(programs, signal.SIGKILL)
            await says(ground, node, "no way to clone from db1", "pg_basebackup")
            assert node.postmaster() is None
            node.write_config()
            await reload(node)
        else:
            await node.kill_agent()
            signal_all(working_below(node.folder), signal.SIGKILL)
            assert not (node.data / "PG_VERSION").exists()
            node.write_config()
            node.start()
        await streams(ground, node)
        assert not (node.data / ".rivha-new").exists()
        assert beside(node) == []
