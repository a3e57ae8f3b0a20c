"""Is the WAL that lies here byte for byte the leader's? Numbers do not tell: two promotions can give two timelines the same number.

It happens when a leader dies before anybody has followed it: the next one, promoted from the same history, takes the same number, perhaps
at the same position. A timeline's first record carries the microsecond of its promotion, so its bytes name it. It must never change
anything, here or there. Called by `compare`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from rivha.errors import CommandFailed
from rivha.model import Lsn, format_lsn
from rivha.postgres.parts import Parts

FIRST_BYTES = 128  # the end-of-recovery record and what may stand before it
LAST_BYTES = 8192
READ = "SELECT pg_read_binary_file($1, $2, $3, true)"  # NULL when there is no such file


@dataclass(frozen=True, slots=True)
class Mine:
    """The local WAL: up to `end`, on `timeline`, which began at `begin` (0: with the cluster)."""

    timeline: int
    begin: Lsn
    end: Lsn
    read: Lsn  # up to here it is known to lie here: after a rewind, the control file may promise more than was copied


def segment_name(timeline: int, lsn: Lsn, segment_bytes: int) -> str:
    number, per_id = lsn // segment_bytes, 0x100000000 // segment_bytes
    return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"


async def differs(parts: Parts, connection: asyncpg.Connection, mine: Mine, later: Sequence[int], segment_bytes: int) -> str | None:
    """In words where the leader's WAL is another than mine; None when it is the same wherever both still have it.

    `later`: the leader's timelines after mine, oldest first. Raises what asyncpg raises, and CommandFailed.
    """
    for begin, end in _spots(mine, segment_bytes):
        local = await asyncio.to_thread(_read, parts, segment_name(mine.timeline, begin, segment_bytes), begin % segment_bytes, end - begin)
        for timeline in (mine.timeline, *later) if local else ():
            name = segment_name(timeline, begin, segment_bytes)
            theirs = await connection.fetchval(READ, f"pg_wal/{name}", begin % segment_bytes, end - begin)
            if theirs is not None and theirs != local:
                return f"at {format_lsn(begin)} the leader's {name} is not mine: another promotion made a timeline {mine.timeline}, too"
            if theirs is not None:
                break
    return None


async def is_gone(connection: asyncpg.Connection, mine: Mine, later: Sequence[int], leader_lsn: Lsn, segment_bytes: int) -> bool:
    """The leader has removed the segment with which my WAL goes on: nobody can follow it from there."""
    if leader_lsn // segment_bytes == mine.end // segment_bytes:
        return False  # it is being written
    names = [segment_name(timeline, mine.end, segment_bytes) for timeline in (mine.timeline, *later)]
    return all([await connection.fetchval(READ, f"pg_wal/{name}", 0, 1) is None for name in names])


def _spots(mine: Mine, segment_bytes: int) -> list[tuple[Lsn, Lsn]]:
    """Where to look: the first bytes of my timeline, and my last ones; each within one segment."""
    spots = []
    if mine.begin:
        first = min(mine.begin + FIRST_BYTES, mine.read)
        border = (mine.begin // segment_bytes + 1) * segment_bytes
        spots += [(mine.begin, min(first, border)), (border, first)]
    last = max(mine.begin, (mine.read - 1) // segment_bytes * segment_bytes, mine.read - LAST_BYTES)
    return [(begin, end) for begin, end in (*spots, (last, mine.read)) if begin < end]


def _read(parts: Parts, name: str, offset: int, length: int) -> bytes | None:
    try:
        with open(parts.data.of(f"pg_wal/{name}"), "rb") as file:
            file.seek(offset)
            return file.read(length)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise CommandFailed(f"cannot read {parts.data.of('pg_wal')}/{name}: {e.strerror or e}") from e
