"""Planned changes of the primary: no row is lost, and the old one follows at once."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from tests.cluster.conftest import writes_again, writing
from tests.lab.cluster import Lab
from tests.lab.node import REPOSITORY, Node, now
from tests.lab.processes import Process, give_away

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


async def test_a_scheduled_switchover_waits_for_its_time_and_happens(lab: Lab) -> None:
    old = await lab.primary()
    candidate = next(node for node in lab.nodes if node is not old)
    at = datetime.now(UTC) + timedelta(seconds=4)
    async with writing(lab) as writer:
        body = {"leader": old.name, "candidate": candidate.name, "scheduled_at": at.isoformat()}
        code, text = await old.ask("POST", "/switchover", body, 60)
        assert code == 202, (code, text)
        assert json.loads((await lab.keys())["failover"])["member"] == candidate.name

        async def led() -> bool:
            return await lab.leader() is candidate

        await lab.wait_for(led, f"{candidate.name} leads")
        assert datetime.now(UTC) >= at
        await writes_again(lab, writer, now())
        assert await lab.heal() is candidate
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())
        assert "failover" not in await lab.keys()


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


async def test_a_script_that_tells_of_the_stop_may_finish_although_the_agent_ends(lab: Lab) -> None:
    """A virtual address that is half removed is not removed (HAZARDS C 47)."""
    old = await lab.primary()
    script, said, read = old.folder / "callback", old.folder / "said", _told(old, "configuration read again")
    script.write_text(f"#!/bin/sh\nsleep 1\necho $1 $2 >> {said}\n")
    script.chmod(0o755)
    said.touch()
    give_away(script)
    give_away(said)
    settings = yaml.safe_load(old.config.read_text())
    old.write_config(postgresql=settings["postgresql"] | {"callbacks": {"on_stop": str(script)}})
    try:
        old.agent.signal(signal.SIGHUP)

        async def reread() -> bool:
            return _told(old, "configuration read again") > read

        await lab.wait_for(reread, "the configuration is read again")
        assert await old.stop() == 0, old.agent.tail()
        assert said.read_text() == "on_stop primary\n"
    finally:
        old.write_config()


async def test_a_second_signal_changes_nothing(lab: Lab) -> None:
    """HAZARDS C 50. The first one's hand-over is held up at its checkpoint until the others were heard."""
    old = await lab.primary()
    [checkpointer] = await old.fetch("select pid from pg_stat_activity where backend_type = 'checkpointer'")
    begun, asked = _told(old, "job begins", "handover"), _told(old, "asked to end")
    async with writing(lab) as writer:
        os.kill(checkpointer["pid"], signal.SIGSTOP)
        try:
            old.agent.signal(signal.SIGTERM)

            async def hands_over() -> bool:
                return _told(old, "job begins", "handover") > begun

            await lab.wait_for(hands_over, "the hand-over begins")
            for another in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                old.agent.signal(another)
                assert (await old.ask("GET", "/liveness"))[0] == 200, "it answers, so it has heard the signal, and goes on"
        finally:
            with suppress(ProcessLookupError):
                os.kill(checkpointer["pid"], signal.SIGCONT)
        assert await old.agent.ended(60) == 0, old.agent.tail()
        assert _told(old, "asked to end") == asked + 1
        assert old.processes() == []
        new = await lab.heal()
        assert new is not old
        await writes_again(lab, writer, now())
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())


def _told(node: Node, *words: str) -> int:
    """How many lines of its agent's log hold all of these."""
    return len([line for line in node.agent.log.read_text().splitlines() if all(word in line for word in words)])
