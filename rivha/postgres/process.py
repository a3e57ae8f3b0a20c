"""The postmaster and its children as the operating system shows them: pid file, identity, death, signals, launch.

It must never signal a process that is not proven to be Postgres on our data directory, and never make the postmaster the agent's child: it
survives the agent. Called by the Server's verbs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rivha.errors import CommandFailed
from rivha.postgres.command import clean_environment, run
from rivha.postgres.kin import is_postgres_at, postgres_at

POLL_S = 0.01  # pg_ctl looks every 100 ms (HAZARDS I 6)
AT_FIRST_S = (0.001, 0.002, 0.004)
LAUNCH_S = 20.0  # for a shell to fork
LOG_BYTES = 10 * 1024 * 1024  # the start-up log is put aside beyond this, once


def pauses() -> Iterator[float]:
    """Between looks, seconds: what a signal sets off often takes a millisecond, and when it does not, ten do no harm."""
    yield from AT_FIRST_S
    while True:
        yield POLL_S


@dataclass(frozen=True, slots=True)
class PidFile:
    """postmaster.pid. A line that is not written yet is "" or 0."""

    pid: int
    started: int  # seconds since 1970, to tell two files apart
    port: int
    socket_dir: str
    listen_address: str
    status: str  # starting, stopping, ready (accepts connections), standby (recovering, does not)


def parse_pid_file(text: str) -> PidFile | None:
    """None when it is not a postmaster's: empty, torn, or of a single-user Postgres (a negative number)."""
    lines = [line.strip() for line in text.split("\n")] + [""] * 8
    try:
        pid = int(lines[0])
    except ValueError:
        return None
    if pid <= 0:
        return None
    started, port = (int(n) if n.isdigit() else 0 for n in (lines[2], lines[3]))
    return PidFile(pid, started, port, lines[4], lines[5], lines[7])


def is_postgres_of(pid: int, data_dir: str) -> bool:
    """Does the process run the postgres program with our data directory as its working directory?"""
    return is_postgres_at(pid, os.path.realpath(data_dir))


def is_postmaster_of(pid: int, data_dir: str) -> bool:
    """As above, and not one of its children: those call themselves "postgres: checkpointer" and so on."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return bool(title) and not title.startswith(b"postgres: ") and is_postgres_of(pid, data_dir)


def processes_of(data_dir: str) -> list[int]:
    """Every Postgres process that works in the directory."""
    return postgres_at(os.path.realpath(data_dir))


class Postmaster:
    """The postmaster of one data directory. Its blocking methods are called off the loop; those that touch the pidfd are not."""

    def __init__(self, data_dir: str) -> None:
        self._data_dir = data_dir
        self._fd: int | None = None
        self._gone = asyncio.Event()
        self.pid: int | None = None  # the postmaster whose death is watched
        self._callbacks: list[Callable[[], None]] = []

    # ---- seeing it

    def pid_file(self) -> PidFile | None:
        """What postmaster.pid says, true or stale. Raises OSError when it cannot be read."""
        try:
            return parse_pid_file(Path(self._data_dir, "postmaster.pid").read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return None

    def look(self) -> PidFile | None:
        """The live postmaster's file; None when there is no postmaster of ours, whatever the file says."""
        found = self.pid_file()
        return found if found and is_postmaster_of(found.pid, self._data_dir) else None

    def on_death(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def watch(self, pid: int) -> None:
        """Watches this postmaster from now on; the callbacks run within milliseconds after its death. Idempotent."""
        if self.pid == pid:
            return
        self.unwatch()
        self._gone = asyncio.Event()
        try:
            fd = os.pidfd_open(pid)
        except OSError:  # dead since it was seen
            self.pid = None
            self._gone.set()
            return
        self._fd, self.pid = fd, pid
        asyncio.get_running_loop().add_reader(fd, self._died)

    def unwatch(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
        self._fd = self.pid = None

    def _died(self) -> None:
        self.unwatch()
        self._gone.set()
        for callback in self._callbacks:
            callback()

    @property
    def alive(self) -> bool:
        """Is the watched one alive at this moment?"""
        return self._fd is not None and not select.select([self._fd], [], [], 0)[0]

    async def gone(self, within_s: float) -> bool:
        """Waits for the death of the watched one."""
        if self.pid is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._gone.wait()
        return self.pid is None

    # ---- ending it

    def signal(self, number: signal.Signals) -> None:
        """To the watched postmaster, through its pidfd: never to a stranger that got its number."""
        if self._fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    async def kill_all(self, deadline_s: float = 30.0) -> None:
        """SIGKILL to every Postgres process of the directory until none is left. Raises CommandFailed when one does not die."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + deadline_s
        pause = pauses()
        while pids := await asyncio.to_thread(processes_of, self._data_dir):
            if loop.time() > give_up:
                raise CommandFailed(f"Postgres processes {pids} of {self._data_dir} do not die of SIGKILL: a blocked disk?")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(next(pause))
        await asyncio.to_thread(self.forget_torn_pid_file)

    def forget_torn_pid_file(self) -> None:
        """Removes a postmaster.pid without a pid, which makes Postgres refuse to start: a full disk, or a kill while it was written.

        Only to be called when no process of the directory is left. Blocking.
        """
        try:
            path = Path(self._data_dir, "postmaster.pid")
            if not path.read_bytes().strip():
                path.unlink()
        except FileNotFoundError:
            pass
        except OSError as e:
            raise CommandFailed(f"cannot remove the empty {e.filename}: {e.strerror or e}") from e

    def forget_stale_sockets(self, folders: Iterable[str], port: int) -> None:
        """Removes the locks of sockets that a dead postmaster of this directory left: its number may be in use again, or still a zombie's.

        Only to be called when no process of the directory is left. Blocking.
        """
        for folder in folders:
            lock = Path(folder, f".s.PGSQL.{port}.lock")
            with contextlib.suppress(OSError):  # then Postgres will say what is wrong with it
                lines = lock.read_text(encoding="utf-8", errors="replace").splitlines()
                if len(lines) > 1 and lines[1] == self._data_dir.rstrip("/"):
                    lock.unlink()

    # ---- starting it

    async def launch(self, argv: Sequence[str], log: str) -> int:
        """Starts a postmaster in a session of its own and as nobody's child; its pid, watched.

        Not by pg_ctl: that one neither tells the pid at once nor lets us say that the number in a stale postmaster.pid now belongs to
        somebody else (PG_GRANDPARENT_PID), which a restarted container meets every other time.
        """
        stale = await asyncio.to_thread(self.pid_file)
        extra = {"PG_GRANDPARENT_PID": str(stale.pid)} if stale else {}
        # `clean_environment` keeps the operator's locale: Postgres logs in it, and archive_command inherits it.
        environment = clean_environment({**extra, "RIVHA_LOG": log}, c_locale=False)
        script = '"$@" </dev/null >>"$RIVHA_LOG" 2>&1 & echo $!'
        shell = ["/bin/sh", "-c", script, "sh", *argv]
        running = asyncio.ensure_future(run(shell, name=argv[0], timeout_s=LAUNCH_S, env=environment))
        try:
            pid = int(await asyncio.shield(running))
        except asyncio.CancelledError:
            # A postmaster this young cannot be found by its files yet, and whoever cancels must not be survived by it.
            self.watch(int(await running))
            self.signal(signal.SIGKILL)
            raise
        self.watch(pid)
        return pid


def log_of(data_dir: str) -> str:
    """Where the postmaster's own output goes: beside the data, where no rewind overwrites it, or inside when there is no permission.

    With logging_collector only Postgres's first and last words go there.
    """
    path = data_dir.rstrip("/") + ".log"
    return path if os.access(os.path.dirname(path), os.W_OK) else os.path.join(data_dir, "rivha-postgres.log")


def rotate(log: str) -> int:
    """Puts a log that has grown large aside; the size of what is there."""
    try:
        size = os.stat(log).st_size
        if size < LOG_BYTES:
            return size
        os.replace(log, log + ".1")
    except FileNotFoundError:
        pass
    return 0


def tail(log: str, since: int, lines: int = 15) -> str:
    """The last lines written to `log` beyond byte `since`."""
    try:
        with open(log, "rb") as file:
            file.seek(max(since, file.seek(0, os.SEEK_END) - 8192))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
