"""The guard as the process that it is, against processes that the kernel takes for Postgres: it kills in time, and only what it should."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from rivha.agent.guard_link import GuardLink, address_of
from rivha.postgres.kin import is_postgres_at, postgres_at

pytestmark = pytest.mark.real  # real processes, and real seconds

PATIENCE_S = 30.0
REPOSITORY = Path(__file__).resolve().parents[2]
# An agent for somebody else to freeze or kill: vouches for so many seconds, says so, and does nothing more.
AGENT = """
import asyncio, sys, time
from rivha.agent.guard_link import GuardLink
async def main():
    link = GuardLink(sys.argv[1])
    while link.pid is None:
        link.vouched(time.clock_gettime(time.CLOCK_BOOTTIME) + float(sys.argv[2]), 0.2, True)
        await asyncio.sleep(0.01)
    print("vouched", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def until(condition: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, f"not yet: {what}"
        await asyncio.sleep(0.01)


class Node:
    """A data directory, and programs called postgres that can work in it."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        self.shell, self.child = folder / "postgres", folder / "postgres_child"
        shutil.copy("/bin/sh", self.shell)
        shutil.copy("/bin/sleep", self.child)
        self.links: list[GuardLink] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, first: str = ":", *, argv: list[str] | None = None, where: Path | None = None) -> subprocess.Popen[bytes]:
        """A postmaster with one child; `first` is what its shell does at the beginning."""
        argv = argv or [str(self.shell), "-c", f"{first}; {self.child} 600 & while :; do wait; done"]
        process = subprocess.Popen(argv, cwd=where or self.data, start_new_session=True)
        self.processes.append(process)
        return process

    def left(self) -> list[int]:
        return postgres_at(os.path.realpath(self.data))

    async def started(self, first: str = ":") -> subprocess.Popen[bytes]:
        process = self.start(first)
        await until(lambda: len(self.left()) == 2, "the postmaster and its child run")
        return process

    def link(self) -> GuardLink:
        self.links.append(GuardLink(str(self.data)))
        return self.links[-1]

    async def armed(self, link: GuardLink, seconds: float, quit_s: float = 0.2) -> int:
        """The guard knows that the link's agent vouches for so long; the guard's PID."""

        def known() -> bool:
            link.vouched(boottime() + seconds, quit_s, True)
            return link.pid is not None

        await until(known, "there is a guard")
        assert link.pid is not None
        return link.pid

    def agent(self, seconds: float) -> subprocess.Popen[bytes]:
        """Another process as the agent, that has vouched."""
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        argv = [sys.executable, "-c", AGENT, str(self.data), str(seconds)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment, start_new_session=True)
        self.processes.append(process)
        assert process.stdout is not None
        while b"vouched" not in (line := process.stdout.readline()):
            assert line, "the agent ended"
        return process


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    yield node
    for link in node.links:
        await link.close(release=True)
    for process in node.processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    for pid in node.left():
        os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    """A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_at_the_deadline_it_ends_postgres_and_its_children(node: Node):
    postmaster = await node.started()
    await node.armed(node.link(), 0.3)

    await until(lambda: node.left() == [], "nothing of Postgres is left")
    assert postmaster.wait(PATIENCE_S) == -signal.SIGQUIT


@pytest.mark.parametrize("first", ["trap '' QUIT", "kill -STOP $$"], ids=["deaf", "frozen"])
async def test_what_does_not_heed_sigquit_is_killed(node: Node, first: str):
    postmaster = node.start("trap '' QUIT") if "trap" in first else node.start()
    await until(lambda: len(node.left()) == 2, "the postmaster and its child run")
    if "STOP" in first:
        postmaster.send_signal(signal.SIGSTOP)
    await node.armed(node.link(), 0.3)

    await until(lambda: node.left() == [], "nothing of Postgres is left")
    assert postmaster.wait(PATIENCE_S) == -signal.SIGKILL


async def test_children_that_a_dead_postmaster_left_are_killed(node: Node):
    postmaster = await node.started()
    postmaster.kill()
    postmaster.wait()
    assert len(node.left()) == 1
    await node.armed(node.link(), 0.3)

    await until(lambda: node.left() == [], "nothing of Postgres is left")


async def test_other_programs_and_other_directories_are_left_alone(node: Node, tmp_path: Path):
    other = tmp_path / "data2"
    other.mkdir()
    await node.started()
    archiver = node.start(argv=["/bin/sleep", "600"])
    elsewhere = node.start(argv=[str(node.child), "600"], where=other)
    await until(lambda: is_postgres_at(elsewhere.pid, str(other)), "the other cluster's Postgres runs")
    await node.armed(node.link(), 0.3)

    await until(lambda: node.left() == [], "nothing of Postgres is left")
    assert (archiver.poll(), elsewhere.poll()) == (None, None)


async def test_vouching_anew_or_having_no_primary_saves_it(node: Node):
    postmaster = await node.started()
    link = node.link()
    for word in (60.0, None):
        guard = await node.armed(link, 0.4)
        passed = boottime() + 0.6
        link.vouched(None if word is None else boottime() + word, 0.2, True)
        await until(lambda passed=passed: boottime() > passed, "the first deadline has passed")
    await link.close(release=False)
    await until(lambda: not runs(guard), "the guard ends: nobody is connected, and nothing is vouched for")
    assert postmaster.poll() is None


async def test_it_outlives_a_killed_agent_and_keeps_its_deadline(node: Node):
    await node.started()
    agent = node.agent(2.0)
    agent.kill()
    agent.wait()

    await until(lambda: node.left() == [], "nothing of Postgres is left")


async def test_it_acts_for_a_frozen_agent(node: Node):
    await node.started()
    agent = node.agent(2.0)
    agent.send_signal(signal.SIGSTOP)

    await until(lambda: node.left() == [], "nothing of Postgres is left")
    assert agent.poll() is None


async def test_the_next_agent_finds_the_guard_and_its_first_word_counts(node: Node):
    postmaster = await node.started()
    agent = node.agent(3.0)
    ends = boottime() + 3.0
    agent.kill()
    agent.wait()
    link = node.link()
    guard = await node.armed(link, 60.0)
    other = node.link()
    assert await node.armed(other, 60.0) == guard

    await until(lambda: boottime() > ends + 0.5, "the killed agent's deadline has passed")
    await link.close(release=True)
    await other.close(release=True)
    await until(lambda: not runs(guard), "the guard ends")
    assert postmaster.poll() is None


async def test_what_nothing_was_earned_for_does_not_put_a_standing_deadline_off(node: Node):
    await node.started()
    agent = node.agent(2.0)
    agent.kill()
    agent.wait()
    link = node.link()

    def known() -> bool:
        link.vouched(boottime() + 600.0, 0.2, False)
        return link.pid is not None

    await until(known, "there is a guard")
    await until(lambda: node.left() == [], "nothing of Postgres is left")


async def test_who_starts_postgres_after_the_deed_does_so_on_purpose(node: Node, capfd: pytest.CaptureFixture[str]):
    await node.started()
    link = node.link()
    guard = await node.armed(link, 0.3)
    await until(lambda: "no Postgres process is left" in capfd.readouterr().err, "the guard has said so")

    again = await node.started()
    await link.close(release=False)
    await until(lambda: not runs(guard), "the guard ends")
    assert again.poll() is None


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_guard_that_is_gone_or_frozen_is_replaced(node: Node, end: signal.Signals):
    await node.started()
    link = node.link()
    first = await node.armed(link, 60.0)
    os.kill(first, end)
    if end is signal.SIGSTOP:  # an agent that has it notices nothing and loses nothing; the next agent does
        await link.close(release=False)
        link = node.link()
    second: list[int] = []

    def replaced() -> bool:
        link.vouched(boottime() + 0.5, 0.2, True)
        second[:] = [link.pid] if link.pid not in (None, first) else []
        return bool(second)

    await until(replaced, "there is another guard")
    assert not runs(first)
    await until(lambda: node.left() == [], "the second one does its work")


async def test_garbage_and_crowds_do_not_hurt_it(node: Node, strays: list[socket.socket]):
    await node.started()
    link = node.link()
    guard = await node.armed(link, 60.0)
    for number in range(8):
        stray = socket.socket(socket.AF_UNIX)
        strays.append(stray)
        stray.connect("\0" + address_of(os.path.realpath(node.data)))
        with contextlib.suppress(OSError):  # one too many: it was closed
            stray.sendall(b"\xff" * 5000 * number)
    await node.armed(link, 0.3)

    await until(lambda: node.left() == [], "nothing of Postgres is left")
    assert runs(guard)


@pytest.fixture
def strays() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for stray in opened:
        stray.close()


async def test_a_name_that_somebody_else_has_taken_is_told_and_tried_again(node: Node):
    with socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind("\0" + address_of(os.path.realpath(node.data)))  # it never listens
        link = node.link()
        link.vouched(None, 0.2, True)
        await until(lambda: link.complaint, "it says that there is no guard")
    assert link.pid is None
