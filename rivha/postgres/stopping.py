"""Ends Postgres: politely, then firmly, then for sure. It must never return while a process of the data directory lives."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import structlog

from rivha.errors import CommandFailed
from rivha.postgres.parts import Parts
from rivha.postgres.process import processes_of

log = structlog.get_logger(__name__)

ARCHIVER = re.compile(r"(^|: )archiver( |$)")  # after cluster_name, if there is one
LOOK_S = 0.05  # between looks at the control file, of a few kilobytes
CANCELLED_S = 0.2  # for a program that reads it to be gone; its disk may hang


async def stop(parts: Parts, *, fast_s: float, quit_s: float, linger_s: float | None = None) -> None:
    """Raises CommandFailed only when a process outlives SIGKILL. `linger_s`: see Postgres.stop."""
    postmaster = parts.postmaster
    if not postmaster.alive:  # the one that is watched is ours, whatever its files say, and a disk that hangs must not save it
        found = await asyncio.to_thread(postmaster.look)
        if found is not None:
            postmaster.watch(found.pid)
    if fast_s > 0:
        postmaster.signal(signal.SIGINT)
        if await (postmaster.gone(fast_s) if linger_s is None else _gone(parts, fast_s, linger_s)):
            await postmaster.kill_all()
            return
    if quit_s > 0:
        postmaster.signal(signal.SIGQUIT)  # ends what an archiver runs, too, and tidies up: SIGKILL does neither
        await postmaster.gone(quit_s)
    postmaster.signal(signal.SIGKILL)
    await postmaster.kill_all()
    await postmaster.gone(1.0)  # it is dead: lets the loop see it, so that `alive` and the callbacks agree


async def _gone(parts: Parts, fast_s: float, linger_s: float) -> bool:
    """As Postmaster.gone; but only for `linger_s` once the control file says "shut down": it is clean then, however the others end.

    An archiver gets all of `fast_s`: what it leaves here nobody would archive, since the next primary takes what it received for archived.
    """
    gone = asyncio.create_task(parts.postmaster.gone(fast_s))
    written = asyncio.create_task(_shut_down(parts))
    try:
        await asyncio.wait({gone, written}, return_when=asyncio.FIRST_COMPLETED)
        is_written = written.done() and written.exception() is None
        await asyncio.wait({gone}, timeout=linger_s if is_written else None)
        if parts.postmaster.pid is not None and is_written:
            left = await _when_all_is_archived(parts, gone)
            log.warning("Postgres has shut down but for these, which are ended now", left=left)
    finally:
        gone.cancel()
        written.cancel()
        await asyncio.wait({gone, written}, timeout=CANCELLED_S)
    return parts.postmaster.pid is None


async def _when_all_is_archived(parts: Parts, gone: asyncio.Task[bool]) -> list[str]:
    """Who is left then, or when `gone` is done."""
    told = False
    while True:
        left = await asyncio.to_thread(_titles, parts.settings.data_dir)
        if gone.done() or not any(ARCHIVER.search(title) for title in left):
            return left
        if not told:
            log.info("Postgres has shut down; what it has written is archived before somebody else may lead", left=left)
        told = True
        await asyncio.wait({gone}, timeout=LOOK_S)


async def _shut_down(parts: Parts) -> None:
    """Returns when the shutdown checkpoint is in the control file. What cannot be read says nothing."""
    seen = b""
    while True:
        try:
            content = await asyncio.to_thread(Path(parts.data.of("global/pg_control")).read_bytes)
            if content != seen and (await parts.control()).clean:
                return
            seen = content
        except (CommandFailed, OSError):
            pass  # also one that is half written: the next look sees it change
        await asyncio.sleep(LOOK_S)


def _titles(data_dir: str) -> list[str]:
    """What the processes call themselves: whom a WAL sender serves, which file an archiver is at."""
    titles = []
    for pid in processes_of(data_dir):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:  # gone meanwhile
            continue
        if title.startswith(b"postgres: "):
            titles.append(title.rstrip(b"\0 ").decode(errors="replace").removeprefix("postgres: "))
    return sorted(titles)
