"""One look at the local Postgres, cheap enough for every second: files, the postmaster, one query on a kept connection.

It must never raise, never guess, and never take silence for a change of role (HAZARDS E 71). Called by Server.status.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg

from rivha.advice import advised
from rivha.errors import CommandFailed, PostgresUnavailable
from rivha.model import Data, PostgresStatus, Replication, Role, State, parse_lsn
from rivha.postgres import conninfo, sizes
from rivha.postgres.controldata import ControlData
from rivha.postgres.datadir import Contents
from rivha.postgres.link import NotYet, Refused
from rivha.postgres.neighbours import why_nothing_streams
from rivha.postgres.parts import Parts
from rivha.postgres.process import PidFile
from rivha.postgres.promoted import Promoted

# pg_lsn differences are byte positions; -> text as JSON in one row keeps it to one round trip and one cheap decoding.
QUERY = """
SELECT json_build_object(
  'standby', r,
  'timeline', CASE WHEN NOT r THEN pg_walfile_name(pg_current_wal_insert_lsn()) END,
  'wal', CASE WHEN NOT r THEN pg_current_wal_lsn() - '0/0' END,
  'received', pg_last_wal_receive_lsn() - '0/0',
  'replayed', CASE WHEN r THEN pg_last_wal_replay_lsn() - '0/0' END,
  'replay_time', CASE WHEN r THEN pg_last_xact_replay_timestamp()::text END,
  'replay_age', CASE WHEN r THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END,
  'paused', CASE WHEN r THEN pg_is_wal_replay_paused() ELSE false END,
  'conninfo', CASE WHEN r THEN current_setting('primary_conninfo') END,
  'archive', current_setting('restore_command') <> '',
  'names', current_setting('synchronous_standby_names'),
  'receiver', CASE WHEN r THEN
      (SELECT json_build_array(status, received_tli, latest_end_lsn - '0/0', pid, last_msg_send_time <> last_msg_receipt_time)
       FROM pg_stat_wal_receiver LIMIT 1) END,
  'replication', (SELECT json_agg(json_build_array(application_name, host(client_addr), usename, state, sync_state, sync_priority,
       sent_lsn - '0/0', flush_lsn - '0/0', replay_lsn - '0/0', reply_time::text)) FROM pg_stat_replication),
  'slots', (SELECT json_object_agg(slot_name, restart_lsn - '0/0') FROM pg_replication_slots
       WHERE slot_type = 'physical' AND NOT temporary)
)::text FROM pg_is_in_recovery() AS r
"""
STATIC = """
SELECT current_setting('data_directory') AS folder, current_setting('server_version_num')::int AS version,
       pg_postmaster_start_time()::text AS started, (SELECT system_identifier::text FROM pg_control_system()) AS system_id,
       current_setting('data_checksums') = 'on' OR current_setting('wal_log_hints') = 'on' AS rewindable
"""
PENDING = """
SELECT name, current_setting(name) AS now,
       coalesce((SELECT f.setting FROM pg_file_settings f WHERE f.name = s.name ORDER BY seqno DESC LIMIT 1), boot_val, '') AS wanted
FROM pg_settings s WHERE pending_restart
UNION ALL SELECT name, setting, '' FROM pg_settings WHERE name = ANY($1::text[])
"""
LASTS_S = 0.25  # a receiver that was refused lives for milliseconds
DRY_S = 3.0  # after so long without a stream the upstream is asked why; before, it is a failover's ordinary course
TIMELINE_EVERY_S = 4.0  # how often a standby that streams from nobody is asked for its timeline, by psql


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while a postmaster lives."""

    version: int
    started: str
    system_id: str
    rewindable: bool


@dataclass(slots=True)
class Watcher:
    parts: Parts
    role: Role = Role.UNKNOWN  # the last one that Postgres itself told
    answered: bool = False  # this postmaster has accepted a connection of ours
    look_for_pending: bool = True
    _pid: int | None = None
    _file: PidFile | None = None
    _connection: asyncpg.Connection | None = None
    _facts: Facts | None = None
    _pending: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    _looking: asyncio.Future[tuple[Contents, PidFile | None]] | None = None
    _control: tuple[tuple[int, int, int], ControlData] | None = None
    _timeline: int | None = None
    _timeline_at: float | None = None
    _promoted: Promoted = field(default_factory=Promoted)
    _asking: asyncio.Task[None] | None = None
    _receiver: tuple[int, float] | None = None  # a WAL receiver that has heard nothing yet, and when it was first seen
    _dry_since: float | None = None  # a standby has streamed nothing since then
    _upstream_says: str = ""  # why, for people
    confirmed: tuple[int, str] | None = None  # a postmaster, and the synchronous_standby_names that all its processes were seen to go by
    last: PostgresStatus | None = None

    async def look(self, budget_s: float) -> PostgresStatus:
        end = self.parts.clock() + budget_s
        try:
            contents, file = await self._files(budget_s / 2)
        except TimeoutError:
            return self._blocked_disk()
        if file is None and self.parts.postmaster.alive:
            file = self._without_file()
            if contents.data is Data.EMPTY:
                gone = f"{self.parts.settings.data_dir} is gone, but its Postgres (pid {file.pid}) still runs without it"
                contents = replace(contents, problem=gone)
        if file is None:
            self.dropped()
            self.last = await self._down(contents, max(end - self.parts.clock(), 0.1))
            return self.last
        if file.pid != self._pid:
            self.dropped()
            self._pid = file.pid
        self._file = file
        self.parts.postmaster.watch(file.pid)
        status = await self._up(contents, file, end)
        self.last = replace(status, data=contents.data, problem=contents.problem or status.problem, unfinished=contents.unfinished)
        return self.last

    def dropped(self) -> None:
        """Forgets the postmaster: its connection is closed, what was known of it is no longer."""
        self.close()
        self._pid, self._facts, self._pending, self.answered, self.look_for_pending = None, None, {}, False, True
        self._timeline = self._timeline_at = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        if self._asking is not None:
            self._asking.cancel()
        self._asking = None

    def keep_ready(self) -> None:
        """A connection for the next verb, once this postmaster has answered."""
        if self._file is not None and self._file.pid == self._pid:
            self.parts.link.warm(self._file)

    def known_timeline(self, pid: int) -> int | None:
        """That this postmaster was on when it was last asked or streamed."""
        return self._timeline if self._pid == pid else None

    # ---- files

    async def _files(self, budget_s: float) -> tuple[Contents, PidFile | None]:
        """In a thread, and never two at once: a disk that hangs must cost one thread, not one a second (HAZARDS G 99)."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._read))
        async with asyncio.timeout(budget_s):
            return await asyncio.shield(self._looking)

    def _read(self) -> tuple[Contents, PidFile | None]:
        contents = self.parts.data.look()
        try:
            found = self.parts.postmaster.pid_file()
            if found is None or found.pid != self.parts.postmaster.pid:
                found = self.parts.postmaster.look()
        except OSError:
            found = None
        if found is not None:
            with contextlib.suppress(OSError):
                self.parts.conf.read_back()  # whom it was told to follow, before it can be asked
        return contents, found

    def _blocked_disk(self) -> PostgresStatus:
        problem = f"the disk of {self.parts.settings.data_dir} does not answer"
        alive = self.parts.postmaster.alive
        last = self.last or PostgresStatus(State.STOPPED)
        return replace(last, state=State.SILENT if alive else State.CRASHED, data=Data.INACCESSIBLE, problem=problem)

    def _without_file(self) -> PidFile:
        """A postmaster that lives has not written its file yet, or removed it as its last deed."""
        return PidFile(self.parts.postmaster.pid or 0, 0, 0, "", "", "stopping" if self.answered else "starting")

    # ---- without a postmaster

    async def _down(self, contents: Contents, budget_s: float) -> PostgresStatus:
        if contents.data is Data.EMPTY:
            return PostgresStatus(State.STOPPED, contents.data)
        try:
            async with asyncio.timeout(budget_s):
                control = await self._control_data()
        except (CommandFailed, TimeoutError, OSError) as e:
            problem = contents.problem or f"the control file of {self.parts.settings.data_dir} cannot be read: {e}"
            data = Data.INACCESSIBLE if contents.data is Data.VALID else contents.data
            return PostgresStatus(State.STOPPED, data, problem=problem, unfinished=contents.unfinished)
        return PostgresStatus(
            State.STOPPED if control.clean or contents.copied else State.CRASHED,
            contents.data,
            role=Role.STANDBY if contents.standby else Role.PRIMARY,
            problem=contents.problem,
            unfinished=contents.unfinished,
            system_id=control.system_id,
            timeline=control.timeline,
            wal_lsn=control.checkpoint,
            replay_lsn=control.minimum_recovery if control.was_standby else None,
            clean=control.clean,
            rewindable=control.checksums or control.wal_log_hints,
        )

    @property
    def _control_file(self) -> str:
        return self.parts.data.of("global/pg_control")

    async def _control_data(self) -> ControlData:
        """Runs pg_controldata only when the file has changed."""
        facts = await asyncio.to_thread(os.stat, self._control_file)
        key = (facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns)
        if self._control is None or self._control[0] != key:
            self._control = (key, await self.parts.control())
        return self._control[1]

    # ---- with a postmaster

    async def _up(self, contents: Contents, file: PidFile, end: float) -> PostgresStatus:
        known = self._facts
        base = PostgresStatus(
            State.SILENT,
            role=self.role,
            pid=file.pid,
            system_id=known.system_id if known else None,
            server_version=known.version if known else None,
            postmaster_started=known.started if known else None,
            rewindable=known.rewindable if known else True,
            pending_restart=self._pending,
            timeline=self._timeline,
        )
        # Until a postmaster has let us in, its control file says which cluster it is of.
        control = None if known else await self._control_if_readable(max(end - self.parts.clock(), 0.05))
        if control is not None:
            base = replace(base, system_id=control.system_id)
        budget_s = max(end - self.parts.clock(), 0.05)
        if file.status == "stopping":
            return replace(base, problem="Postgres is shutting down")
        if file.status != "ready":
            role = Role.STANDBY if contents.standby else self.role
            upstream = conninfo.address(self.parts.conf.primary_conninfo()) if contents.standby else None
            return replace(base, state=State.STARTING, role=role, upstream=upstream, problem="Postgres is starting")
        try:
            async with asyncio.timeout(budget_s):
                return await self._ask(base, file, budget_s)
        except NotYet as e:
            return replace(base, state=State.STARTING, problem=str(e))
        except Refused as e:
            return self._refused(base, control, advised(f"Postgres refuses the agent: {e}"))
        except PostgresUnavailable as e:
            return replace(base, problem=f"Postgres does not answer: {e}")
        except TimeoutError:
            self.close()
            return replace(base, problem="Postgres has not answered in time")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as e:
            self.close()
            return replace(base, problem=f"Postgres does not answer: {type(e).__name__}: {e}")

    async def _control_if_readable(self, budget_s: float) -> ControlData | None:
        """None: it cannot be read now."""
        try:
            async with asyncio.timeout(budget_s / 2):
                return await self._control_data()
        except (CommandFailed, TimeoutError, OSError):
            return None

    def _refused(self, base: PostgresStatus, control: ControlData | None, problem: str) -> PostgresStatus:
        """It runs and takes connections, if not ours. The control file knows its role: it says so before the first write is taken."""
        role = {"in production": Role.PRIMARY, "in archive recovery": Role.STANDBY}.get(control.state if control else "", base.role)
        upstream = conninfo.address(self.parts.conf.primary_conninfo()) if role is Role.STANDBY else None
        return replace(base, state=State.RUNNING, role=role, upstream=upstream, problem=problem)

    async def _ask(self, base: PostgresStatus, file: PidFile, budget_s: float) -> PostgresStatus:
        connection = await self._connected(file, budget_s)
        row = json.loads(await connection.fetchval(QUERY))
        if self.look_for_pending:
            self.look_for_pending = False
            self._pending = await self._pending_restart(connection, row["standby"])
        assert self._facts is not None
        self.role = Role.STANDBY if row["standby"] else Role.PRIMARY
        control = await self._control_if_readable(budget_s) if row["paused"] else None
        status = replace(
            base,
            state=State.RUNNING,
            role=self.role,
            system_id=self._facts.system_id,
            server_version=self._facts.version,
            postmaster_started=self._facts.started,
            rewindable=self._facts.rewindable,
            pending_restart=self._pending,
            too_small=await sizes.too_small(connection, control) if control else {},
            wal_lsn=row["wal"],
            replication=tuple(Replication(*r) for r in row["replication"] or ()),
            slots={name: lsn or 0 for name, lsn in (row["slots"] or {}).items()},
            synchronous_standby_names=row["names"],
            names_confirmed=self.confirmed == (file.pid, row["names"]),
        )
        if row["standby"]:
            return self._standby(status, row, file)
        self._timeline, self._timeline_at = int(row["timeline"][:8], 16), None
        due = await self._promoted.checkpoint_is_due(connection, file.pid, self._timeline)
        return replace(status, timeline=self._timeline, checkpoint_due=due)

    def _standby(self, status: PostgresStatus, row: Mapping[str, Any], file: PidFile) -> PostgresStatus:
        receiver, received_tli, latest_end, pid, heard = row["receiver"] or (None, None, None, None, False)
        streaming = receiver == "streaming" and (heard or self._lasts(pid))
        if streaming:
            self._timeline, self._timeline_at = received_tli, None
            self._dry_since, self._upstream_says = None, ""
        else:
            self._learn_timeline(file)
        caught_up = streaming and row["received"] is not None and row["replayed"] is not None and row["replayed"] >= row["received"]
        return replace(
            status,
            timeline=self._timeline,
            receive_lsn=row["received"],
            replay_lsn=row["replayed"],
            replay_time=row["replay_time"],
            replay_age_s=0.0 if caught_up else row["replay_age"],
            latest_end_lsn=latest_end,
            replay_paused=row["paused"],
            upstream=conninfo.address(row["conninfo"] or ""),
            streaming=streaming,
            problem=sizes.told(status.too_small) or ("" if streaming or row["conninfo"] in (None, "") else self._upstream_says),
            archive_recovery=not streaming and row["archive"],
        )

    def _lasts(self, pid: int | None) -> bool:
        """A receiver calls itself streaming before the upstream has agreed, and fails a moment later: heard of it, or it lasts."""
        now = self.parts.clock()
        if self._receiver is None or self._receiver[0] != pid:
            self._receiver = (pid or 0, now)
        return now - self._receiver[1] >= LASTS_S

    # ---- now and then

    async def _connected(self, file: PidFile, budget_s: float) -> asyncpg.Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        connection = await self.parts.link.connect(file, budget_s)
        try:
            found = await connection.fetchrow(STATIC)
            assert found is not None
            if not await asyncio.to_thread(_same, found["folder"], self.parts.settings.data_dir):
                raise PostgresUnavailable(f"port {file.port} is answered by the Postgres of {found['folder']}")
        except BaseException:
            connection.terminate()
            raise
        self._facts = Facts(found["version"], found["started"], found["system_id"], found["rewindable"])
        self._connection, self.answered = connection, True
        return connection

    async def _pending_restart(self, connection: asyncpg.Connection, standby: bool) -> dict[str, tuple[str, str]]:
        """What waits for a restart: PostgreSQL's own list, and what our command line would say otherwise today."""
        wanted = await asyncio.to_thread(self.parts.conf.forced, None)
        rows = await connection.fetch(PENDING, list(wanted))
        pending = {r["name"]: (r["now"], wanted.get(r["name"], r["wanted"])) for r in rows}
        return {name: pair for name, pair in pending.items() if pair[0] != pair[1]} if self.parts.conf.dynamic else {}

    def _learn_timeline(self, file: PidFile) -> None:
        """Only the replication protocol tells a standby's true timeline (HAZARDS B 31); asked in the background, now and then."""
        now = self.parts.clock()
        if self._asking is not None and not self._asking.done():
            return
        if self._timeline_at is not None and now - self._timeline_at < TIMELINE_EVERY_S:
            return
        self._timeline_at = now
        self._dry_since = self._dry_since or now
        self._asking = asyncio.create_task(self._ask_timeline(file))

    async def _ask_timeline(self, file: PidFile) -> None:
        try:
            self._timeline, _ = await identify(self.parts, file)
        except CommandFailed:
            self._timeline_at = None  # next tick again
        if self._dry_since is not None and self.parts.clock() - self._dry_since >= DRY_S:
            self._upstream_says = await why_nothing_streams(self.parts)


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


async def identify(parts: Parts, file: PidFile) -> tuple[int, int]:
    """(timeline, LSN) of the end of the WAL, by IDENTIFY_SYSTEM on the local server. Raises CommandFailed."""
    passfile = await asyncio.to_thread(parts.conf.write_passfile)
    target = conninfo.render({**parts.link.local_conninfo(file), "replication": "database"})
    text = await parts.programs.run("psql", "-XAtw", target, "-c", "IDENTIFY_SYSTEM", timeout_s=5, env=parts.link.environment(passfile))
    fields = text.strip().split("|")
    try:
        return int(fields[1]), parse_lsn(fields[2])
    except (IndexError, ValueError) as e:
        raise CommandFailed("IDENTIFY_SYSTEM answered something unknown", text) from e
