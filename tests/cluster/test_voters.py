"""Voters come and go: who stops or gives up its data is no voter by then; an agent that is killed and comes back costs nothing."""

from __future__ import annotations

import json
import os
from datetime import datetime

import pytest

from tests.cluster.conftest import all_have_looked, any_of, configured, shows, writes_again, writing
from tests.lab.cluster import Lab
from tests.lab.node import Node, now
from tests.lab.timeline import Recorder, monotonic
from tests.lab.writer import Writer

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


def taken_out_at(recorder: Recorder, name: str, since: float) -> float:
    """When etcd's `sync` first said that this node is no voter."""
    for change in recorder.changes:
        if change.key == recorder.lab.prefix + "sync" and change.at > since and change.value is not None:
            voters = json.loads(change.value).get("sync_standby") or ""
            if name not in voters.split(","):
                return change.at
    raise AssertionError(f"{name} was never taken out: {recorder.changes}")


def began_at(node: Node, job: str, since: float) -> float:
    """When its agent's log says that a job of this kind began."""
    for record in node.log_records():
        if record.get("message") == "job begins" and record.get("job") == job:
            # The log's wall-clock time has no zone: it is the machine's.
            at = monotonic(datetime.strptime(record["asctime"], "%Y-%m-%d %H:%M:%S,%f").timestamp())  # noqa: DTZ007
            if at > since:
                return at
    raise AssertionError(f"{node.name} began no {job}\n{node.agent.tail()}")


async def test_a_voter_that_stops_is_taken_out_first_and_no_commit_waits_for_it(lab: Lab) -> None:
    leader = await lab.primary()
    stopping, other = await lab.replicas()
    both = {stopping.name, other.name}
    # Each commit waits for both, and would wait for the rest of this test if the one that goes were still named.
    async with configured(lab, synchronous_node_count=2, degrade_after=600):
        await shows(lab, both, 0, any_of(2, both))
        await all_have_looked(lab)
        async with writing(lab) as writer, Recorder(lab) as recorder:
            since = now()
            assert await stopping.stop() == 0, stopping.agent.tail()
            await writes_again(lab, writer, now())
            assert taken_out_at(recorder, stopping.name, since) < began_at(stopping, "stop", since)
            await shows(lab, {other.name}, 0, any_of(1, {other.name}))
            assert await lab.heal() is leader
            await shows(lab, both, 0, any_of(2, both))
            account = await lab.account(writer)
            assert (account.lost, account.ghosts, account.unknown, account.refused) == ((), (), 0, 0), writer.complaints


async def test_a_voter_that_is_cloned_anew_is_taken_out_first_and_votes_again(lab: Lab) -> None:
    leader = await lab.primary()
    voter, other = await lab.replicas()
    inode = os.stat(voter.data).st_ino
    async with writing(lab) as writer, Recorder(lab) as recorder:
        since = now()
        code, text = await voter.ask("POST", "/reinitialize", {"force": True}, 60)
        assert code == 200, text

        async def fresh() -> bool:
            return voter.data.exists() and os.stat(voter.data).st_ino != inode

        await lab.wait_for(fresh, f"{voter.name} has a new data directory")
        assert await lab.heal() is leader
        assert taken_out_at(recorder, voter.name, since) < began_at(voter, "set_aside", since)
        await shows(lab, {voter.name, other.name}, 1, any_of(1, {voter.name, other.name}))
        account = await lab.account(writer)
        assert (account.lost, account.ghosts, account.unknown, account.refused) == ((), (), 0, 0), writer.complaints


async def test_an_agent_that_is_killed_and_comes_back_costs_no_write_and_no_leadership(lab: Lab) -> None:
    leader = await lab.primary()
    pid = leader.postmaster()
    # On a quiet machine it is back within a second; this test shall not depend on how busy the machine is.
    async with configured(lab, ttl=120, suspect_after=60):
        await all_have_looked(lab)
        await leader.fetch("drop table if exists past")
        writer = Writer(leader.postgres_port, lab.passwords.superuser, "past")  # past HAProxy, whose patience is another matter
        await writer.prepare()
        async with Recorder(lab) as recorder:
            writer.start()
            try:
                for _ in range(3):
                    await leader.kill_agent()
                    leader.start()
                    assert await lab.heal() is leader
                await writes_again(lab, writer, now())
            finally:
                await writer.stop()
            wrote = [change for change in recorder.changes if change.key in (lab.prefix + "leader", lab.prefix + "rivha/resigned")]
            assert wrote == []
        assert leader.postmaster() == pid
        account = await lab.account(writer)
        assert (account.lost, account.ghosts, account.unknown, account.refused) == ((), (), 0, 0), writer.complaints


async def test_a_voter_without_its_agent_still_holds_commits_and_votes_when_it_is_back(lab: Lab) -> None:
    leader = await lab.primary()
    voter, other = await lab.replicas()
    await voter.kill_agent()
    await all_have_looked(lab, 4)
    assert await lab.voters() == {voter.name, other.name}
    voter.start()
    assert await lab.heal() is leader


async def test_what_was_acknowledged_by_one_of_two_voters_is_in_the_next_primary(lab: Lab) -> None:
    old = await lab.primary()
    frozen, _ = await lab.replicas()
    async with configured(lab, degrade_after=600):  # the frozen one stays a voter
        await all_have_looked(lab)
        await old.fetch("create table if not exists held (n int)")
        frozen.freeze_postgres()
        try:
            await old.fetch("insert into held select generate_series(1, 1000)")
            await old.kill_everything()
        finally:
            frozen.thaw_postgres()
        new = await lab.primary(120)
        assert new is not old
        [row] = await new.fetch("select count(*) from held")
        assert row["count"] == 1000
    await lab.heal()
    await (await lab.primary()).fetch("drop table held")
