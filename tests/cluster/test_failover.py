"""Primaries that die, nodes that vanish, nodes that freeze: somebody takes writes again, and there is only one of them."""

from __future__ import annotations

import json

import pytest

from tests.cluster.conftest import writes_again, writing
from tests.lab.cluster import Lab
from tests.lab.node import now
from tests.lab.timeline import Recorder

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


async def test_a_killed_postmaster_interrupts_writes_only_for_a_while(lab: Lab) -> None:
    old = await lab.primary()
    async with writing(lab) as writer:
        killed = now()
        pid = old.kill_postmaster()
        await writes_again(lab, writer, killed)
        new = await lab.heal()
        assert old.postmaster() not in (None, pid)
        assert await lab.primaries() == {new.name}
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())


async def test_a_killed_standby_is_started_again_and_the_primary_stays(lab: Lab) -> None:
    leader = await lab.primary()
    standby = next(node for node in lab.nodes if node is not leader)
    async with writing(lab) as writer:
        pid = standby.kill_postmaster()

        async def back() -> bool:
            return standby.postmaster() not in (None, pid)

        await lab.wait_for(back, f"{standby.name} runs again")
        assert await lab.heal() is leader
        account = await lab.account(writer)
        assert (account.lost, account.unknown, account.refused) == ((), 0, 0)


async def test_a_lost_node_costs_its_leadership_and_history_says_so(lab: Lab) -> None:
    old = await lab.primary()
    [before] = await old.fetch("select timeline_id from pg_control_checkpoint()")
    async with writing(lab) as writer:
        died = now()
        await old.kill_everything()
        await writes_again(lab, writer, died)
        new = await lab.heal()
        assert new is not old
        assert await lab.primaries() == {new.name}

        async def told() -> bool:
            lines = json.loads((await lab.keys()).get("history", "[]"))
            return any(line[0] == before["timeline_id"] and line[4] == new.name for line in lines)

        await lab.wait_for(told, f"history tells that timeline {before['timeline_id']} ended with {new.name} as leader")
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())


async def test_a_frozen_primary_is_replaced_and_follows_when_it_thaws(lab: Lab) -> None:
    old = await lab.primary()
    async with writing(lab) as writer:
        frozen = now()
        old.freeze_everything()
        try:

            async def replaced() -> bool:
                leader = await lab.leader()
                return leader is not None and leader is not old

            await lab.wait_for(replaced, f"somebody else than the frozen {old.name} leads")
            await writes_again(lab, writer, frozen)
        finally:
            old.thaw_everything()
        new = await lab.heal()
        assert new is not old
        assert await lab.primaries() == {new.name}
        assert not await old.healthy("/primary")
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())


async def test_of_two_candidates_that_race_exactly_one_wins_and_the_other_follows(lab: Lab) -> None:
    old = await lab.primary()
    racers = [node for node in lab.nodes if node is not old]
    async with Recorder(lab) as recorder:
        # Both sleep until the key is gone, so that they find it free at the same instant.
        for node in racers:
            node.agent.freeze()
        await old.kill_everything()

        async def free() -> bool:
            return "leader" not in await lab.keys()

        await lab.wait_for(free, "the dead leader's key expires")
        for node in racers:
            node.agent.thaw()
        new = await lab.primary()
        assert new in racers
        await lab.heal()
        wins = [change.value for change in recorder.changes if change.key == lab.prefix + "leader" and change.value is not None]
        assert wins == [new.name]
        assert await lab.primaries() == {new.name}

        async def nobody_stands() -> bool:  # the key of a pledge stays, saying so: whatever was sent late finds another revision
            pledges = [value for key, value in (await lab.keys()).items() if key.startswith("rivha/pledges/")]
            return all(json.loads(value) == {"withdrawn": True} for value in pledges)

        await lab.wait_for(nobody_stands, "every pledge is withdrawn")
