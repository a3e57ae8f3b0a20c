"""Planned changes of the primary: no row is lost, and the old one follows at once."""

from __future__ import annotations

import sys

import pytest

from tests.cluster.conftest import writes_again, writing
from tests.lab.cluster import Lab
from tests.lab.node import REPOSITORY, now
from tests.lab.processes import Process

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("named", [True, False], ids=["to-a-named-node", "to-anyone"])
async def test_a_switchover_by_rest_loses_nothing(lab: Lab, named: bool) -> None:
    old = await lab.primary()
    candidate = next(node for node in lab.nodes if node is not old)
    async with writing(lab) as writer:
        body = {"leader": old.name} | ({"candidate": candidate.name} if named else {})
        code, text = await old.ask("POST", "/switchover", body, 60)
        assert code == 200, text
        await writes_again(lab, writer, now())
        new = await lab.heal()
        assert new is candidate if named else new is not old
        assert f'Successfully switched over to "{new.name}"' in text
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())
        assert "failover" not in await lab.keys()


async def test_a_switchover_by_rivhactl_loses_nothing_and_asks_first(lab: Lab) -> None:
    old = await lab.primary()
    candidate = next(node for node in lab.nodes if node is not old)
    asked = await rivhactl(lab, "switchover", "--leader", old.name, "--candidate", candidate.name)
    assert asked.exit_code != 0, "without a terminal and without --force nobody said yes"
    assert await lab.primary() is old
    async with writing(lab) as writer:
        done = await rivhactl(lab, "switchover", "--leader", old.name, "--candidate", candidate.name, "--force")
        assert done.exit_code == 0, done.tail(50)
        await writes_again(lab, writer, now())
        assert await lab.heal() is candidate
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())


async def rivhactl(lab: Lab, *arguments: str) -> Process:
    argv = [sys.executable, "-m", "rivha.cli", "-c", str(lab.nodes[0].config), *arguments]
    process = Process("rivhactl", argv, folder=lab.nodes[0].folder, env={"PYTHONPATH": str(REPOSITORY)})
    process.start()
    await process.ended(120)
    return process


async def test_a_switchover_to_nobody_is_refused_and_changes_nothing(lab: Lab) -> None:
    leader = await lab.primary()
    code, text = await leader.ask("POST", "/switchover", {"leader": leader.name, "candidate": "nobody"}, 60)
    assert code in (400, 412), (code, text)
    assert await lab.primary() is leader
    assert "failover" not in await lab.keys()


async def test_ending_the_primarys_agent_hands_over(lab: Lab) -> None:
    old = await lab.primary()
    async with writing(lab) as writer:
        assert await old.stop() == 0, old.agent.tail()
        assert old.processes() == []
        await writes_again(lab, writer, now())
        new = await lab.primary()
        assert new is not old
        assert await lab.heal() is new
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())
