"""The contract of rivha.postgres.base.Postgres, on real servers. Each test is one promise; what is simulated must keep it too."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from rivha.errors import CommandFailed
from rivha.model import Data, Role, State
from rivha.postgres.process import processes_of
from rivha.postgres.settings import Credentials
from tests.postgres.nodes import DYNAMIC, Nodes, caught_up, commit, eventually, has, slots, take_over
from tests.postgres.versions import nodes

__all__ = ["nodes"]
pytestmark = pytest.mark.real


# ---- bootstrap


async def test_bootstrap_makes_a_writable_primary_of_an_empty_directory(nodes: Nodes):
    a = nodes.node("a")
    assert (await a.status()).data is Data.EMPTY
    system_id = await a.server.bootstrap()
    status = await a.status()
    assert (status.state, status.role, status.data, status.timeline) == (State.RUNNING, Role.PRIMARY, Data.VALID, 1)
    assert status.system_id == system_id
    assert status.rewindable
    await commit(a, "t")
    assert await a.sql("SELECT array_agg(rolname::text ORDER BY rolname) FROM pg_roles WHERE rolcanlogin") == [
        "postgres",
        "replicator",
        "rewinder",
    ]


async def test_bootstrap_refuses_a_directory_that_holds_anything(nodes: Nodes):
    a = nodes.node("a")
    a.data_dir.mkdir(mode=0o700)
    (a.data_dir / "precious").write_text("do not touch")
    with pytest.raises(CommandFailed, match="not empty"):
        await a.server.bootstrap()
    assert (a.data_dir / "precious").read_text() == "do not touch"
    assert (await a.status()).data is Data.INACCESSIBLE


async def test_a_failed_bootstrap_leaves_the_place_empty_and_what_was_made_beside_it(nodes: Nodes):
    a = nodes.node("a", post_init="/bin/false")
    with pytest.raises(CommandFailed, match="post_init"):
        await a.server.bootstrap()
    assert processes_of(a.settings.data_dir) == []
    assert (await a.status()).data is Data.EMPTY
    assert [p for p in a.data_dir.parent.iterdir() if p.name.startswith("a.failed.")]


async def test_post_init_gets_a_url_that_works(nodes: Nodes, tmp_path: Path):
    script = tmp_path / "post_init"
    script.write_text(f'#!/bin/sh\nexec {nodes.bin_dir}/psql -Xw "$1" -c "CREATE TABLE made_by_script ()"\n')
    script.chmod(0o755)
    a = await nodes.primary(post_init=str(script))
    assert await has(a, "made_by_script")


# ---- clone, start, stream


async def test_a_clone_starts_as_a_standby_and_streams(nodes: Nodes):
    a = await nodes.primary()
    await commit(a, "before")
    b = await nodes.standby(of=a)
    await commit(a, "after")
    await caught_up(b, a)
    assert await has(b, "before")
    assert await has(b, "after")
    status, of_a = await b.status(), await a.status()
    assert (status.state, status.role, status.timeline, status.upstream) == (State.RUNNING, Role.STANDBY, 1, a.upstream.address)
    assert status.system_id == of_a.system_id
    assert status.replay_age_s is not None
    assert [(r.application_name, r.usename, r.state) for r in of_a.replication] == [("b", "replicator", "streaming")]
    assert set(of_a.slots) == {"b"}


async def test_a_clone_refuses_a_directory_that_holds_anything(nodes: Nodes):
    a, b = await nodes.primary(), nodes.node("b")
    b.data_dir.mkdir()
    (b.data_dir / "precious").write_text("do not touch")
    with pytest.raises(CommandFailed, match="not empty"):
        await b.server.clone(a.upstream)
    assert os.listdir(b.data_dir) == ["precious"]


async def test_a_clone_that_breaks_off_leaves_nothing_that_could_be_started(nodes: Nodes):
    a = await nodes.primary()
    b = nodes.node("b", replication=Credentials("replicator", "wrong"))
    with pytest.raises(CommandFailed, match="password authentication failed"):
        await b.server.clone(a.upstream)
    assert (await b.status()).data in (Data.EMPTY, Data.UNFINISHED)
    with pytest.raises(CommandFailed):
        await b.server.start(primary=False, upstream=a.upstream)


async def test_a_cancelled_clone_leaves_nothing_that_could_be_started_and_can_be_repeated(nodes: Nodes):
    a, b = await nodes.primary(), nodes.node("b")
    cloning = asyncio.create_task(b.server.clone(a.upstream))

    async def begun() -> bool:
        return cloning.done() or (b.data_dir / ".rivha-new" / "base").exists()

    await eventually(begun)
    cloning.cancel()
    await asyncio.wait([cloning])
    with pytest.raises(CommandFailed):
        await b.server.start(primary=False, upstream=a.upstream)
    await b.server.clone(a.upstream)
    await b.server.start(primary=False, upstream=a.upstream)
    await slots(a, "b")
    await eventually(b.streams)


async def test_a_standby_gets_at_least_the_sizes_its_primary_had(nodes: Nodes):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    smaller = {"postgresql": {"parameters": {"max_connections": 30}}}
    await b.server.configure(smaller, reload=True)
    await b.server.restart()
    await eventually(b.streams)
    assert await b.sql("SHOW max_connections") == "50"
    assert (await b.status()).pending_restart == {"max_connections": ("50", "30")}


# ---- starting and stopping


async def test_start_leaves_what_runs_in_that_role_alone_and_refuses_the_other(nodes: Nodes):
    a = await nodes.primary()
    pid = (await a.status()).pid
    await a.server.start(primary=True, upstream=None)
    with pytest.raises(CommandFailed, match="primary"):
        await a.server.start(primary=False, upstream=None)
    assert (await a.status()).pid == pid


async def test_a_killed_postmaster_is_noticed_and_started_in_place(nodes: Nodes):
    a = await nodes.primary()
    await commit(a, "t")
    await a.status()
    a.kill_postmaster()

    async def noticed() -> bool:
        return bool(a.deaths)

    await eventually(noticed)
    status = await a.status()
    assert (status.state, status.role, status.clean) == (State.CRASHED, Role.PRIMARY, False)
    await a.server.start(primary=True, upstream=None)
    status = await a.status()
    assert (status.state, status.role, status.timeline) == (State.RUNNING, Role.PRIMARY, 1)
    assert await has(a, "t")


async def test_a_start_that_fails_says_what_postgres_said(nodes: Nodes):
    a = await nodes.primary()
    await a.server.stop(fast_s=30)
    with (a.data_dir / "postgresql.base.conf").open("a") as base:
        base.write("no_such_setting = 1\n")
    with pytest.raises(CommandFailed, match="no_such_setting"):
        await a.server.start(primary=True, upstream=None)
    assert (await a.status()).state is State.STOPPED


async def test_a_fast_stop_is_clean(nodes: Nodes):
    a = await nodes.primary()
    await a.server.stop(fast_s=30)
    status = await a.status()
    assert (status.state, status.role, status.clean) == (State.STOPPED, Role.PRIMARY, True)
    assert processes_of(a.settings.data_dir) == []
    await a.server.stop(fast_s=30)


async def test_a_stop_that_is_not_heard_kills(nodes: Nodes):
    a = await nodes.primary()
    pid = (await a.status()).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await a.server.stop(fast_s=0.2, quit_s=0.2)
    assert processes_of(a.settings.data_dir) == []
    assert (await a.status()).state is State.CRASHED


async def test_silence_is_neither_death_nor_another_role(nodes: Nodes):
    a = await nodes.primary()
    assert (await a.status()).role is Role.PRIMARY
    frozen = processes_of(a.settings.data_dir)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    status = await a.server.status(0.5)
    assert (status.state, status.role) == (State.SILENT, Role.PRIMARY)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)

    async def answers() -> bool:
        return (await a.status()).state is State.RUNNING

    await eventually(answers)


async def test_a_new_agent_adopts_what_runs(nodes: Nodes):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    pid = (await b.status()).pid
    await b.server.close()
    adopted = b.again()
    nodes.made[1] = adopted
    adopted.server.on_death(lambda: adopted.deaths.append(0.0))
    await adopted.server.configure(DYNAMIC, reload=True)
    status = await adopted.status()
    assert (status.pid, status.state, status.upstream) == (pid, State.RUNNING, a.upstream.address)
    await adopted.server.follow(a.upstream)
    await commit(a, "t")
    await caught_up(adopted, a)
    assert (await adopted.status()).pid == pid
    adopted.kill_postmaster()

    async def noticed() -> bool:
        return bool(adopted.deaths)

    await eventually(noticed)


# ---- freeze, promote, follow


async def test_after_a_freeze_nothing_more_arrives(nodes: Nodes):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await commit(a, "before")
    await caught_up(b, a)
    end = await b.server.freeze()
    await commit(a, "after")
    status = await b.status()
    assert status.upstream is None
    assert not status.streaming
    assert end.timeline == 1
    assert end.lsn == max(status.receive_lsn or 0, status.replay_lsn or 0)
    assert await has(b, "before")
    assert not await has(b, "after")
    assert not (await a.status()).replication
    await b.server.configure({"postgresql": {"parameters": {"work_mem": "5MB"}}}, reload=True)
    assert await b.server.freeze() == end


async def test_the_end_of_wal_is_known_after_a_restart_without_anybody_to_stream_from(nodes: Nodes):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await commit(a, "t")
    await caught_up(b, a)
    before = (await b.status()).replay_lsn
    await a.server.stop(fast_s=0)
    await b.server.stop(fast_s=30)
    await b.server.start(primary=False, upstream=None)
    end = await b.server.freeze()
    assert before is not None
    assert end.lsn >= before
    assert end.timeline == 1


async def test_a_promoted_standby_is_writable_on_a_new_timeline(nodes: Nodes):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await commit(a, "t")
    await caught_up(b, a)
    await a.server.stop(fast_s=0)
    end = await b.server.freeze()
    await b.server.promote()
    await b.server.promote()
    status = await b.status()
    assert (status.role, status.timeline) == (Role.PRIMARY, 2)
    assert await has(b, "t")
    await commit(b, "u")
    ((timeline, lsn),) = [(line.timeline, line.lsn) for line in await b.server.timelines()]
    assert timeline == 1
    assert lsn <= end.lsn


async def test_follow_changes_the_upstream_without_a_restart(nodes: Nodes):
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    pid = (await c.status()).pid
    await c.server.freeze()
    await take_over(b, "c")
    await c.server.follow(b.upstream)
    await eventually(c.streams)
    await commit(b, "t")
    await caught_up(c, b)
    status = await c.status()
    assert (status.pid, status.upstream, status.timeline) == (pid, b.upstream.address, 2)


# ---- the rest


async def test_set_aside_moves_and_does_not_delete(nodes: Nodes):
    a = await nodes.primary()
    with pytest.raises(CommandFailed, match="running"):
        await a.server.set_aside("diverged")
    await a.server.stop(fast_s=30)
    moved = Path(await a.server.set_aside("diverged"))
    assert moved.name.startswith("a.diverged.")
    assert (moved / "global" / "pg_control").exists()
    assert (await a.status()).data is Data.EMPTY


async def test_a_changed_setting_is_in_force_or_waits_for_a_restart_and_says_so(nodes: Nodes):
    a = await nodes.primary()
    await a.server.configure({"postgresql": {"parameters": {"max_connections": 60, "work_mem": "7MB"}}}, reload=True)

    async def taken() -> bool:
        return await a.sql("SHOW work_mem") == "7MB"

    await eventually(taken)
    assert (await a.status()).pending_restart == {"max_connections": ("50", "60")}
    await a.server.restart()
    status = await a.status()
    assert status.pending_restart == {}
    assert status.role is Role.PRIMARY
    assert await a.sql("SHOW max_connections") == "60"


async def test_slots_are_made_kept_while_in_use_and_dropped(nodes: Nodes):
    a = await nodes.primary()
    await nodes.standby(of=a)
    await slots(a, "b", "c")
    assert set((await a.status()).slots) == {"b", "c"}
    await slots(a)
    assert set((await a.status()).slots) == {"b"}, "b streams from its slot"


async def test_a_standbys_slots_are_advanced_but_not_beyond_its_replay(nodes: Nodes):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await slots(b, "c")
    begin = (await b.status()).slots["c"]
    await commit(a, "t")
    await caught_up(b, a)
    far = 1 << 40
    await b.status()
    await b.server.keep_slots({"c"}, {"c": far})
    status = await b.status()
    assert status.replay_lsn is not None
    assert begin < status.slots["c"] <= status.replay_lsn


async def test_a_mistyped_setting_is_left_out_and_the_others_are_taken(nodes: Nodes):
    a = await nodes.primary()
    mistaken = {"no_such_setting": 1, "work_mem": "a lot", "maintenance_work_mem": "9MB"}
    await a.server.configure({"postgresql": {"parameters": mistaken}}, reload=True)
    await a.server.restart()
    assert await a.sql("SHOW maintenance_work_mem") == "9MB"
    assert await a.sql("SHOW work_mem") == "4MB"
