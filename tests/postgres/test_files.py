"""Directories and files as they are found on real machines: unmounted, of the wrong owner, half there, full."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rivha.errors import CommandFailed
from rivha.model import Data
from rivha.postgres import conf, files
from rivha.postgres.conffiles import ConfFiles
from rivha.postgres.datadir import DataDir, unmounted
from rivha.postgres.process import parse_pid_file, rotate, tail
from rivha.postgres.settings import PostgresSettings


@pytest.fixture
def valid(tmp_path: Path) -> Path:
    """What looks like a data directory to somebody who only looks at files."""
    path = tmp_path / "data"
    (path / "global").mkdir(parents=True)
    path.chmod(0o700)
    (path / "PG_VERSION").write_text("15\n")
    (path / "global" / "pg_control").write_bytes(bytes(8192))
    (path / "pg_replslot" / "old").mkdir(parents=True)
    return path


def test_a_whole_directory_is_valid_and_says_what_it_would_start_as(valid: Path):
    data = DataDir(str(valid))
    assert (data.look().data, data.look().standby) == (Data.VALID, False)
    (valid / "standby.signal").touch()
    assert (data.look().standby, data.look().copied) == (True, False)
    (valid / "backup_label").touch()
    assert data.look().copied


@pytest.mark.parametrize("names", [(), ("lost+found",), (".snapshot", "lost+found"), (".rivha-new",)])
def test_an_empty_directory_is_empty_whatever_file_systems_put_there(tmp_path: Path, names: tuple[str, ...]):
    for name in names:
        (tmp_path / "data" / name).mkdir(parents=True)
    assert DataDir(str(tmp_path / "data")).look().data is Data.EMPTY


@pytest.mark.parametrize("missing", ["PG_VERSION", "global/pg_control"])
def test_half_a_directory_is_not_touched(valid: Path, missing: str):
    (valid / missing).unlink()
    found = DataDir(str(valid)).look()
    assert found.data is Data.INACCESSIBLE
    assert missing in found.problem


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_a_directory_open_to_others_is_refused_with_what_to_do(valid: Path, mode: int):
    valid.chmod(mode)
    found = DataDir(str(valid)).look()
    assert found.data is Data.INACCESSIBLE
    assert "chmod 0700" in found.problem
    valid.chmod(0o750)
    assert DataDir(str(valid)).look().data is Data.VALID


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path):
    if os.geteuid() == 0:
        pytest.skip("root owns too much")
    found = DataDir("/proc/1").look()
    assert found.data is Data.INACCESSIBLE
    assert "belongs to" in found.problem


def test_what_cannot_be_created_is_no_empty_directory(tmp_path: Path):
    assert DataDir(str(tmp_path / "no" / "such")).look().data is Data.INACCESSIBLE
    if os.geteuid():
        assert DataDir("/proc/data").look().data is Data.INACCESSIBLE
    (tmp_path / "file").touch()
    assert DataDir(str(tmp_path / "file")).look().data is Data.INACCESSIBLE


def test_the_bare_mount_point_of_a_missing_disk_is_not_empty(tmp_path: Path):
    fstab = tmp_path / "fstab"
    fstab.write_text(f"# data\nproc /proc proc defaults\n/dev/sdz {tmp_path}/disk\\040one ext4 defaults 0 2\nbroken\n")
    assert unmounted(f"{tmp_path}/disk one/pg", str(fstab)) == f"{tmp_path}/disk one"
    assert unmounted("/proc/pg", str(fstab)) is None
    assert unmounted(str(tmp_path), str(tmp_path / "none")) is None


def test_data_that_vanished_with_its_file_system_is_inaccessible(valid: Path, monkeypatch: pytest.MonkeyPatch):
    data = DataDir(str(valid))
    assert data.look().data is Data.VALID
    other = DataDir("/dev/shm/rivha-no-such-directory")
    other._device = valid.stat().st_dev
    if os.stat("/dev/shm").st_dev != valid.stat().st_dev:
        assert other.look().data is Data.INACCESSIBLE


@pytest.mark.parametrize("kind", ["bootstrap", "clone", "rewind"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_marker_makes_a_directory_unfinished_until_it_goes(valid: Path, kind: str, beside: bool):
    data = DataDir(str(valid))
    data.mark(kind, beside=beside)
    data.mark(kind, beside=beside)
    assert (data.look().data, data.look().unfinished) == (Data.UNFINISHED, kind)
    data.unmark()
    assert data.look().data is Data.VALID


def test_set_aside_keeps_everything_and_takes_the_marker_along(valid: Path):
    data = DataDir(str(valid))
    data.mark("clone", beside=True)
    moved = Path(data.set_aside("unfinished"))
    assert (moved / "PG_VERSION").read_text() == "15\n"
    assert data.look().data is Data.EMPTY
    assert data.set_aside("unfinished") == str(valid)


def test_staging_moves_in_whole(tmp_path: Path):
    data = DataDir(str(tmp_path / "data"))
    staging = Path(data.prepare_staging())
    (staging / "global").mkdir(parents=True)
    (staging / "PG_VERSION").touch()
    (staging / "global" / "pg_control").touch()
    assert data.look().data is Data.EMPTY
    data.mark("clone")
    data.move_in()
    assert data.look().data is Data.UNFINISHED
    data.unmark()
    assert data.look().data is Data.VALID
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_copy_forgets_its_source(valid: Path):
    (valid / "standby.signal").touch()
    (valid / "postmaster.pid").touch()
    DataDir(str(valid)).clean_copy(str(valid))
    assert sorted(os.listdir(valid)) == ["PG_VERSION", "global", "pg_replslot"]
    assert not os.listdir(valid / "pg_replslot")


# ---- writing


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond ten bytes, as when the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path):
    path = tmp_path / "postgresql.conf"
    assert files.write(str(path), "old")
    with full_disk(), pytest.raises(CommandFailed, match="left as it was"):
        files.write(str(path), "new text that is too long")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["postgresql.conf"]


def test_the_same_text_is_not_written_again(tmp_path: Path):
    path = str(tmp_path / "f")
    assert files.write(path, "text")
    assert not files.write(path, "text")
    assert files.write(path, "text", 0o640)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_the_original_configuration_is_kept_and_included(valid: Path):
    (valid / "postgresql.conf").write_text("work_mem = '3MB'\n")
    made = ConfFiles(PostgresSettings("a", "s", str(valid), pgpass=str(valid.parent / "pass"), pg_hba=["local all all trust"]))
    assert made.write(standby=False)
    assert not made.write(standby=False)
    assert (valid / conf.BASE).read_text() == "work_mem = '3MB'\n"
    assert (valid / "postgresql.conf").read_text().startswith(conf.HEADER + f"include '{conf.BASE}'\n")
    assert (valid / "pg_hba.conf").read_text() == conf.HEADER + "local all all trust\n"
    assert stat.S_IMODE((valid.parent / "pass").stat().st_mode) == 0o600


def test_a_password_file_inside_the_data_is_refused(valid: Path):
    made = ConfFiles(PostgresSettings("a", "s", str(valid), pgpass=str(valid / "pass")))
    with pytest.raises(CommandFailed, match="move it"):
        made.write(standby=False)


# ---- the pid file


def test_a_pid_file_may_be_torn_or_of_a_single_user_postgres():
    assert parse_pid_file("") is None
    assert parse_pid_file("rubbish\n") is None
    assert parse_pid_file("-4711\n/data\n") is None
    young = parse_pid_file("4711\n/data\n1700000000\n5432\n")
    assert young is not None
    assert (young.pid, young.port, young.status) == (4711, 5432, "")
    ready = parse_pid_file("4711\n/data\n1700000000\n5432\n/run\n127.0.0.1\n  5432001   1\nready   \n")
    assert ready is not None
    assert (ready.socket_dir, ready.listen_address, ready.status) == ("/run", "127.0.0.1", "ready")


def test_the_start_log_is_put_aside_when_large_and_its_end_is_found(tmp_path: Path):
    log = str(tmp_path / "log")
    assert rotate(log) == 0
    Path(log).write_text("old\n")
    since = rotate(log)
    with open(log, "a") as file:
        file.write("new\n")
    assert tail(log, since) == "new"
    os.truncate(log, 11 * 1024 * 1024)
    assert rotate(log) == 0
    assert os.path.exists(log + ".1")
