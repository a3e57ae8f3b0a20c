"""How a node comes back: by following, by rewinding what diverged, by cloning what is gone. Nothing is ever deleted on suspicion."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.cluster.conftest import configured
from tests.lab.cluster import PATIENCE_S, Lab
from tests.lab.node import SQL_ERRORS, Node, close
from tests.lab.processes import signal_all

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


def walsenders(node: Node) -> list[int]:
    return [pid for pid in node.processes() if b"walsender" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_a_diverged_tail_is_rewound_in_place(lab: Lab) -> None:
    old = await lab.primary()
    await old.fetch("create table if not exists tail (at text)")
    await lab.heal()
    inode = os.stat(old.data).st_ino
    async with configured(lab, degrade_after=60):  # else it would take the silent voters out, and only it might lead
        # Nothing leaves the primary any more, and it acknowledges to who does not wait for standbys: these rows exist nowhere else.
        senders = walsenders(old)
        assert len(senders) == 2
        signal_all(senders, signal.SIGSTOP)
        session = await old.connect()
        await session.execute("set synchronous_commit to local; insert into tail select 'diverged ' || n from generate_series(1, 1000) n")
        await old.kill_everything()
        await close(session)
        new = await lab.primary(120)
        assert new is not old
    await new.fetch("insert into tail values ('kept')")
    assert await lab.heal() is new
    rows = {row["at"] for row in await old.fetch("select at from tail")}
    assert rows == {"kept"}
    assert os.stat(old.data).st_ino == inode, "it was rewound, not cloned anew"


async def test_a_node_that_missed_everything_since_follows_again(lab: Lab) -> None:
    leader = await lab.primary()
    standby = next(node for node in lab.nodes if node is not leader)
    inode = os.stat(standby.data).st_ino
    assert await standby.stop() == 0
    await leader.fetch("create table if not exists missed (n int)")
    await leader.fetch("insert into missed select generate_series(1, 1000)")
    assert await lab.heal() is leader

    async def caught_up() -> bool:
        return bool((await standby.fetch("select count(*) from missed"))[0]["count"] >= 1000)

    await lab.wait_for(caught_up, f"{standby.name} has what it missed")
    assert os.stat(standby.data).st_ino == inode


async def test_a_node_whose_data_are_gone_is_cloned_again(lab: Lab) -> None:
    leader = await lab.primary()
    standby = next(node for node in lab.nodes if node is not leader)
    assert await standby.stop() == 0
    assert standby.processes() == []
    shutil.rmtree(standby.data)
    assert await lab.heal() is leader
    assert (standby.data / "PG_VERSION").exists()


async def test_reinitialize_makes_a_fresh_copy_and_keeps_the_old_one_aside(lab: Lab) -> None:
    leader = await lab.primary()
    standby = next(node for node in lab.nodes if node is not leader)
    inode = os.stat(standby.data).st_ino
    code, text = await standby.ask("POST", "/reinitialize", {"force": True}, 60)
    assert code == 200, text

    async def fresh() -> bool:
        return standby.data.exists() and os.stat(standby.data).st_ino != inode and await lab.healed()

    await lab.wait_for(fresh, f"{standby.name} is a new copy", 120)
    aside = [path for path in standby.folder.iterdir() if path.is_dir() and path.stat().st_ino == inode]
    assert aside, "the old directory was moved, not deleted"


async def test_a_setting_raised_on_the_primary_first_does_not_leave_standbys_that_cannot_be_promoted(lab: Lab) -> None:
    """Their replay stops for good; they start again by themselves, with as much as the primary has (HAZARDS D 66)."""
    leader = await lab.primary()
    standbys = [node for node in lab.nodes if node is not leader]

    async def has(node: Node, connections: str) -> bool:
        try:
            return (await node.fetch("show max_connections"))[0]["max_connections"] == connections
        except SQL_ERRORS:
            return False

    async with configured(lab, postgresql={"parameters": {"max_connections": 77}}):
        code, text = await leader.ask("POST", "/restart", {}, 60)
        assert code == 200, text
        assert await has(leader, "77")

        async def all_have() -> bool:
            return all([await has(node, "77") for node in standbys])

        await lab.wait_for(all_have, "the standbys have started with the primary's max_connections")
        assert await lab.heal() is leader
        for node in standbys:
            assert "max_connections is 50 here and 77 on the primary" in node.agent.log.read_text()
        leader.kill_postmaster()
        assert await lab.heal() is not leader


async def test_a_standby_that_somebody_promotes_by_hand_is_stopped_and_comes_back_as_a_standby(lab: Lab) -> None:
    """Past the agent, while another leads: what it takes nobody else ever has, and it takes nothing for long (HAZARDS B 35; DESIGN 10)."""
    leader = await lab.primary()
    await leader.fetch("create table if not exists promoted (at text)")
    assert await lab.heal() is leader
    standby = (await lab.replicas())[0]
    inode = os.stat(standby.data).st_ino
    session = await standby.connect()
    try:
        assert await session.fetchval("select pg_promote(true, 30)")
        async with asyncio.timeout(PATIENCE_S):  # that it ends is its agent's doing
            with contextlib.suppress(*SQL_ERRORS):
                while True:
                    await session.execute("insert into promoted values ('stray')")
    finally:
        await close(session)
    await leader.fetch("insert into promoted values ('kept')")
    assert await lab.heal() is leader
    assert f"{leader.name} leads: my primary must stop" in standby.agent.log.read_text()

    async def as_the_leader_has_it() -> bool:
        return all([{row["at"] for row in await node.fetch("select at from promoted")} == {"kept"} for node in lab.nodes])

    await lab.wait_for(as_the_leader_has_it, "every node has what the leader has, and nothing else")
    assert os.stat(standby.data).st_ino == inode, "it was rewound, not cloned anew"
