"""The synchronous modes on a real cluster: changed while clients write, short of standbys, strict; and what people see of them."""

from __future__ import annotations

import asyncio

import pytest

from rivha.agent.brain.quorum import BLOCK
from tests.cluster.conftest import all_have_looked, any_of, configure, configured, shows, writes_again, writing
from tests.cluster.test_switchover import rivhactl
from tests.lab.cluster import Lab
from tests.lab.node import Node, Wishes, close, now
from tests.lab.timeline import Recorder

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


async def says(lab: Lab, text: str) -> None:
    """`rivhactl list` does, sooner or later."""

    async def said() -> bool:
        return text in (await rivhactl(lab, "list")).tail(100)

    await lab.wait_for(said, f"rivhactl list says {text!r}")


async def answer(lab: Lab, path: str, wanted: set[str]) -> None:
    """Exactly these nodes answer 200 to the check, and HAProxy routes its port to them."""
    section = path.strip("/")

    async def so() -> bool:
        healthy = {node.name for node in lab.nodes if await node.healthy(path)}
        return healthy == wanted and set(await lab.proxy.routed(section)) == wanted

    await lab.wait_for(so, f"{path} and HAProxy's port for it are {sorted(wanted)}")


async def test_every_mode_is_reached_from_every_other_while_a_client_writes(lab: Lab) -> None:
    leader = await lab.primary()
    others = {node.name for node in lab.nodes} - {leader.name}
    async with configured(lab, synchronous_mode="quorum"), writing(lab) as writer:
        for mode in ("off", "quorum", "on", "off", "on", "quorum"):
            await configure(lab, {"synchronous_mode": mode})
            if mode == "off":
                await shows(lab, set(), 0, "")
                await answer(lab, "/sync", set())
                await answer(lab, "/async", others)
            elif mode == "quorum":
                await shows(lab, others, 1, any_of(1, others))
                await answer(lab, "/sync", others)
                await answer(lab, "/async", set())
                await says(lab, "Quorum Standby")
            else:
                voters = await the_one_voter(lab, others)
                await shows(lab, voters, 0, any_of(1, voters))
                await answer(lab, "/sync", voters)
                await answer(lab, "/async", others - voters)
                await says(lab, "Sync Standby")
            await writes_again(lab, writer, now())
        assert await lab.heal() is leader
        account = await lab.account(writer)
        assert (account.lost, account.ghosts, account.unknown, account.refused) == ((), (), 0, 0), writer.complaints


async def the_one_voter(lab: Lab, among: set[str]) -> set[str]:
    found: set[str] = set()

    async def one() -> bool:
        found.clear()
        found.update(await lab.voters())
        return len(found) == 1 and found <= among

    await lab.wait_for(one, f"one of {sorted(among)} votes")
    return found


async def test_of_two_that_must_hold_each_commit_one_is_lost_and_writes_go_on(lab: Lab) -> None:
    leader = await lab.primary()
    lost, other = await lab.replicas()
    both = {lost.name, other.name}
    async with configured(lab, synchronous_node_count=2), writing(lab) as writer:
        await shows(lab, both, 0, any_of(2, both))
        gone = now()
        await lost.kill_everything()
        await writes_again(lab, writer, gone)
        await shows(lab, {other.name}, 0, any_of(1, {other.name}))
        assert await lab.heal() is leader
        await shows(lab, both, 0, any_of(2, both))
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())


async def test_without_any_standby_it_goes_on_alone_says_so_and_has_voters_again_with_them(lab: Lab) -> None:
    leader = await lab.primary()
    standbys = await lab.replicas()
    others = {node.name for node in standbys}
    async with writing(lab) as writer:
        gone = now()
        await asyncio.gather(*(node.kill_everything() for node in standbys))
        await writes_again(lab, writer, gone)
        await shows(lab, set(), 0, "")
        await says(lab, f"what {leader.name} acknowledges now only {leader.name} holds, and nobody else may lead")
        assert await lab.heal() is leader
        await shows(lab, others, 1, any_of(1, others))
        account = await lab.account(writer)
        assert (account.lost, account.ghosts, account.unknown, account.refused) == ((), (), 0, 0), writer.complaints


async def test_alone_it_is_waited_for_and_nobody_else_is_promoted(lab: Lab) -> None:
    leader = await lab.primary()
    standbys = await lab.replicas()
    for node in standbys:
        await node.kill_everything()
    await shows(lab, set(), 0, "")
    await leader.fetch("create table if not exists alone (n int)")
    await leader.fetch("insert into alone values (1)")
    await leader.kill_everything()
    for node in standbys:
        node.start()
    await says(lab, f"Nobody leads: only {leader.name} holds all commits")
    assert await lab.primaries() == set()
    assert await lab.heal() is leader
    assert [row["n"] for row in await leader.fetch("select n from alone")] == [1]
    await leader.fetch("drop table alone")


async def test_a_switchover_asked_right_after_a_crash_happens(lab: Lab) -> None:
    first = await lab.primary()
    async with writing(lab) as writer:
        first.kill_postmaster()
        seconds: list[Node] = []

        async def replaced() -> bool:
            leader = await lab.leader()
            seconds[:] = [leader] if leader not in (None, first) and leader is not None else []
            return bool(seconds)

        await lab.wait_for(replaced, "another has taken over", poll_s=0.005)
        [second] = seconds
        code, text = await second.ask("POST", "/switchover", {"leader": second.name}, 60)
        assert code == 200, f"{text}\n{await lab.describe()}"
        assert await lab.heal() is not second
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())


async def test_a_crash_is_mended_in_place_if_it_is_to_be(lab: Lab) -> None:
    leader = await lab.primary()
    async with configured(lab, failover_on_crash=False), writing(lab) as writer, Recorder(lab) as recorder:
        await all_have_looked(lab)
        killed, pid = now(), leader.kill_postmaster()
        await writes_again(lab, writer, killed)
        assert await lab.heal() is leader
        assert leader.postmaster() not in (None, pid)
        assert not [change for change in recorder.changes if change.key == lab.prefix + "rivha/resigned"]
        account = await lab.account(writer)
        assert (account.lost, account.ghosts) == ((), ())


# ---- strict


async def test_strict_and_alone_commits_wait_it_says_why_and_they_go_on_when_a_standby_comes() -> None:
    async with Lab(2, wishes=Wishes(dynamic={"synchronous_mode_strict": True})) as lab:
        first, second = lab.nodes
        first.start()
        assert await lab.primary(120) is first
        await shows(lab, set(), 0, BLOCK.text)
        session = await first.connect()
        try:
            commit = asyncio.create_task(session.execute("create table waited (n int)", timeout=300))
            await says(lab, "commits wait: there is no synchronous standby, and synchronous_mode_strict is on")
            said = [record.get("postgres", "") for record in first.log_records()]
            assert any("synchronous_mode_strict" in text for text in said), said
            assert not commit.done()
            second.start()
            await commit
        finally:
            await close(session)
        await shows(lab, {second.name}, 0, any_of(1, {second.name}))
        assert await lab.heal() is first

        async def replayed() -> bool:
            return (await second.fetch("select to_regclass('waited') as name"))[0]["name"] is not None

        await lab.wait_for(replayed, "the standby shows what it has")


async def test_strict_a_lost_voter_is_waited_for_and_may_still_elect_and_strictness_can_be_lifted() -> None:
    async with Lab(2, wishes=Wishes(dynamic={"synchronous_mode_strict": True})) as lab:
        leader = await lab.up()
        [voter] = await lab.replicas()
        await voter.kill_everything()
        session = await leader.connect()
        try:
            commit = asyncio.create_task(session.execute("create table waited (n int)", timeout=300))
            await all_have_looked(lab, 4)  # for longer than degrade_after
            assert not commit.done()
            assert await lab.voters() == {voter.name}
            voter.start()
            await commit
        finally:
            await close(session)
        await lab.heal()
        await leader.kill_everything()
        assert await lab.primary(120) is voter
        assert await voter.fetch("select * from waited") == []
        session = await voter.connect()
        try:
            commit = asyncio.create_task(session.execute("drop table waited", timeout=300))
            await says(lab, "commits wait: ")
            assert not commit.done()
            eased = await rivhactl(lab, "edit-config", "-s", "synchronous_mode_strict=false", "--force")
            assert eased.exit_code == 0, eased.tail()
            await commit
        finally:
            await close(session)
