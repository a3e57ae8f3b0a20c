"""A rewind on real servers, where PostgreSQL's own program needs help (HAZARDS D)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rivha.errors import CommandFailed
from rivha.model import Data, State
from tests.postgres.nodes import Node, Nodes, commit, eventually, has, slots
from tests.postgres.versions import nodes

__all__ = ["nodes"]
pytestmark = pytest.mark.real


async def diverge(a: Node, b: Node) -> None:
    """b leads, and a has died with a tail of its own."""
    await b.server.freeze()
    await commit(a, "tail")
    await a.sql("SELECT pg_switch_wal()")
    await a.server.stop(fast_s=0, quit_s=0)  # with what a clean end removes
    await b.server.promote()
    await b.server.checkpoint()


async def follows(a: Node, b: Node) -> None:
    await slots(b, a.name)
    await a.server.start(primary=False, upstream=b.upstream)
    await eventually(a.streams)
    assert not await has(a, "tail")


async def test_what_crash_recovery_finds_before_a_rewind_is_not_archived(nodes: Nodes, tmp_path: Path):
    """It is the end of a history that was given up; in the archive it would stand beside the new leader's (HAZARDS D 53)."""
    archive = tmp_path / "archive"
    archive.mkdir()
    command = f"test -e {archive}/open && cp %p {archive}/%f"
    own = {"unix_socket_directories": str(tmp_path), "fsync": "off", "archive_mode": "on", "archive_command": command}
    a = await nodes.primary(parameters=own)
    b = await nodes.standby(of=a)
    await diverge(a, b)
    (archive / "open").touch()

    await a.server.rewind(b.upstream)

    assert os.listdir(archive) == ["open"]
    await follows(a, b)
    assert os.listdir(archive) == ["open"]


@pytest.fixture
def short_path(tmp_path: Path) -> Iterator[Path]:
    """To the same folder: a socket's path has 107 bytes at the most."""
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp") as folder:
        link = Path(folder, "l")
        link.symlink_to(tmp_path)
        yield link


def with_its_socket_inside(folder: Path, name: str) -> dict[str, object]:
    return {"unix_socket_directories": str(folder / name), "fsync": "off"}


async def test_the_socket_that_a_crash_left_in_a_data_directory_does_not_break_a_rewind(nodes: Nodes, short_path: Path):
    a = await nodes.primary(parameters=with_its_socket_inside(short_path, "a"))
    b = await nodes.standby(of=a)
    await diverge(a, b)
    assert list(a.data_dir.glob(".s.PGSQL.*"))

    await a.server.rewind(b.upstream)

    await follows(a, b)


async def test_a_source_with_a_socket_in_its_data_directory_is_refused_before_anything_is_touched_and_can_be_cloned(
    nodes: Nodes, short_path: Path
):
    """pg_rewind reads every file that it is shown, and would leave half of a directory (HAZARDS D 62)."""
    a = await nodes.primary()
    b = await nodes.standby(of=a, parameters=with_its_socket_inside(short_path, "b"))
    await diverge(a, b)

    with pytest.raises(CommandFailed, match="unix_socket_directories"):
        await a.server.rewind(b.upstream)

    status = await a.status()
    assert (status.state, status.data) == (State.CRASHED, Data.VALID)
    await a.server.set_aside("diverged")
    await a.server.clone(b.upstream)
    await follows(a, b)


async def test_a_source_without_the_wal_that_a_rewound_directory_would_replay_is_refused_before_anything_is_touched(nodes: Nodes):
    """It was cloned after the fork: pg_rewind would succeed, and the standby would start for ever, waiting for WAL that nobody has."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await diverge(a, b)
    for number in range(2):
        await commit(b, f"later{number}")
        await b.sql("SELECT pg_switch_wal()")
    await b.server.checkpoint()
    c = await nodes.standby(of=b, name="c")
    await b.server.stop(fast_s=0)
    await c.server.freeze()
    await c.server.promote()
    await c.server.checkpoint()

    with pytest.raises(CommandFailed, match=r"no WAL of .* any more"):
        await a.server.rewind(c.upstream)

    status = await a.status()
    assert (status.state, status.data) == (State.CRASHED, Data.VALID)
    await a.server.set_aside("diverged")
    await slots(c, a.name)
    await a.server.clone(c.upstream)
    await follows(a, c)
