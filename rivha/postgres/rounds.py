"""Has a process of Postgres taken a reload? Told by how it sleeps, since no view of Postgres says so.

Postgres' processes take SIGHUP at the top of their main loop and nowhere else, and no time after the signal is long enough to take that for
granted: one may be in a long checkpoint, stopped, or without a processor. What proves it is that a process slept in its main wait, was
waked by a signal, and sleeps there again. It must never signal what is not Postgres on our data directory. Linux only. Called by the verbs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from rivha.postgres.process import is_postgres_of

Nap = tuple[str, str]  # how often a process had gone to sleep and was interrupted: the same numbers mean the same sleep


def asleep(pid: int) -> Nap | None:
    """None when it does not sleep, or a SIGHUP waits for it that it has not heard yet."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        facts = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        pending = int(facts["SigPnd"], 16) | int(facts["ShdPnd"], 16)
        if not facts["State"].startswith("S") or pending & (1 << (signal.SIGHUP - 1)):
            return None
        return facts["voluntary_ctxt_switches"], facts["nonvoluntary_ctxt_switches"]
    except (OSError, KeyError, ValueError):
        return None


def naps(pids: Iterable[int]) -> dict[int, Nap | None]:
    return {pid: asleep(pid) for pid in pids}


def nudge(pid: int, data_dir: str) -> None:
    """SIGHUP to one process: it reads the files again, as it would for the postmaster's."""
    if is_postgres_of(pid, data_dir):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)


@dataclass(slots=True)
class Rounds:
    """Watches processes by rows of pg_stat_activity (`pid`, `wait_event`). To be begun after the signal that matters was sent."""

    data_dir: str
    resting: set[int] = field(default_factory=set)  # in the last look: slept from before to after it, with nothing left to hear
    around: set[int] = field(default_factory=set)  # were seen in two sleeps of the same wait, and nudged in between
    known: set[int] = field(default_factory=set)
    _first: dict[tuple[int, object], Nap] = field(default_factory=dict)

    async def look(
        self,
        ask: Callable[[], Awaitable[Sequence[asyncpg.Record]]],
        in_main_wait: Callable[[asyncpg.Record], bool],
        *,
        nudging: bool = True,
    ) -> Sequence[asyncpg.Record]:
        """What `ask` found. Who is not `known` yet is judged from the next look on."""
        before = await asyncio.to_thread(naps, self.known)
        rows = await ask()
        after = await asyncio.to_thread(naps, self.known)
        slept = [r for r in rows if before.get(r["pid"]) is not None and before[r["pid"]] == after[r["pid"]] and in_main_wait(r)]
        self.resting = {r["pid"] for r in slept}
        self.known = {r["pid"] for r in rows}
        for row in slept:
            pid, nap = row["pid"], before[row["pid"]]
            assert nap is not None
            first = self._first.setdefault((pid, row["wait_event"]), nap)
            if first != nap:
                self.around.add(pid)
            elif nudging and pid not in self.around:
                await asyncio.to_thread(nudge, pid, self.data_dir)
        return rows
