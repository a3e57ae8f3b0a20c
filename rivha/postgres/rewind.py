"""Turns a diverged, stopped data directory into a copy of the leader's with pg_rewind, reading only what differs.

It must never leave a half-rewound directory that could be started: the marker goes first and stays on any failure (HAZARDS D 59). Whether
and when to rewind is the brain's business, so is the wait for the source's checkpoint. Called by Server.rewind.
"""

from __future__ import annotations

import asyncio

import structlog

from rivha.errors import CommandFailed, PostgresUnavailable
from rivha.model import Data, Upstream, format_lsn
from rivha.postgres import conninfo, files, stopping
from rivha.postgres.command import SINGLE_USER_DATABASE
from rivha.postgres.compare import ask_leader, last_record, segment_begin, sockets_in_data, why_a_rewind_is_in_vain
from rivha.postgres.controldata import ControlData
from rivha.postgres.datadir import Contents
from rivha.postgres.parts import Parts
from rivha.postgres.starting import bring_up

log = structlog.get_logger(__name__)

RECOVERY_S = 6 * 3600.0
REWIND_S = 24 * 3600.0
STOP_FAST_S = 60.0
NOTHING_DONE = "no rewind required"  # pg_rewind's words in the C locale; it exits with 0


async def rewind(parts: Parts, source: Upstream) -> None:
    """Raises CommandFailed or PostgresUnavailable; before anything was touched no marker is left."""
    found = await asyncio.to_thread(parts.data.look)
    again = found.unfinished == "rewind"
    if found.data is not Data.VALID and not again:
        raise CommandFailed(found.problem or f"{parts.settings.data_dir} is empty: there is nothing to rewind")
    leader = await ask_leader(parts, source)  # a source that does not answer is found before the marker is set
    if leader.checkpoint_timeline != leader.timeline:  # pg_rewind believes the control file, and would find nothing to do (HAZARDS B 32)
        raise PostgresUnavailable(f"{source.name} has not finished a checkpoint since its promotion: rewinding after it")
    if sockets := await sockets_in_data(parts, source):  # pg_rewind would fail in the middle: it reads each file there is (HAZARDS D 62)
        advice = f"move {source.name}'s unix_socket_directories elsewhere, or clone"
        raise CommandFailed(f"pg_rewind cannot copy the socket {sockets[0]} in the data directory of {source.name}: {advice}")
    if not again and (why := await why_a_rewind_is_in_vain(parts, source, leader, await parts.control())):
        raise CommandFailed(f"{why}: no rewind helps, clone it")
    await parts.postmaster.kill_all()
    await asyncio.to_thread(parts.conf.read_back)
    if not again:
        await _recover(parts, await parts.control(), found)
    await asyncio.to_thread(parts.data.mark, "rewind")
    await asyncio.to_thread(_prepare, parts)
    if not await _pg_rewind(parts, source):
        # It compares timelines by number: a second timeline of the same number, or WAL that only a copy can replace, it cannot mend.
        if not again:
            await asyncio.to_thread(_as_it_was, parts, found)
        raise CommandFailed("pg_rewind did nothing, though this directory cannot follow: no rewind helps, clone it")
    await asyncio.to_thread(_finish, parts)
    log.info("rewound", source=source.name)


async def _recover(parts: Parts, control: ControlData, found: Contents) -> None:
    """pg_rewind wants a directory that was shut down (HAZARDS D 53). Its own recovery would not keep the archive shut.

    No marker yet: what is interrupted here is still a crashed directory like any other.
    """
    if control.clean:
        return
    if found.standby or control.was_standby:
        await _refuse_incomplete(parts, control)
        parts.conf.steer(None, frozen=True)
        await bring_up(parts, standby=True)
        await stopping.stop(parts, fast_s=STOP_FAST_S, quit_s=1.0)
        return
    if await asyncio.to_thread(lambda: files.read(parts.data.of("backup_label")) is not None):
        raise CommandFailed("the directory was being restored from a backup (backup_label is there): it cannot be rewound, clone it")
    await asyncio.to_thread(parts.data.set_standby, False)
    await asyncio.to_thread(parts.conf.write, standby=False)
    log.info("recovering the crashed directory before the rewind", data_dir=parts.settings.data_dir)
    arguments = ["--single", *parts.conf.arguments(None), "-c", "archive_mode=on", "-c", "archive_command=false"]
    # The number in the dead postmaster's file may be somebody else's by now; see `Postmaster.launch`.
    stale = await asyncio.to_thread(parts.postmaster.pid_file)
    env = {"PG_GRANDPARENT_PID": str(stale.pid)} if stale else {}
    await parts.programs.run("postgres", *arguments, SINGLE_USER_DATABASE, timeout_s=RECOVERY_S, env=env)


async def _refuse_incomplete(parts: Parts, control: ControlData) -> None:
    """A copy or a rewound directory that never got the WAL up to where it is consistent would be recovering for ever."""
    wanted = control.minimum_recovery
    if wanted is None:
        return
    segment = segment_begin(wanted, control.wal_segment_bytes)
    end = await last_record(parts, control, control.minimum_recovery_timeline, segment)
    if end is None or end < wanted:
        text = f"its WAL ends before {format_lsn(wanted)}, where it would be consistent"
        raise CommandFailed(f"{parts.settings.data_dir} cannot be recovered for a rewind: {text}; clone it")


def _prepare(parts: Parts) -> None:
    """pg_rewind runs `postgres -C` on the target's configuration; the archive is open for --restore-target-wal."""
    parts.data.set_standby(False)
    parts.conf.steer(None, names=parts.conf.names)  # until it is rewound it may yet be all that there is
    parts.conf.sanitise()
    parts.conf.write(standby=False)


def _as_it_was(parts: Parts, found: Contents) -> None:
    """Nothing was changed: for want of anything better, people may still need this directory."""
    parts.data.set_standby(found.standby)
    parts.data.unmark()


async def _pg_rewind(parts: Parts, source: Upstream) -> bool:
    """False when it found nothing to do."""
    settings = parts.settings
    passfile = await asyncio.to_thread(parts.conf.write_passfile)
    target = conninfo.to_upstream(settings, source, settings.rewind_user, passfile, options="-c statement_timeout=0")
    # A half-rewound directory must not be "recovered": pg_rewind then refuses what it cannot take as it lies.
    arguments = ["--target-pgdata", settings.data_dir, "--source-server", target, "--no-ensure-shutdown"]
    if parts.conf.restore_command():
        arguments.append("--restore-target-wal")
    if settings.config_dir and await parts.programs.version() >= 15:
        arguments.append(f"--config-file={settings.config_dir}/postgresql.conf")
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        log.info("pg_rewind", says=line)

    await parts.programs.run("pg_rewind", *arguments, timeout_s=REWIND_S, env={"PGPASSFILE": passfile}, on_line=tell)
    return not any(NOTHING_DONE in line for line in said)


def _finish(parts: Parts) -> None:
    """pg_rewind copied the source's files too: its configuration, its signals. What lies here now may only start as a standby."""
    try:
        parts.data.clean_copy(parts.settings.data_dir)
        parts.conf.sanitise()
        parts.conf.steer(None)
        parts.conf.write(standby=True)
        parts.data.set_standby(True)
        files.sync_folder(parts.settings.data_dir)
    except OSError as e:
        raise CommandFailed(f"cannot clean {parts.settings.data_dir} after pg_rewind: {e.strerror or e}") from e
    parts.data.unmark()
