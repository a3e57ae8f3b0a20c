"""Programs, callbacks, and the identity of processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from rivha.errors import CannotRun, CommandFailed
from rivha.model import Data, State
from rivha.postgres.callbacks import Callbacks
from rivha.postgres.command import Programs, clean_environment, run
from rivha.postgres.process import Postmaster, is_postgres_of, processes_of
from rivha.postgres.settings import Credentials, PostgresSettings
from tests.postgres.nodes import Nodes, commit, eventually, slots
from tests.postgres.versions import newest

__all__ = ["newest"]


def exists(path: Path):  # type: ignore[no-untyped-def]
    async def condition() -> bool:
        return path.exists()

    return condition


def gone(pid: int):  # type: ignore[no-untyped-def]
    async def condition() -> bool:
        return not os.path.exists(f"/proc/{pid}")

    return condition


# ---- programs


async def test_a_program_that_fails_is_quoted():
    with pytest.raises(CommandFailed, match="no luck") as caught:
        await run(["/bin/sh", "-c", "echo no luck >&2; exit 7"], name="it", timeout_s=30, env={})
    assert caught.value.code == 7


async def test_a_program_that_outlives_its_deadline_dies_with_its_children(tmp_path: Path):
    script = f"sleep 600 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(CommandFailed, match="ended after"):
        await run(["/bin/sh", "-c", script], name="it", timeout_s=1.0, env=dict(os.environ))
    await eventually(gone(int((tmp_path / "child").read_text())))


async def test_a_program_that_does_not_exist_is_an_error_for_people():
    with pytest.raises(CommandFailed, match="could not be started"):
        await run(["/no/such/program"], name="it", timeout_s=30, env={})


async def test_endless_output_is_kept_at_its_end():
    script = "import sys\nfor i in range(200000): print(i)\n"
    text = await run([sys.executable, "-c", script], name="it", timeout_s=60, env={}, keep_bytes=1000)
    assert text.endswith("199999\n")
    assert len(text) < 200_000


def test_the_environment_loses_what_steers_libpq_and_systemd(monkeypatch: pytest.MonkeyPatch):
    for name in ("PGHOST", "PGOPTIONS", "NOTIFY_SOCKET", "WATCHDOG_PID"):
        monkeypatch.setenv(name, "x")
    assert not {"PGHOST", "PGOPTIONS", "NOTIFY_SOCKET", "WATCHDOG_PID"} & set(clean_environment())
    assert clean_environment()["LC_ALL"] == "C"


@pytest.mark.real
async def test_missing_and_wrong_programs_are_said_before_anything_is_touched(tmp_path: Path, newest: Nodes):
    with pytest.raises(CannotRun, match="bin_dir"):
        await Programs(PostgresSettings("a", "s", str(tmp_path / "d"), bin_dir=str(tmp_path))).check()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(CannotRun, match=r"9\.6"):
        await Programs(PostgresSettings("a", "s", str(tmp_path / "d"), bin_dir=str(newest.bin_dir))).check()
    assert await Programs(PostgresSettings("a", "s", str(tmp_path / "e"), bin_dir=str(newest.bin_dir))).check() >= 14


# ---- identity


def test_a_process_that_is_no_postgres_is_never_taken_for_one(tmp_path: Path):
    assert not is_postgres_of(os.getpid(), os.getcwd())
    assert not is_postgres_of(2**22 + 1, str(tmp_path))
    assert processes_of(str(tmp_path)) == []


async def test_a_stale_pid_file_with_a_number_in_use_is_no_postmaster(tmp_path: Path):
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n1\n5432\n\n\n\nready\n")
    assert Postmaster(str(tmp_path)).look() is None


@pytest.mark.real
async def test_postgres_starts_though_its_stale_pid_is_somebody_elses(newest: Nodes):
    a = await newest.primary()
    await a.status()
    a.kill_postmaster()
    await a.server.stop(fast_s=0)
    old = (a.data_dir / "postmaster.pid").read_text().split()[0]
    for lock in (a.data_dir / "postmaster.pid", *a.data_dir.parent.glob(".s.PGSQL.*.lock")):
        lock.write_text(lock.read_text().replace(old, str(os.getpid()), 1))
    assert (await a.status()).state is State.CRASHED
    await a.server.start(primary=True, upstream=None)
    assert (await a.status()).state is State.RUNNING


@pytest.mark.real
async def test_a_crashed_directory_is_rewound_though_its_stale_pid_is_somebody_elses(newest: Nodes):
    """Or a zombie's, where process 1 does not look after orphans: its number counts as in use."""
    a = await newest.primary()
    b = await newest.standby(of=a)
    await b.server.freeze()
    await commit(a, "tail")
    a.kill_postmaster()
    await a.server.stop(fast_s=0)
    await b.server.promote()
    await b.server.checkpoint()
    old = (a.data_dir / "postmaster.pid").read_text().split()[0]
    lock = a.data_dir / "postmaster.pid"
    lock.write_text(lock.read_text().replace(old, str(os.getpid()), 1))
    await a.server.rewind(b.upstream)
    await slots(b, "a")
    await a.server.start(primary=False, upstream=b.upstream)
    await eventually(a.streams)


@pytest.mark.real
async def test_postgres_starts_though_its_pid_file_is_empty(newest: Nodes):
    a = await newest.primary()
    await a.server.stop(fast_s=0)
    (a.data_dir / "postmaster.pid").write_text("")
    assert (await a.status()).state is State.CRASHED
    await a.server.start(primary=True, upstream=None)
    assert (await a.status()).state is State.RUNNING


@pytest.mark.real
async def test_a_rewind_interrupted_in_its_recovery_leaves_a_crashed_directory(newest: Nodes):
    a = await newest.primary()
    b = await newest.standby(of=a)
    await b.server.freeze()
    await commit(a, "tail")
    await a.server.stop(fast_s=0)
    await b.server.promote()
    await b.server.checkpoint()
    rewinding = asyncio.create_task(a.server.rewind(b.upstream))

    async def recovers() -> bool:
        return rewinding.done() or bool(processes_of(a.settings.data_dir))

    await eventually(recovers)
    rewinding.cancel()
    await asyncio.wait([rewinding])
    await a.server.rewind(b.upstream)
    await slots(b, "a")
    await a.server.start(primary=False, upstream=b.upstream)
    await eventually(a.streams)


@pytest.mark.real
async def test_the_postmaster_is_nobodys_child_and_has_a_session_of_its_own(newest: Nodes):
    a = await newest.primary()
    pid = (await a.status()).pid
    assert pid is not None
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    assert int(stat[1]) != os.getpid()
    assert os.getsid(pid) != os.getsid(0)
    assert os.getpgid(pid) != os.getpgid(0)
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in environment


@pytest.mark.real
async def test_children_of_a_dead_postmaster_are_ended_before_a_start(newest: Nodes):
    a = await newest.primary()
    connection = asyncio.create_task(a.sql("SELECT pg_sleep(600)"))

    async def sleeps() -> bool:
        return await a.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'") > 0

    await eventually(sleeps)
    orphans = set(processes_of(a.settings.data_dir))
    a.kill_postmaster()
    await a.server.start(primary=True, upstream=None)
    assert not orphans & set(processes_of(a.settings.data_dir))
    await asyncio.wait([connection])
    assert connection.exception() is not None


@pytest.mark.real
async def test_no_verb_blocks_the_loop(newest: Nodes):
    with blockbuster_ctx():
        a = await newest.primary()
        b = await newest.standby(of=a)
        await b.server.freeze()
        await commit(a, "tail")
        await b.server.promote()
        await b.server.checkpoint()
        await slots(b, "a")
        await a.server.stop(fast_s=0)
        await a.server.compare(b.upstream)
        await a.server.rewind(b.upstream)
        await a.server.start(primary=False, upstream=b.upstream)
        await a.server.restart()
        assert (await a.status()).data is Data.VALID


@pytest.mark.real
async def test_an_operators_clone_program_is_used_and_the_next_one_when_it_fails(newest: Nodes, tmp_path: Path):
    a = await newest.primary()
    script = tmp_path / "restore"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nmkdir {tmp_path}/b; touch {tmp_path}/b/half\nexit 3\n')
    script.chmod(0o755)
    methods = {"mine": {"command": f"{script} --first", "retention": 3, "keep_data": False}}
    b = await newest.standby(of=a, create_replica_methods=("mine", "basebackup"), replica_methods=methods)
    arguments = (tmp_path / "arguments").read_text()
    assert arguments.startswith("--first --scope=tests --datadir=")
    assert "--role=replica" in arguments
    assert "--retention=3" in arguments
    assert "keep_data" not in arguments
    assert [p for p in tmp_path.iterdir() if p.name.startswith("b.unfinished.")]
    assert (await b.status()).streaming


@pytest.mark.real
async def test_a_wrong_password_is_not_silence(newest: Nodes):
    a = await newest.primary()
    await a.server.close()
    a.server.reload_settings(replace(a.settings, superuser=Credentials("postgres", "wrong")))
    status = await a.status()
    assert status.state is State.RUNNING
    assert "password" in status.problem


# ---- callbacks


def callbacks(tmp_path: Path, **commands: str) -> Callbacks:
    return Callbacks(PostgresSettings("a", "demo", str(tmp_path), callbacks=commands))


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "callback"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_a_callback_gets_action_role_and_scope(tmp_path: Path):
    made = callbacks(tmp_path, on_role_change=script(tmp_path, f'echo "$@" > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/said') + " extra")
    made.call("on_role_change", "primary")
    made.call("on_start", "primary")
    await eventually(exists(tmp_path / "said"))
    assert (tmp_path / "said").read_text() == "extra on_role_change primary demo\n"
    await made.close()


async def test_a_newer_callback_kills_the_older_with_its_children_but_not_on_reload(tmp_path: Path):
    text = f"sleep 600 & echo $! > {tmp_path}/$1.new; mv {tmp_path}/$1.new {tmp_path}/$1.$2; wait"
    made = callbacks(tmp_path, on_start=script(tmp_path, text), on_reload=script(tmp_path, text))
    made.call("on_reload", "primary")
    made.call("on_start", "primary")
    await eventually(exists(tmp_path / "on_reload.primary"))
    await eventually(exists(tmp_path / "on_start.primary"))
    first = int((tmp_path / "on_start.primary").read_text())
    made.call("on_start", "replica")
    await eventually(exists(tmp_path / "on_start.replica"))
    await eventually(gone(first))
    assert os.path.exists(f"/proc/{int((tmp_path / 'on_reload.primary').read_text())}")
    await made.close()
    for name in ("on_start.replica", "on_reload.primary"):
        await eventually(gone(int((tmp_path / name).read_text())))


async def test_a_callback_never_blocks_and_its_failure_is_only_said(tmp_path: Path):
    made = callbacks(tmp_path, on_stop="/no/such/program", on_start=script(tmp_path, "exit 1"))
    made.call("on_stop", "demoted")
    made.call("on_start", "demoted")
    await made.close()


@pytest.mark.real
@pytest.mark.parametrize("linger_s", [None, 0.0])
async def test_a_hanging_postmaster_whose_directory_was_moved_is_ended_all_the_same(newest: Nodes, linger_s: float | None):
    """It is known by its pidfd; by its files it could not be found."""
    a = await newest.primary()
    pid = int((a.data_dir / "postmaster.pid").read_text().split()[0])
    moved = a.data_dir.with_name("moved")
    os.kill(pid, signal.SIGSTOP)
    a.data_dir.rename(moved)

    await a.server.stop(fast_s=0.1, quit_s=0.1, linger_s=linger_s)

    await eventually(gone(pid))
    for child in processes_of(str(moved)):
        os.kill(child, signal.SIGKILL)
