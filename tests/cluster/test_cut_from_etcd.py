"""One node's agent hears etcd no more, while its Postgres and the others are well; and an agent that dies right after its promotion."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.cluster.conftest import configured
from tests.etcd_process import Proxy
from tests.lab.cluster import Lab
from tests.lab.node import SQL_ERRORS, Node

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relays() -> dict[str, Proxy]:
    """Each node's way to etcd."""
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(relays: dict[str, Proxy]) -> AsyncIterator[Lab]:
    """Nodes that tell a script of theirs, and reach etcd through relays."""
    async with Lab() as lab:
        for node in lab.nodes:
            relays[node.name] = Proxy(lab.etcd.port)
            await relays[node.name].open()
            script = node.folder / "told.sh"
            script.write_text('#!/bin/sh\necho "$1 $2" >> "$(dirname "$0")/told"\n')
            script.chmod(0o755)
            callbacks = dict.fromkeys(("on_start", "on_stop", "on_restart", "on_role_change"), str(script))
            settings = node._settings()["postgresql"]
            assert isinstance(settings, dict)
            node.write_config(etcd3={"hosts": relays[node.name].host}, postgresql=settings | {"callbacks": callbacks})
        await lab.up()
        try:
            yield lab
        finally:
            for relay in relays.values():
                await relay.close()


def working_as(node: Node, what: bytes) -> list[int]:
    return [pid for pid in node.processes() if what in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_a_standby_without_etcd_whose_stream_broke_streams_from_nobody_until_etcd_answers(lab: Lab, relays: dict[str, Proxy]) -> None:
    leader = await lab.primary()
    standby = (await lab.replicas())[0]
    relay, pid = relays[standby.name], standby.postmaster()
    await relay.close()
    await leader.fetch("alter role replicator nologin")
    try:
        for receiver in working_as(standby, b"walreceiver"):
            os.kill(receiver, signal.SIGTERM)

        async def points_at_nobody() -> bool:
            return (await standby.fetch("show primary_conninfo"))[0]["primary_conninfo"] == ""

        await lab.wait_for(points_at_nobody, f"{standby.name} points at nobody", 30)
    finally:
        await leader.fetch("alter role replicator login")
    await asyncio.sleep(3)  # long enough to connect again, were it to try
    assert standby.name not in await lab.streaming_from(leader)
    assert "streams from nobody until it does" in (await standby.status())["problem"]
    assert "streaming from nobody until etcd answers" in standby.agent.log.read_text()
    await relay.open()
    assert await lab.heal() is leader
    assert standby.postmaster() == pid, "by reload, without a restart"


async def test_an_agent_killed_right_after_its_promotion_costs_the_scripts_no_word_and_the_others_no_wait(lab: Lab) -> None:
    """The next agent says `on_start primary`, and asks for the checkpoint that the old primary's rewind waits for (HAZARDS B 32)."""
    old = await lab.primary()
    # 7 MB of dirty pages on each node: Postgres' own checkpoint after the promotion is spread over minutes.
    await old.fetch("create table if not exists tail as select n, repeat('x', 500) as at from generate_series(1, 12000) n", timeout_s=30)
    await lab.heal()
    others = [node for node in lab.nodes if node is not old]
    async with configured(lab, degrade_after=60):
        for sender in working_as(old, b"walsender"):
            os.kill(sender, signal.SIGSTOP)
        session = await old.connect()
        await session.execute("set synchronous_commit to local; insert into tail select n, 'diverged' from generate_series(1, 1000) n")
        await old.kill_everything()
        session.terminate()
        new = await promoted(lab, others)
        await new.kill_agent()
        (new.folder / "told").unlink(missing_ok=True)
        old.start()
        new.start()
        assert await lab.heal(40) is new
    assert (new.folder / "told").read_text().splitlines()[-1:] == ["on_start primary"]
    assert not await old.fetch("select 1 from tail where at = 'diverged'")
    assert "pg_rewind: Done!" in old.agent.log.read_text()


async def promoted(lab: Lab, nodes: list[Node]) -> Node:
    """Whose Postgres is no standby any more, as soon as it is so."""
    found: list[Node] = []

    async def one() -> bool:
        for node in nodes:
            try:
                [row] = await node.fetch("select pg_is_in_recovery() as standby")
            except SQL_ERRORS:
                continue
            if not row["standby"]:
                found.append(node)
        return bool(found)

    await lab.wait_for(one, "somebody is promoted", poll_s=0.002)
    return found[0]
