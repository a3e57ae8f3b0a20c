"""Ends Postgres: politely, then firmly, then for sure. It must never return while a process of the data directory lives."""

from __future__ import annotations

import asyncio
import signal

from rivha.postgres.parts import Parts


async def stop(parts: Parts, *, fast_s: float, quit_s: float) -> None:
    """Raises CommandFailed only when a process outlives SIGKILL."""
    postmaster = parts.postmaster
    if not postmaster.alive:  # the one that is watched is ours, whatever its files say, and a disk that hangs must not save it
        found = await asyncio.to_thread(postmaster.look)
        if found is not None:
            postmaster.watch(found.pid)
    if fast_s > 0:
        postmaster.signal(signal.SIGINT)
        if await postmaster.gone(fast_s):
            await postmaster.kill_all()
            return
    if quit_s > 0:
        postmaster.signal(signal.SIGQUIT)
        await postmaster.gone(quit_s)
    postmaster.signal(signal.SIGKILL)
    await postmaster.kill_all()
    await postmaster.gone(1.0)  # it is dead: lets the loop see it, so that `alive` and the callbacks agree
