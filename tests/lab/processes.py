"""Starting, freezing and ending real processes, so that nothing of a lab outlives it. Only processes of the lab are ever touched, by PID.

Root does not run Postgres: whatever a lab starts as root runs as `postgres`, or `nobody` where that account does not exist.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the lab's processes run as."""

    name: str
    group: str
    uid: int
    gid: int


@cache
def account() -> Account:
    """Ourselves, or the unprivileged account when we are root."""
    import grp

    uid = os.geteuid()
    if uid:
        gid = os.getegid()
        return Account(_user_name(uid), grp.getgrgid(gid).gr_name, uid, gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, grp.getgrgid(entry.pw_gid).gr_name, entry.pw_uid, entry.pw_gid)
    raise RuntimeError("neither `postgres` nor `nobody` exists here, and Postgres does not run as root: add one of these accounts")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError as missing:
        raise RuntimeError(f"user id {uid} has no name in /etc/passwd, and initdb needs one: add an account for it") from missing


def give_away(path: Path) -> Path:
    """The path belongs to the lab's account from now on."""
    if os.geteuid() == 0:
        os.chown(path, account().uid, account().gid)
    return path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every lab process gets: ours without anything that would steer Postgres, Rivha or a connection behind the lab's back."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "RIVHA_", "PATRONI_", "ETCD", "NOTIFY_SOCKET"))}
    return kept | {"LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | dict(extra or {})


class Process:
    """One program in a session of its own, its output in a file; started again after it ended, if wanted."""

    def __init__(self, name: str, argv: Sequence[str], *, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.argv = list(argv)
        self.folder = folder  # its working directory: this is how `sweep` knows it as the lab's
        self.log = folder / f"{name}.log"
        self.env = environment(env)
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.alive:
            raise RuntimeError(f"{self.name} runs already, as {self.pid}")
        who = account()
        drop = {"user": who.uid, "group": who.gid, "extra_groups": []} if os.geteuid() == 0 else {}
        with self.log.open("ab") as out:
            give_away(self.log)
            self._child = subprocess.Popen(  # type: ignore[call-overload]
                self.argv, cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **drop
            )

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """Negative: the signal that ended it. None: runs, or was never started."""
        return None if self._child is None else self._child.poll()

    def signal(self, number: signal.Signals) -> None:
        if self.alive:
            assert self._child is not None
            self._child.send_signal(number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    async def ended(self, deadline_s: float) -> int:
        """Its exit code. Raises TimeoutError with the last lines of its output."""
        until = time.monotonic() + deadline_s
        while (code := self.exit_code) is None:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.name} (pid {self.pid}) did not end in {deadline_s} s:\n{self.tail()}")
            await asyncio.sleep(POLL_S)
        return code

    async def stop(self, deadline_s: float = 30.0) -> None:
        """SIGTERM, and SIGKILL when the deadline has passed."""
        if not self.alive:
            return
        self.thaw()
        self.signal(signal.SIGTERM)
        try:
            await self.ended(deadline_s)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.alive:
            self.signal(signal.SIGKILL)
            await self.ended(30.0)

    def tail(self, lines: int = 20) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no output)"


def working_below(folder: Path, *, programs: Path | None = None) -> list[int]:
    """The live processes whose working directory is `folder` or below; with `programs`, only that program or those of that directory.

    A postmaster and all its children work in the data directory, whatever became of their parents (HAZARDS 67: a PID alone proves nothing).
    """
    root = os.path.realpath(folder)
    wanted = os.path.realpath(programs) if programs else None
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            where = os.readlink(f"/proc/{entry}/cwd").removesuffix(" (deleted)")
            program = os.readlink(f"/proc/{entry}/exe").removesuffix(" (deleted)")
        except OSError:  # gone, a zombie, or somebody else's
            continue
        if (where == root or where.startswith(root + "/")) and (wanted is None or program == wanted or program.startswith(wanted + "/")):
            found.append(int(entry))
    return sorted(found)


def guards_below(folder: Path) -> list[int]:
    """The guards of agents that were started there; they outlive those for a while (rivha/agent/guard.py)."""
    return [pid for pid in working_below(folder) if "rivha.agent.guard" in _arguments(pid)]


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    """One who is gone already is no error."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


async def sweep(folder: Path, *, programs: Path, deadline_s: float = 30.0) -> None:
    """kill -9 of every program of `programs` that works below `folder`, until none is left (they may be starting others meanwhile)."""
    until = time.monotonic() + deadline_s
    while pids := working_below(folder, programs=programs):
        if time.monotonic() > until:
            raise TimeoutError(f"processes {pids} below {folder} do not die (uninterruptible I/O?)")
        signal_all(pids, signal.SIGKILL)
        await asyncio.sleep(POLL_S)
