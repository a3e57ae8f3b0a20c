"""Starts a stopped directory and waits until it accepts connections. It must never start one that carries a marker, nor two at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rivha.errors import CommandFailed
from rivha.model import Data, Upstream
from rivha.postgres.neighbours import refuse_taken_port
from rivha.postgres.parts import Parts, refuse_unless_valid
from rivha.postgres.process import POLL_S, log_of, rotate, tail

PATIENT_AFTER_S = 5.0  # replaying WAL may take hours; then one look in 100 ms is enough
PATIENT_POLL_S = 0.1


async def start(parts: Parts, *, primary: bool, upstream: Upstream | None, names: str | None = None, keep_frozen: bool = False) -> None:
    """`names`: a primary's, None as they lie there. Raises CommandFailed, with Postgres's own last words when it died meanwhile."""
    contents = await asyncio.to_thread(parts.data.look)
    if contents.data is Data.UNFINISHED:
        raise CommandFailed(f"not started: {contents.problem}")
    refuse_unless_valid(contents.data, contents.problem)
    version = await parts.programs.version()
    lying = await asyncio.to_thread(parts.data.version)
    if lying != str(version):
        raise CommandFailed(f"{parts.settings.data_dir} is of PostgreSQL {lying}, the programs are of {version}; set postgresql.bin_dir")
    await asyncio.to_thread(parts.conf.read_back)

    def steer() -> None:
        given = parts.conf.names if names is None else names
        parts.conf.steer(upstream, frozen=keep_frozen and parts.conf.frozen, names=given if primary else "")

    await bring_up(parts, standby=not primary, steer=steer)


async def bring_up(parts: Parts, *, standby: bool, steer: Callable[[], None] = lambda: None) -> None:
    """The part of `start` that asks no questions. `steer` says in `parts.conf` whom to follow and to wait for, unless it says so already.

    Not before the directory is a standby's or a primary's: a start as a standby that comes to nothing before that must not leave a
    primary without the names that its voters count on.
    """
    await parts.postmaster.kill_all()  # children of a dead postmaster keep its shared memory, and may still write
    await asyncio.to_thread(refuse_taken_port, parts.settings)
    await asyncio.to_thread(_prepare, parts, standby, steer)
    control = await parts.control() if standby else None
    log = await asyncio.to_thread(log_of, parts.settings.data_dir)
    since = await asyncio.to_thread(rotate, log)
    parts.link.forget()
    program = await asyncio.to_thread(parts.programs.path, "postgres")
    pid = await parts.postmaster.launch([program, *parts.conf.arguments(control)], log)
    await _ready(parts, pid, log, since)


def _prepare(parts: Parts, standby: bool, steer: Callable[[], None]) -> None:
    parts.postmaster.forget_stale_sockets(parts.conf.socket_folders(), parts.settings.port)
    parts.data.set_standby(standby)
    steer()
    parts.conf.sanitise()
    parts.conf.write(standby=standby)


async def _ready(parts: Parts, pid: int, log: str, since: int) -> None:
    began = parts.clock()
    while True:
        if parts.postmaster.pid != pid:
            words = await asyncio.to_thread(tail, log, since)
            raise CommandFailed(f"Postgres did not start; its log {log} ends with", words)
        file = await asyncio.to_thread(parts.postmaster.pid_file)
        if file and file.pid == pid and file.status == "ready":
            return
        await parts.postmaster.gone(POLL_S if parts.clock() - began < PATIENT_AFTER_S else PATIENT_POLL_S)
