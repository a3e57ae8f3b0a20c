"""The agent's end of the guard (rivha.agent.guard): finds or starts it, and passes on what the fence is told.

It must never hold up the loop: a word is a store to shared memory, everything else happens in a thread. A guard that has gone is noticed by
its connection and replaced at the next word, of which every tick has one. Called by `rivha.agent.safeguards`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

import structlog

import rivha
from rivha.agent.guard import TAKEN, Page, peer
from rivha.postgres.command import clean_environment

log = structlog.get_logger(__name__)

ANSWER_S = 2.0  # a guard answers within a millisecond; one that does not is stopped, or its machine is
START_S = 10.0  # an interpreter and a fork, on a machine that has much else to do
AGAIN_S = 5.0  # after a guard could not be had
LATER_SHARE = 0.5  # of the fence's time for SIGQUIT: the fence goes first, and both are through with SIGKILL before the lease's end


@dataclass(slots=True)
class Link:
    connection: socket.socket
    page: Page
    pid: int


class GuardLink:
    """`data_dir` is this node's; everything here is called in the loop."""

    def __init__(self, data_dir: str) -> None:
        self._data_dir = data_dir
        self._link: Link | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._word: tuple[float | None, float, bool] = (None, 0.0, False)
        self._not_before = 0.0
        self.complaint = ""  # why there is no guard, if one was wanted

    @property
    def pid(self) -> int | None:
        """Of the guard that we speak to."""
        return self._link.pid if self._link else None

    def vouched(self, until: float | None, quit_s: float, earned: bool) -> None:
        """As Safeguards.vouched; `until` on CLOCK_BOOTTIME."""
        self._word = until, quit_s, earned
        if self._link is not None:
            self._write(self._link.page)
        elif self._fetching is None and asyncio.get_running_loop().time() >= self._not_before:
            self._fetching = asyncio.create_task(self._fetch(), name="guard")

    def _write(self, page: Page) -> None:
        until, quit_s, earned = self._word
        if until is None:
            page.write(0, 0)
        elif earned or not page.until_ns:
            page.write(int((until + quit_s * LATER_SHARE) * 1e9), int(quit_s * (1 - LATER_SHARE) * 1e9))
        # Else a deadline stands, of an agent before me, and nothing has been earned that would put it off.

    async def _fetch(self) -> None:
        try:
            link = await asyncio.to_thread(_hire, self._data_dir)
        except (OSError, subprocess.SubprocessError) as error:
            self._not_before = asyncio.get_running_loop().time() + AGAIN_S
            if str(error) != self.complaint:
                log.warning("there is no guard: should this agent freeze as a leader, nobody stops its Postgres", error=str(error))
            self.complaint = str(error)
        else:
            self.complaint = ""
            self._link = link
            log.info("a guard stands by", pid=link.pid, armed=bool(link.page.until_ns))
            self._write(link.page)
            asyncio.get_running_loop().add_reader(link.connection, self._lost)
        finally:
            self._fetching = None

    def _lost(self) -> None:
        """It never says anything, so this is its end."""
        log.warning("the guard has ended, starting another", pid=self.pid)
        self._drop()

    def _drop(self) -> None:
        if self._link is not None:
            asyncio.get_running_loop().remove_reader(self._link.connection)
            self._link.connection.close()
            self._link = None

    async def close(self, *, release: bool) -> None:
        """`release`: this agent ends on purpose, and whatever Postgres is left is left on purpose. Else the deadline stands."""
        if self._fetching is not None:  # its thread cannot be cancelled, and what it brings must be given back
            await asyncio.wait({self._fetching}, timeout=START_S + 2 * ANSWER_S)
        if self._link is not None and release:
            self._link.page.write(0, 0)
        self._drop()


# ---- in a thread


def _hire(data_dir: str) -> Link:
    """The guard of the data directory, started if there is none. Raises OSError or SubprocessError."""
    real = os.path.realpath(data_dir)
    address = address_of(real)
    if (found := _reached(address)) is not None:
        return found
    # Not with `-E`: PYTHONPATH is how it finds rivha; without site-packages (-S) it needs 1 MB less, and starts in half the time.
    argv = [sys.executable, "-S", "-m", "rivha.agent.guard", address, real]
    environment = clean_environment({"PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(rivha.__file__)))})
    # Its stderr is ours: it has a word to say when it kills.
    ended = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, timeout=START_S, check=False)
    if ended.returncode not in (0, TAKEN):
        raise OSError(f"it could not be started: exit code {ended.returncode}, its words are on stderr")
    if (found := _reached(address)) is None:
        raise OSError("it ended as soon as it was started")
    return found


def address_of(real_dir: str) -> str:
    """The name of the guard's socket: one for a directory, in this PID namespace (containers may share the network's)."""
    what = f"{os.stat('/proc/self/ns/pid').st_ino} {os.geteuid()} {real_dir}"
    return "rivha-guard-" + hashlib.sha256(what.encode(errors="surrogateescape")).hexdigest()[:32]


def _reached(address: str) -> Link | None:
    """None: nobody listens. One that listens and does not answer is killed: it would act upon an old word when it wakes up."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_S)
        try:
            connection.connect("\0" + address)
        except ConnectionRefusedError:
            connection.close()
            return None
        pid, user = peer(connection)
        if user != os.geteuid():
            raise OSError(f"user {user} (pid {pid}) has taken the name of its socket")
        page = _received(connection, pid)
    except BaseException:
        connection.close()
        raise
    return Link(connection, page, pid)


def _received(connection: socket.socket, pid: int) -> Page:
    try:
        _, fds, _, _ = socket.recv_fds(connection, 1, 1)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise OSError(f"pid {pid} did not answer within {ANSWER_S:g} s and was killed") from None
    if not fds:
        raise OSError(f"pid {pid} ended, or speaks to too many agents")
    try:
        return Page(fds[0])
    finally:
        os.close(fds[0])
