"""The verbs for a Postgres that runs: promote, follow, freeze, reload, checkpoint.

A setting counts only when a fresh backend shows it, and a receiver as stopped only when its process is gone. Called by the Server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping

import asyncpg
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from rivha.errors import CommandFailed, PostgresUnavailable
from rivha.model import Lsn, Role, Upstream, WalEnd
from rivha.postgres import conf, conninfo, files, history
from rivha.postgres.link import NotYet
from rivha.postgres.parts import Parts
from rivha.postgres.process import POLL_S, PidFile, is_postgres_of, pauses
from rivha.postgres.rounds import Rounds
from rivha.postgres.status import identify

IN_FORCE_S = 10.0  # a reload reaches the backends in milliseconds; this is for a machine that is out of breath
RECEIVER_S = 0.1  # how long the startup process may take to stop the receiver before Rivha does
PROMOTE_QUERY_S = 5.0
HOURS_S = 6 * 3600.0  # work that is as long as the data is large; the agent cancels it earlier when it must

STARTUP = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup' AND pg_is_in_recovery()"
RECEIVER = "SELECT count(*) FROM pg_stat_wal_receiver"
SOURCE = "SELECT pid, conninfo FROM pg_stat_wal_receiver"
END = """
SELECT pid, wait_event, (pg_last_wal_receive_lsn() - '0/0')::bigint AS received, (pg_last_wal_replay_lsn() - '0/0')::bigint AS replayed,
       pg_is_wal_replay_paused() AS paused
FROM pg_stat_activity WHERE backend_type = 'startup'
"""
WAITS_FOR_WAL = ("RecoveryRetrieveRetryInterval", "RecoveryWalStream", "RecoveryWalAll")


async def alive(parts: Parts) -> PidFile:
    """The live postmaster. Raises PostgresUnavailable when there is none."""
    found = await asyncio.to_thread(parts.postmaster.look)
    if found is None:
        raise PostgresUnavailable("Postgres is not running")
    return found


@retry(retry=retry_if_exception_type(NotYet), wait=wait_fixed(POLL_S), stop=stop_after_delay(HOURS_S), reraise=True)
async def role_when_it_answers(parts: Parts) -> Role:
    """The role of a running Postgres, once it accepts connections. Raises PostgresUnavailable when it dies or does not answer."""
    file = await alive(parts)
    if file.status != "ready":
        raise NotYet(f"Postgres is {file.status or 'starting'}")
    async with parts.link.session(file) as connection:
        return Role.STANDBY if await connection.fetchval("SELECT pg_is_in_recovery()") else Role.PRIMARY


async def until(condition: Callable[[], Awaitable[bool]], within_s: float, what: str) -> None:
    """Polls every 10 ms, at first faster. Raises CommandFailed(what) when it does not become true."""
    pause = pauses()
    try:
        async with asyncio.timeout(within_s):
            while not await condition():  # noqa: ASYNC110  nothing in Postgres can set an Event of ours
                await asyncio.sleep(next(pause))
    except TimeoutError:
        raise CommandFailed(what) from None


async def reload(parts: Parts) -> None:
    """Tells the postmaster to read its files again; it tells its children."""
    file = await alive(parts)
    parts.postmaster.watch(file.pid)
    parts.postmaster.signal(signal.SIGHUP)


async def refuse_other_version(parts: Parts) -> None:
    """Nothing is written into a directory of a version that these programs are not of (HAZARDS E 79)."""
    lying = await asyncio.to_thread(parts.data.version)
    if lying != str(await parts.programs.version()):
        raise CommandFailed(f"{parts.settings.data_dir} is of PostgreSQL {lying}; the programs found are of another version: not touched")


# ---- recovery settings by reload


async def put_in_force(parts: Parts, connection: asyncpg.Connection, *, standby: bool) -> None:
    """Writes what `parts.conf` says about recovery, reloads, and returns when the server has taken it."""
    wanted = {**parts.conf.recovery(standby=standby), conf.NAMES: parts.conf.names or ""}
    if await asyncio.to_thread(_written, parts, standby) or await _differing(connection, wanted):
        await reload(parts)

    async def taken() -> bool:
        return not await _differing(connection, wanted)

    try:
        await until(taken, IN_FORCE_S, "")
    except CommandFailed:
        names = ", ".join(await _differing(connection, wanted))
        raise CommandFailed(f"Postgres did not take over {names} after a reload", await mistakes_in_files(connection)) from None


def _written(parts: Parts, standby: bool) -> bool:
    """Whether a file has changed."""
    changed = parts.conf.write(standby=standby)
    return parts.conf.sanitise() or changed


async def mistakes_in_files(connection: asyncpg.Connection) -> str:
    """What keeps a setting from being taken, for people."""
    rows = await connection.fetch("SELECT sourcefile, sourceline, name, error FROM pg_file_settings WHERE error IS NOT NULL LIMIT 5")
    return "\n".join(f"{r['sourcefile']}:{r['sourceline']}: {r['name']}: {r['error']}" for r in rows)


async def _differing(connection: asyncpg.Connection, wanted: Mapping[str, str]) -> list[str]:
    rows = await connection.fetch("SELECT name, current_setting(name) AS value FROM pg_settings WHERE name = ANY($1::text[])", list(wanted))
    return [r["name"] for r in rows if r["value"] != wanted[r["name"]] and r["name"] != "recovery_min_apply_delay"]


async def follow(parts: Parts, upstream: Upstream | None) -> None:
    async with parts.link.session(await alive(parts)) as connection:
        if not await connection.fetchval("SELECT pg_is_in_recovery()"):
            raise CommandFailed("a primary cannot follow anybody without being stopped")
        parts.conf.steer(upstream)
        await put_in_force(parts, connection, standby=True)
        wanted = parts.conf.primary_conninfo()
        await _receiver_gone(parts, connection, unless=conninfo.address(wanted))


async def _receiver_gone(parts: Parts, connection: asyncpg.Connection, unless: str | None = None) -> None:
    """No receiver is left but one that streams from `unless`. One that its startup process is too busy to stop is ended here."""
    loop = asyncio.get_running_loop()
    help_at = loop.time() + RECEIVER_S

    async def gone() -> bool:
        row = await connection.fetchrow(SOURCE)
        if row is None or (unless is not None and conninfo.address(row["conninfo"] or "") == unless):
            return True
        if loop.time() >= help_at and await asyncio.to_thread(is_postgres_of, row["pid"], parts.settings.data_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(row["pid"], signal.SIGTERM)
        return False

    await until(gone, IN_FORCE_S, "the WAL receiver does not end")


# ---- freeze


async def freeze(parts: Parts, known_timeline: Callable[[int], int | None]) -> WalEnd:
    """`known_timeline`: what was last heard of a postmaster's timeline."""
    file = await alive(parts)
    await asyncio.to_thread(parts.conf.read_back)
    async with parts.link.session(file) as connection:
        startup = await connection.fetchval(STARTUP)
        if startup is None:
            raise CommandFailed("a primary cannot be frozen")
        parts.conf.steer(parts.conf.upstream, frozen=True)
        await put_in_force(parts, connection, standby=True)
        await _receiver_gone(parts, connection)
        end, _ = await end_of_wal(parts, connection, HOURS_S, startup)
        while await connection.fetchval(RECEIVER):  # one that was being started with the old setting when the new one came
            await _receiver_gone(parts, connection)
            end, _ = await end_of_wal(parts, connection, HOURS_S)
    timeline = known_timeline(file.pid)
    if timeline is None or not await asyncio.to_thread(_still_on, parts, timeline, end):
        timeline, _ = await identify(parts, file)
    return WalEnd(timeline, end)


def _still_on(parts: Parts, timeline: int, end: Lsn) -> bool:
    """Whether WAL that ends there is of the timeline that was last heard of, without asking by psql, which takes 30 ms.

    Recovery goes on to a newer one only by its history file in pg_wal; and a timeline that has not got past the place where it began is one
    in name only. Blocking.
    """
    if os.path.exists(parts.data.of(f"pg_wal/{timeline + 1:08X}.history")):
        return False
    if timeline == 1:
        return True
    lines = history.parse(files.read(parts.data.of(f"pg_wal/{timeline:08X}.history")) or "")
    return bool(lines) and end > max(line.lsn for line in lines)


async def end_of_wal(parts: Parts, connection: asyncpg.Connection, within_s: float, startup: int | None = None) -> tuple[Lsn, Lsn]:
    """Where the WAL on this disk ends, and where its last whole record does (HAZARDS H 10). Raises CommandFailed when it is not known.

    Known when the startup process waits for more, was waked, has read what there is, and waits again. This also proves that it has taken
    the new setting, and starts no receiver with the old one. With replay paused it never waits; then what the receiver flushed is the end,
    for a receiver starts only after the WAL on disk has been read through.
    """
    found = whole = 0
    rounds = Rounds(parts.settings.data_dir, known={startup} if startup is not None else set())

    async def known() -> bool:
        nonlocal found, whole
        (row,) = await rounds.look(lambda: connection.fetch(END), lambda row: row["wait_event"] in WAITS_FOR_WAL)
        received, replayed = row["received"], row["replayed"] or 0
        found = max(received or 0, replayed)
        whole = found if row["paused"] else replayed
        return row["pid"] in rounds.around or (received is not None and row["paused"])

    await until(known, within_s, "where the WAL on this disk ends is not known yet: it is still being replayed")
    return found, whole


# ---- promote


async def promote(parts: Parts) -> None:
    file = await alive(parts)
    async with parts.link.session(file) as connection:
        if not await connection.fetchval("SELECT pg_is_in_recovery()"):
            return
        await asyncio.to_thread(parts.conf.read_back)
        parts.conf.steer(parts.conf.upstream, frozen=True, names=parts.conf.names)
        await put_in_force(parts, connection, standby=True)
        if await connection.fetchval("SELECT pg_is_wal_replay_paused()"):
            await connection.execute("SELECT pg_wal_replay_resume()")
        await connection.execute("SELECT pg_promote(false)", timeout=PROMOTE_QUERY_S)

        async def out() -> bool:
            return not await connection.fetchval("SELECT pg_is_in_recovery()", timeout=PROMOTE_QUERY_S)

        await until(out, HOURS_S, f"promotion of {parts.settings.data_dir} does not end")
    parts.conf.steer(None, names=parts.conf.names)
    await asyncio.to_thread(parts.conf.write, standby=False)
    await reload(parts)


async def checkpoint(parts: Parts) -> None:
    async with parts.link.session(await alive(parts)) as connection:
        await connection.execute("CHECKPOINT", timeout=HOURS_S)
