"""The fault lab leaves nothing behind, however it ends, and changes nothing of the machine's own network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import world
from tests.lab.node import REPOSITORY
from tests.lab.processes import working_below

pytestmark = pytest.mark.real

PATIENCE_S = 90.0
PROGRAMS = 3  # as many as show that it is on its way up


def links() -> str:
    return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, timeout=10, check=True, env=world.environment()).stdout


def until(condition: object, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, f"not yet: {what}"
        time.sleep(0.05)


@pytest.fixture
def lab() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A lab that is starting, and its directory."""
    if why := world.missing():
        pytest.skip(f"no fault lab: {why}")
    argv = [sys.executable, "-m", "tests.faults", "postmaster_killed", "--mode", "quorum"]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    child = subprocess.Popen(argv, cwd="/", env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None
    root = Path(child.stdout.readline().removeprefix("the lab is ").strip())
    until(lambda: len(working_below(root)) > PROGRAMS, "the lab's programs run")
    yield child, root
    if child.poll() is None:
        child.kill()
    child.wait(PATIENCE_S)
    child.stdout.close()
    until(lambda: swept(root), "its directory is removed")


def swept(root: Path) -> bool:
    world.sweep()
    return not root.exists()


def test_ctrl_c_ends_everything_and_removes_it(lab: tuple[subprocess.Popen[str], Path]) -> None:
    child, root = lab
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(PATIENCE_S) == 130
    assert not root.exists()
    assert working_below(root) == []


def test_a_lab_that_is_killed_leaves_files_only_and_the_next_one_removes_them(lab: tuple[subprocess.Popen[str], Path]) -> None:
    before = links()
    child, root = lab
    child.kill()
    until(lambda: not working_below(root), "its processes are gone")
    assert links() == before, "namespaces are no one else's network"
    until(lambda: swept(root), "its directory is removed")


def test_a_directory_whose_lab_lives_is_left_alone(lab: tuple[subprocess.Popen[str], Path]) -> None:
    _, root = lab
    world.sweep()
    assert root.exists()
