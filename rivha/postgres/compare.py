"""Is the local WAL a prefix of the leader's? Decides between following, rewinding and cloning, so it must never say SAME when unsure.

It reads the leader's history over SQL and the local end of WAL from the running server, or, when it is stopped, from the WAL itself: the
control file lags behind it. Called by the Server.
"""

from __future__ import annotations

import asyncio
import glob
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from rivha.errors import CommandFailed, PostgresUnavailable
from rivha.model import History, HistoryLine, Lsn, Upstream, format_lsn
from rivha.postgres import history, twins
from rivha.postgres.controldata import ControlData
from rivha.postgres.link import open_connection
from rivha.postgres.parts import Parts
from rivha.postgres.process import PidFile
from rivha.postgres.running import end_of_wal
from rivha.postgres.status import identify

CONNECT_S = 5.0
SETTLE_S = 5.0  # a running standby that streams from nobody reaches the end of its WAL within this, or nothing is said
SCAN_S = 120.0  # reading the WAL since the last checkpoint; beyond it the answer is the cautious one
LEADER = """
SELECT pg_is_in_recovery() AS standby, (SELECT system_identifier::text FROM pg_control_system()) AS system_id,
       (SELECT timeline_id FROM pg_control_checkpoint()) AS checkpoint_timeline,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END AS file,
       CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_flush_lsn() - '0/0')::bigint END AS lsn
"""
# With three arguments: what a rewind's user is allowed (bootstrap).
SOCKETS = r"SELECT name FROM pg_ls_dir('.', true, false) AS name WHERE name ~ '^\.s\.PGSQL\.[0-9]+$'"
HISTORY = "SELECT pg_read_binary_file($1, 0, 1000000, true)"
_RECORD = re.compile(r"len \(rec/tot\):\s*\d+/\s*(\d+),.*?lsn: ([0-9A-F]+)/([0-9A-F]+),.*?desc: (\w+)")


@dataclass(frozen=True, slots=True)
class Leader:
    system_id: str
    timeline: int
    lsn: Lsn
    past: tuple[HistoryLine, ...]
    checkpoint_timeline: int  # behind `timeline` from its promotion until its next checkpoint


async def compare(parts: Parts, upstream: Upstream) -> tuple[History, str]:
    try:
        leader = await ask_leader(parts, upstream)
        file = await asyncio.to_thread(parts.postmaster.look)
        control = await parts.control()
        if control.system_id != leader.system_id:
            text = f"{upstream.name} is of another cluster: its system identifier is {leader.system_id}, mine {control.system_id}"
            return History.UNKNOWN, text
        timeline, end, read = await (_stopped(parts, control) if file is None else _running(parts, file))
        leader = await ask_leader(parts, upstream)  # again: mine may have streamed on meanwhile, and must not seem to be ahead
        past = await asyncio.to_thread(local_history, parts, timeline)
        if file is not None and past and end < past[-1].lsn:
            raise CommandFailed(f"the local Postgres went on to timeline {timeline} meanwhile")
        found, text = history.judge(timeline, end, past, leader.timeline, leader.lsn, leader.past)
        mine = twins.Mine(timeline, past[-1].lsn if past else 0, end, read)
        problem = await _why_not_followed(parts, upstream, leader, mine, control) if found is History.SAME else None
    except _Cautious as e:
        return History.DIVERGED, str(e)
    except (CommandFailed, PostgresUnavailable) as e:
        return History.UNKNOWN, str(e)
    return (History.DIVERGED, f"{text}; but {problem}") if problem else (found, text)


async def _why_not_followed(parts: Parts, upstream: Upstream, leader: Leader, mine: twins.Mine, control: ControlData) -> str | None:
    """What the numbers do not tell: my timeline is another than the leader's of that number, or the WAL that I lack is gone."""
    later = [line.timeline for line in leader.past if line.timeline > mine.timeline] + [leader.timeline]
    segment_bytes = control.wal_segment_bytes
    async with _asking(parts, upstream) as connection:
        if (why := await twins.differs(parts, connection, mine, later, segment_bytes)) is not None:
            return why
        if not parts.conf.restore_command() and await twins.is_gone(connection, mine, later, leader.lsn, segment_bytes):
            return f"{upstream.name} has removed the WAL after {format_lsn(mine.end)}, and there is no archive (restore_command)"
    return None


class _Cautious(CommandFailed):
    """The end of the WAL could not be read; so it may lie past anything."""


async def ask_leader(parts: Parts, upstream: Upstream) -> Leader:
    """Raises PostgresUnavailable when it does not answer, or is no primary."""
    async with _asking(parts, upstream) as connection:
        row = await connection.fetchrow(LEADER)
        assert row is not None
        if row["standby"]:
            raise PostgresUnavailable(f"{upstream.name} is still in recovery")
        timeline = int(row["file"][:8], 16)
        past = await connection.fetchval(HISTORY, f"pg_wal/{timeline:08X}.history") if timeline > 1 else b""
    if past is None:
        raise PostgresUnavailable(f"{upstream.name} has no history file of its timeline {timeline} in pg_wal")
    return Leader(row["system_id"], timeline, row["lsn"], history.parse(past.decode(errors="replace")), row["checkpoint_timeline"])


async def why_a_rewind_is_in_vain(parts: Parts, upstream: Upstream, leader: Leader, control: ControlData) -> str | None:
    """What a rewound directory replays before it is consistent, from where both were the same on, must lie in the leader's pg_wal:
    pg_rewind copies what is there, succeeds, and leaves a standby that starts for ever. A leader that was cloned has nothing older.

    None when it lies there, when there is an archive, or when my timeline is none of the leader's.
    """
    left = next((line.lsn for line in leader.past if line.timeline == control.timeline), None)
    if left is None or parts.conf.restore_command():
        return None
    begin = min(left, control.redo)  # of the last checkpoint in common, or a later position
    mine = twins.Mine(control.timeline, 0, begin, begin)
    later = [line.timeline for line in leader.past if line.timeline > control.timeline] + [leader.timeline]
    async with _asking(parts, upstream) as connection:
        if await twins.is_gone(connection, mine, later, leader.lsn, control.wal_segment_bytes):
            return f"{upstream.name} has no WAL of {format_lsn(begin)} any more, from where on a rewound directory would have to replay"
    return None


async def sockets_in_data(parts: Parts, upstream: Upstream) -> list[str]:
    """Of unix_socket_directories inside the other's data directory. Raises PostgresUnavailable."""
    async with _asking(parts, upstream) as connection:
        return [row[0] for row in await connection.fetch(SOCKETS)]


@asynccontextmanager
async def _asking(parts: Parts, upstream: Upstream) -> AsyncIterator[asyncpg.Connection]:
    """A connection to another node; its errors come out as PostgresUnavailable."""
    user = parts.settings.rewind_user
    settings = {"application_name": "Rivha", "search_path": "pg_catalog"}
    try:
        connection = await open_connection(upstream.host, upstream.port, user, settings, timeout_s=CONNECT_S)
        try:
            yield connection
        finally:
            connection.terminate()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as e:
        why = str(e) or type(e).__name__
        raise PostgresUnavailable(f"{upstream.name} ({upstream.address}) does not answer user {user.username}: {why}") from e


async def _running(parts: Parts, file: PidFile) -> tuple[int, Lsn, Lsn]:
    """As `_stopped`."""
    if file.status != "ready":
        raise PostgresUnavailable("the local Postgres is still starting")
    async with parts.link.session(file) as connection:
        if not await connection.fetchval("SELECT pg_is_in_recovery()"):
            row = await connection.fetchrow(LEADER)
            assert row is not None
            return int(row["file"][:8], 16), row["lsn"], row["lsn"]
        _, end = await end_of_wal(parts, connection, SETTLE_S)
    timeline, _ = await identify(parts, file)
    return timeline, end, end


async def _stopped(parts: Parts, control: ControlData) -> tuple[int, Lsn, Lsn]:
    """(timeline, end of WAL, how far it was really read: 0 when only the control file says so).

    What a start would replay is read from the WAL itself, from the last position that is known to be good.
    """
    if control.state != "shut down":
        newer = await asyncio.to_thread(_newer_timeline, parts, control)
        if newer is not None:
            timeline, start = newer
            read = await last_record(parts, control, timeline, start) or 0
            return timeline, max(start, read), read
        if control.minimum_recovery is not None and control.minimum_recovery_timeline >= control.checkpoint_timeline:
            timeline, start = control.minimum_recovery_timeline, control.minimum_recovery
            # From the segment's beginning: right after a promotion, and after a rewind, there may be no record behind that position
            read = await last_record(parts, control, timeline, segment_begin(start, control.wal_segment_bytes)) or 0
            return timeline, max(start, read), read
    end = await last_record(parts, control, control.checkpoint_timeline, control.checkpoint, one=control.state == "shut down")
    if end is None:
        raise _Cautious(f"the latest checkpoint, at {format_lsn(control.checkpoint)}, cannot be read from pg_wal")
    return control.checkpoint_timeline, end, end


def _newer_timeline(parts: Parts, control: ControlData) -> tuple[int, Lsn] | None:
    """The newest timeline that descends from the control file's and of which WAL lies here: (timeline, where it begins). Blocking.

    The control file learns of a timeline only at the next restart point; a start would follow the newest one at once.
    """
    names = os.listdir(parts.data.of("pg_wal"))
    for name in sorted((n for n in names if n.endswith(".history")), reverse=True):
        timeline = int(name[:8], 16)
        if timeline <= control.timeline:
            return None
        begins = {line.timeline: line.lsn for line in local_history(parts, timeline)}
        if control.timeline in begins and any(len(n) == 24 and n.startswith(name[:8]) for n in names):
            return timeline, max(begins.values())
    return None


async def last_record(parts: Parts, control: ControlData, timeline: int, start: Lsn, *, one: bool = False) -> Lsn | None:
    """Where the last readable record from `start` on ends; None when there is none. Raises _Cautious when it takes too long."""
    limit = await asyncio.to_thread(_last_segment_end, parts, control.wal_segment_bytes, timeline, start)
    if limit is None:
        return None
    arguments = ["-p", parts.data.of("pg_wal"), "-t", str(timeline), "-s", format_lsn(start), "-e", format_lsn(limit)]
    arguments += ["-n", "1"] if one else []
    try:
        # It ends with an error at the end of WAL, which is why it is run.
        text = await parts.programs.run("pg_waldump", *arguments, timeout_s=SCAN_S, keep_bytes=65536, any_code=True)
    except CommandFailed as e:
        raise _Cautious(f"the local WAL could not be read to its end: {e}") from e
    records = list(_RECORD.finditer(text))
    if not records:
        return None
    found = records[-1]
    begins = (int(found.group(2), 16) << 32) + int(found.group(3), 16)
    end = history.record_end(begins, int(found.group(1)), control.wal_block_bytes, control.wal_segment_bytes)
    # The record of a switch to the next segment is short, but ends where that segment begins.
    return end if found.group(4) != "SWITCH" else -(-end // control.wal_segment_bytes) * control.wal_segment_bytes


def segment_begin(lsn: Lsn, segment_bytes: int) -> Lsn:
    """Of the segment that holds the byte before `lsn`."""
    return (lsn - 1) // segment_bytes * segment_bytes


def _last_segment_end(parts: Parts, segment_bytes: int, timeline: int, start: Lsn) -> Lsn | None:
    """Up to where there are segments without a gap, which pg_waldump must be told: it waits five seconds for one that is missing."""
    number = start // segment_bytes
    per_id = 0x100000000 // segment_bytes
    while os.path.exists(parts.data.of(f"pg_wal/{timeline:08X}{number // per_id:08X}{number % per_id:08X}")):
        number += 1
    return number * segment_bytes if number > start // segment_bytes else None


def local_history(parts: Parts, timeline: int) -> tuple[HistoryLine, ...]:
    """The past of `timeline` as pg_wal tells it; the newest history file there when that one is missing. Blocking."""
    folder = parts.data.of("pg_wal")
    wanted = os.path.join(folder, f"{timeline:08X}.history")
    older = [name for name in sorted(glob.glob(f"{folder}/*.history")) if name <= wanted or not timeline]
    names = [wanted] if os.path.exists(wanted) else older[-1:]
    try:
        for name in names:
            with open(name, encoding="utf-8", errors="replace") as file:
                return tuple(line for line in history.parse(file.read()) if not timeline or line.timeline < timeline)
    except OSError as e:
        raise CommandFailed(f"cannot read the timeline history in {folder}: {e.strerror or e}") from e
    return ()
