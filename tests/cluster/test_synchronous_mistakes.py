"""What people ask for that cannot be, and what a `sync` key can hold that must not be: clear words, a safe standstill, a way out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.cluster.conftest import all_have_looked, any_of, configured, shows
from tests.cluster.test_switchover import rivhactl
from tests.lab.cluster import Lab
from tests.lab.node import Node

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


async def refused(node: Node, path: str, body: dict[str, object], *words: str) -> None:
    code, text = await node.ask("POST", path, body, 60)
    assert code in (400, 412), (code, text)
    for word in words:
        assert word in text, text


async def nothing_is_filed(lab: Lab, leader: Node) -> None:
    assert await lab.primary() is leader
    assert "failover" not in await lab.keys()


async def test_an_unknown_candidate_and_a_time_in_the_past_are_refused(lab: Lab) -> None:
    leader = await lab.primary()
    standby = (await lab.replicas())[0]
    await refused(leader, "/switchover", {"leader": leader.name, "candidate": "db9"}, "there is no member db9")
    await refused(standby, "/failover", {"candidate": "db9"}, "there is no member db9")
    past = {"leader": leader.name, "candidate": standby.name, "scheduled_at": "2001-01-01T00:00:00+00:00"}
    await refused(leader, "/switchover", past, "in the past")
    said = await rivhactl(lab, "switchover", "--candidate", "db9", "--force")
    assert said.exit_code != 0
    assert "there is no member db9" in said.tail(20)
    await nothing_is_filed(lab, leader)


async def test_paused_a_switchover_wants_a_candidate_and_no_schedule(lab: Lab) -> None:
    leader = await lab.primary()
    candidate = (await lab.replicas())[0]
    await lab.pause(True)
    try:
        await refused(leader, "/switchover", {"leader": leader.name}, "only to a specific candidate in a paused state")
        later = {"leader": leader.name, "candidate": candidate.name, "scheduled_at": "2099-01-01T00:00:00+00:00"}
        await refused(leader, "/switchover", later, "Can't schedule switchover in the paused state")
        await nothing_is_filed(lab, leader)
    finally:
        await lab.pause(False)


async def test_a_candidate_that_may_not_lead_is_refused_and_never_elected(lab: Lab) -> None:
    leader = await lab.primary()
    barred, other = await lab.replicas()
    assert await barred.stop() == 0
    barred.write_config(tags={"nofailover": True})
    try:
        await lab.heal()
        await shows(lab, {other.name}, 0, any_of(1, {other.name}))
        await refused(leader, "/switchover", {"leader": leader.name, "candidate": barred.name}, f"{barred.name} has the tag nofailover")
        await nothing_is_filed(lab, leader)
        await leader.kill_everything()
        assert await lab.primary(120) is other
    finally:
        await barred.kill_agent()
        barred.write_config()


async def test_a_failover_to_who_may_lack_commits_wants_the_loss_accepted(lab: Lab) -> None:
    leader = await lab.primary()
    async with configured(lab, synchronous_mode="on"):
        await lab.heal()
        [voter] = await lab.voters()
        [other] = [node for node in lab.nodes if node.name not in (voter, leader.name)]
        await refused(leader, "/failover", {"candidate": other.name}, "may lack acknowledged commits", "accept-loss")
        switchover = {"leader": leader.name, "candidate": other.name}
        await refused(leader, "/switchover", switchover, "candidate name does not match with sync_standby")
        await nothing_is_filed(lab, leader)
        done = await rivhactl(lab, "failover", "--candidate", other.name, "--accept-loss", "--force")
        assert done.exit_code == 0, done.tail(50)
        assert "lost" in done.tail(50), "it says what the failover may cost"
        assert await lab.heal() is other


# ---- the `sync` key


@asynccontextmanager
async def leaderless(lab: Lab, sync: str) -> AsyncIterator[Node]:
    """The leader's host is lost, and `sync` was overwritten by somebody before anybody could act on either. Yields who led."""
    old = await lab.primary()
    standbys = await lab.replicas()
    for node in standbys:
        node.agent.freeze()
    try:
        await old.kill_everything()
        await lab.etcd.put(lab.prefix + "sync", sync)
    finally:
        for node in standbys:
            node.agent.thaw()

    async def gone() -> bool:
        return "leader" not in await lab.keys()

    await lab.wait_for(gone, "the leader's key expires")
    await all_have_looked(lab, 3)
    yield old


async def stands_still(lab: Lab, words: str) -> None:
    """Nobody is promoted, and rivhactl and the agents' logs say why."""

    async def said() -> bool:
        return words in (await rivhactl(lab, "list")).tail(100)

    await lab.wait_for(said, f"rivhactl list says {words!r}")
    await all_have_looked(lab, 3)
    assert await lab.primaries() == set()
    for node in lab.nodes:
        if node.agent.alive:
            assert any(words in str(record.get("lease", "")) + str(record.get("key", "")) for record in node.log_records()), (
                node.agent.tail()
            )


async def test_a_sync_key_that_cannot_be_read_promotes_nobody_until_it_is_mended(lab: Lab) -> None:
    good = (await lab.keys())["sync"]
    async with leaderless(lab, "{not json") as old:
        await stands_still(lab, "sync: is not JSON")
        await lab.etcd.put(lab.prefix + "sync", good)
        assert await lab.primary(120) is not old
    await lab.heal()


async def test_a_running_leader_goes_on_over_a_sync_key_that_cannot_be_read(lab: Lab) -> None:
    leader = await lab.primary()
    others = {node.name for node in lab.nodes} - {leader.name}
    await lab.etcd.put(lab.prefix + "sync", "{not json")
    await all_have_looked(lab, 3)
    await leader.fetch("create table garbled (n int)")
    await leader.fetch("drop table garbled")
    assert (await lab.keys())["sync"] == "{not json", "it is for a person to look at"
    await lab.etcd.delete(lab.prefix + "sync")
    await shows(lab, others, 1, any_of(1, others))
    assert await lab.heal() is leader


async def test_a_sync_key_that_names_nobody_alive_promotes_nobody_until_an_operator_decides(lab: Lab) -> None:
    async with leaderless(lab, json.dumps({"leader": "db8", "sync_standby": "db9", "quorum": 0})) as old:
        await stands_still(lab, "db8 may still be alive")
        heir = next(node for node in lab.nodes if node is not old)
        done = await rivhactl(lab, "failover", "--candidate", heir.name, "--accept-loss", "--force")
        assert done.exit_code == 0, done.tail(50)
        assert await lab.primary() is heir
    await lab.heal()


async def test_without_a_sync_key_an_operator_gives_the_lead_back_to_who_led_last(lab: Lab) -> None:
    """As docs/operations.md says: it holds everything, and etcd has forgotten that."""
    async with leaderless(lab, "{}") as old:
        await lab.etcd.delete(lab.prefix + "sync")
        await stands_still(lab, "etcd has lost who held the commits")
        old.start()
        await all_have_looked(lab, 3)
        assert await lab.primaries() == set()
        done = await rivhactl(lab, "failover", "--candidate", old.name, "--accept-loss", "--force")
        assert done.exit_code == 0, done.tail(50)
        assert await lab.primary(120) is old
    await lab.heal()


async def test_a_running_leader_puts_a_sync_key_that_names_another_right(lab: Lab) -> None:
    leader = await lab.primary()
    others = {node.name for node in lab.nodes} - {leader.name}
    await lab.etcd.put(lab.prefix + "sync", json.dumps({"leader": "db8", "sync_standby": "db9", "quorum": 0}))
    await shows(lab, others, 1, any_of(1, others))
    assert await lab.heal() is leader
