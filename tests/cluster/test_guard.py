"""Asynchronous mode: the Postgres of a frozen or killed agent is dead before its lease ends; one whose agent comes back lives on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from tests.cluster.test_agent import looked_again
from tests.lab.cluster import Lab
from tests.lab.node import Node, Wishes, close, now
from tests.lab.processes import give_away
from tests.lab.writer import Writer

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

TTL_S = 10


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Lab]:
    async with Lab(wishes=Wishes(dynamic={"synchronous_mode": "off", "ttl": TTL_S})) as lab:
        await lab.up()
        yield lab


@asynccontextmanager
async def writing_past_the_proxy(lab: Lab, node: Node) -> AsyncIterator[Writer]:
    """A client that nobody routes away: it writes to this node for as long as its Postgres takes it."""
    await node.fetch("drop table if exists past")
    writer = Writer(node.postgres_port, lab.passwords.superuser, "past")
    await writer.prepare()
    writer.start()
    try:

        async def has_written() -> bool:
            return len(writer.acknowledged) >= 20

        await lab.wait_for(has_written, "the client writes")
        yield writer
    finally:
        await writer.stop()


async def dies_while_it_still_leads(lab: Lab, old: Node) -> None:
    """No process of its Postgres is left, and only then etcd's lease ends and the others may elect."""

    async def dead() -> bool:
        return old.processes() == []

    await lab.wait_for(dead, f"{old.name}'s Postgres is dead")
    assert (await lab.keys()).get("leader") == old.name


async def replaced(lab: Lab, old: Node) -> Node:
    async def by_another() -> bool:
        leader = await lab.leader()
        return leader is not None and leader is not old

    await lab.wait_for(by_another, f"somebody else than {old.name} leads")
    return await lab.primary()


async def looked_for_longer_than_a_lease(lab: Lab, node: Node) -> None:
    """The agent has gone on for so long that any deadline from before has passed."""
    await looked_again(lab, node, TTL_S + 2)


@pytest.mark.parametrize("fate", ["frozen", "killed"])
async def test_a_primary_without_its_agent_is_dead_before_another_can_lead(lab: Lab, fate: str) -> None:
    old = await lab.primary()
    async with writing_past_the_proxy(lab, old) as writer:
        since = now()
        if fate == "frozen":
            old.agent.freeze()
        else:
            await old.kill_agent()
        try:
            await dies_while_it_still_leads(lab, old)
            dead = now()
            assert any(at > since for at in writer.acknowledged.values())  # it was not the fault itself that ended it
            new = await replaced(lab, old)
            assert await lab.primaries() == {new.name}
        finally:
            old.agent.thaw()
        await writer.stop()
        assert max(writer.acknowledged.values()) < dead
    leader = await lab.heal()
    assert await lab.primaries() == {leader.name}


async def test_an_agent_that_is_killed_and_comes_back_keeps_its_primary(lab: Lab) -> None:
    leader = await lab.primary()
    pid, guard = leader.postmaster(), leader.guard()
    session = await leader.connect()
    try:
        await leader.kill_agent()
        leader.start()
        assert await lab.heal() is leader
        await looked_for_longer_than_a_lease(lab, leader)
        assert (leader.postmaster(), leader.guard()) == (pid, guard)
        assert await session.fetchval("select 1") == 1
    finally:
        await close(session)


async def test_a_guard_that_is_killed_is_replaced_and_nothing_else_happens(lab: Lab) -> None:
    leader = await lab.primary()
    pid, guard = leader.postmaster(), leader.guard()
    assert guard is not None
    os.kill(guard, 9)

    async def another() -> bool:
        return leader.guard() not in (None, guard)

    await lab.wait_for(another, "there is another guard")
    await looked_for_longer_than_a_lease(lab, leader)
    assert leader.postmaster() == pid


async def test_a_standby_needs_no_agent_to_live_and_its_guard_does_not_stay(lab: Lab) -> None:
    leader = await lab.primary()
    standby = (await lab.replicas())[0]
    pid = standby.postmaster()
    await standby.kill_agent()

    async def gone() -> bool:
        return standby.guard() is None

    await lab.wait_for(gone, "the guard has ended")
    await looked_for_longer_than_a_lease(lab, leader)
    assert standby.postmaster() == pid


async def test_an_agent_that_ends_takes_its_guard_along(lab: Lab) -> None:
    standby = (await lab.replicas())[0]
    assert await standby.stop() == 0, standby.agent.tail()

    async def gone() -> bool:
        return standby.guard() is None

    await lab.wait_for(gone, "the guard has ended")


async def test_paused_nobody_kills_a_primary_without_its_agent(lab: Lab) -> None:
    leader = await lab.primary()
    witness = (await lab.replicas())[0]
    await lab.pause(True)
    try:
        pid = leader.postmaster()
        await leader.kill_agent()
        await looked_for_longer_than_a_lease(lab, witness)
        assert leader.postmaster() == pid
    finally:
        leader.start()
        await lab.pause(False)


async def test_a_node_without_the_watchdog_that_it_requires_is_not_elected_and_says_why(lab: Lab) -> None:
    old = await lab.primary()
    without, other = await lab.replicas()
    assert await without.stop() == 0
    without.write_config(watchdog={"mode": "required", "device": str(without.folder / "watchdog")})
    try:
        await lab.heal()
        await old.kill_everything()
        assert await replaced(lab, old) is other
        _, journal = await without.ask("GET", "/journal")
        assert "a watchdog is required, and " in journal
    finally:
        await without.kill_agent()
        without.write_config()


async def test_systemd_hears_of_ticks_and_of_nothing_when_there_are_none(lab: Lab) -> None:
    standby = (await lab.replicas())[0]
    path = standby.folder / "notify"
    before = dict(standby.agent.env)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        give_away(path)
        systemd.setblocking(False)
        heard: list[bytes] = []

        def listen() -> None:
            heard.append(systemd.recv(1000))

        asyncio.get_running_loop().add_reader(systemd, listen)
        await standby.kill_agent()
        standby.agent.env = before | {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "6000000"}
        standby.start()
        try:

            async def beats() -> bool:
                return heard[:1] == [b"READY=1"] and heard[1:].count(b"WATCHDOG=1") > 3

            await lab.wait_for(beats, "systemd was told that the agent lives")
            standby.agent.freeze()
            heard.clear()
            await looked_again(lab, await lab.primary(), 5)
            assert heard.count(b"WATCHDOG=1") <= 1  # one may have been under way
        finally:
            asyncio.get_running_loop().remove_reader(systemd)
            standby.agent.thaw()
            await standby.kill_agent()
            standby.agent.env = before
            path.unlink()
