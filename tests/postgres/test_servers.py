"""Promises of the real adapter about what the model has no notion of: files, programs, settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rivha.errors import CommandFailed
from rivha.model import Data, Role, State
from rivha.postgres.process import processes_of
from rivha.postgres.settings import Credentials
from tests.postgres.nodes import Nodes, caught_up, commit, eventually, has
from tests.postgres.versions import nodes

__all__ = ["nodes"]
pytestmark = pytest.mark.real


async def test_bootstrap_makes_the_users(nodes: Nodes):
    a = await nodes.primary()
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


async def test_a_standby_gets_at_least_the_sizes_its_primary_had(nodes: Nodes):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    smaller = {"postgresql": {"parameters": {"max_connections": 30}}}
    await b.server.configure(smaller, reload=True)
    await b.server.restart()
    await eventually(b.streams)
    assert await b.sql("SHOW max_connections") == "50"
    assert (await b.status()).pending_restart == {"max_connections": ("50", "30")}


async def test_replay_that_stopped_for_a_larger_setting_of_the_primary_is_explained_and_a_start_mends_it(nodes: Nodes):
    """Raised on the primary first: the standby streams on, replays nothing and could not be promoted (HAZARDS D 66)."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await a.server.configure({"postgresql": {"parameters": {"max_connections": 60}}}, reload=True)
    await a.server.restart()

    async def stopped_by_itself() -> bool:
        return (await b.status()).too_small == {"max_connections": (50, 60)}

    await eventually(stopped_by_itself)
    assert "max_connections is 50 here and 60 on the primary" in (await b.status()).problem
    await b.server.stop(fast_s=10)
    await b.server.start(primary=False, upstream=a.upstream)
    await eventually(b.streams)
    await caught_up(b, a)
    assert (await b.status()).too_small == {}


async def test_a_start_that_fails_says_what_postgres_said(nodes: Nodes):
    a = await nodes.primary()
    await a.server.stop(fast_s=30)
    with (a.data_dir / "postgresql.base.conf").open("a") as base:
        base.write("no_such_setting = 1\n")
    with pytest.raises(CommandFailed, match="no_such_setting"):
        await a.server.start(primary=True, upstream=None)
    assert (await a.status()).state is State.STOPPED


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


async def test_a_mistyped_setting_is_left_out_and_the_others_are_taken(nodes: Nodes):
    a = await nodes.primary()
    mistaken = {"no_such_setting": 1, "work_mem": "a lot", "maintenance_work_mem": "9MB"}
    await a.server.configure({"postgresql": {"parameters": mistaken}}, reload=True)
    await a.server.restart()
    assert await a.sql("SHOW maintenance_work_mem") == "9MB"
    assert await a.sql("SHOW work_mem") == "4MB"
