"""synchronous_standby_names: puts them in force, and knows when they are.

A reload is asynchronous, and three kinds of processes take it each in its own time (src/backend/replication/syncrep.c): new backends have
it from the postmaster; the checkpointer says in shared memory whether commits wait at all, and a checkpoint that somebody is waiting for
keeps it from looking; each WAL sender lets commits go by the names that it has read itself. One process that still goes by the old names
acknowledges what the new ones promise otherwise, so nothing here may be called confirmed for having been written, or after some time.
Called by Server.synchronize.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import asyncpg

from rivha.errors import CommandFailed
from rivha.postgres import running
from rivha.postgres.names import NAMES, Names, parse
from rivha.postgres.parts import Parts
from rivha.postgres.process import POLL_S, PidFile, pauses
from rivha.postgres.rounds import Rounds

IN_FORCE = f"""
SELECT current_setting('{NAMES}') AS names, pg_is_in_recovery() AS standby, current_setting('server_version_num')::int AS version
"""
PROCESSES = """
SELECT a.pid, a.backend_type, a.wait_event, r.application_name, r.sync_state, (r.sent_lsn - '0/0')::bigint AS sent
FROM pg_stat_activity AS a LEFT JOIN pg_stat_replication AS r ON r.pid = a.pid AND r.state IN ('streaming', 'catchup', 'stopping')
WHERE a.backend_type IN ('walsender', 'checkpointer')
"""
# A process that left one of these waits looks whether there is a reload to be taken before it comes to the same wait again.
WAITS = {"walsender": ("WalSenderMain",), "checkpointer": ("CheckpointerMain", "CheckpointWriteDelay")}
NAMELESS_DELAY = 15_00_00  # before this version the checkpointer's delay between two writes is no wait event: NULL
SENT_TWICE = 2
LOOKS_AT_A_STANDBY = 3  # within a few milliseconds: a promotion waits for it

# ---- the text


def checked(text: str) -> Names | None:
    """As `parse`. Raises CommandFailed."""
    try:
        return parse(text)
    except ValueError as e:
        raise CommandFailed(str(e)) from None


async def in_force(parts: Parts) -> str:
    """What a fresh backend shows. Raises PostgresUnavailable."""
    async with parts.link.session(await running.alive(parts)) as connection:
        return str(await connection.fetchval(f"SELECT current_setting('{NAMES}')"))


# ---- the evidence


@dataclass(slots=True)
class Evidence:
    """Which processes have taken a reload that all of them were told of. To be begun after the postmaster was seen to have taken it.

    Besides what `Rounds` says: a busy WAL sender may never be caught asleep; it looks for a reload before each time that it sends, so two
    sends in our sight prove the same. One without a name needs no proof: while its row says "async" it lets nobody's commit go.
    """

    names: Names | None
    version: int
    rounds: Rounds
    missing: list[str]  # for people: who has not taken it, as of the last look
    told: bool = False  # the checkpointer has
    _sent: dict[int, tuple[int | None, int]] = field(default_factory=dict)  # pid -> last position seen, how often it moved

    async def look(self, connection: asyncpg.Connection) -> None:
        rows = await self.rounds.look(lambda: connection.fetch(PROCESSES), self._in_main_wait)
        self.missing.clear()
        for r in rows:
            taken = r["pid"] in self.rounds.around or self._sends(r) >= SENT_TWICE
            if r["backend_type"] == "checkpointer":
                self.told = taken
            elif r["application_name"] is not None and not self._agrees(r, taken):
                self.missing.append(f"the WAL sender of {r['application_name']} (pid {r['pid']})")

    def _in_main_wait(self, row: asyncpg.Record) -> bool:
        waits = row["wait_event"]
        if waits is None:
            return row["backend_type"] == "checkpointer" and self.version < NAMELESS_DELAY
        return waits in WAITS[str(row["backend_type"])]

    def _sends(self, row: asyncpg.Record) -> int:
        """How often it has sent since it was first seen."""
        sent, pid = row["sent"], row["pid"]
        last, moved = self._sent.get(pid, (sent, 0))
        moved += sent != last
        self._sent[pid] = (sent, moved)
        return int(moved)

    def _agrees(self, row: asyncpg.Record, taken: bool) -> bool:
        if self.names is not None and self.names.has(str(row["application_name"])):
            return taken and row["sync_state"] != "async"
        return bool(row["sync_state"] == "async")


# ---- the verb


async def synchronize(parts: Parts, names: str, *, waiting: bool, surely: bool = False) -> bool:
    """Puts `names` in force. `waiting`: some were confirmed before, so the checkpointer has already said that commits wait.

    False on a standby whose checkpointer could not be asked: once promoted it must be done again before anybody counts on the names.
    `surely`: never False; raises CommandFailed instead.
    """
    wanted = checked(names)
    file = await running.alive(parts)
    await asyncio.to_thread(_write, parts, names)
    await running.reload(parts)
    missing = ["the postmaster"]
    try:
        async with asyncio.timeout(running.IN_FORCE_S):
            row = await _shown_by_a_new_backend(parts, file, names)
            evidence = Evidence(wanted, row["version"], Rounds(parts.settings.data_dir), missing)
            async with parts.link.session(file) as connection:
                if row["standby"]:
                    return await _told(connection, evidence, looks=None if surely else LOOKS_AT_A_STANDBY)
                return await _everywhere(connection, evidence, crossing=not (waiting and wanted))
    except TimeoutError:
        async with parts.link.session(file) as connection:
            said = await running.mistakes_in_files(connection)
        text = f"{NAMES} = '{names}' is not in force {running.IN_FORCE_S:g} s after a reload: not taken by {', '.join(missing)}"
        raise CommandFailed(text, said) from None


def _write(parts: Parts, names: str) -> None:
    parts.conf.read_back()
    parts.conf.name(names)
    parts.conf.write(standby=parts.data.look().standby)
    parts.conf.sanitise()


async def _shown_by_a_new_backend(parts: Parts, file: PidFile, names: str) -> asyncpg.Record:
    """It has its settings from the postmaster, which tells all its children of a reload before it makes another one."""
    while True:
        async with parts.link.session(file, fresh=True) as connection:
            row = await connection.fetchrow(IN_FORCE)
            assert row is not None
            if row["names"] == names:
                return row
        await asyncio.sleep(POLL_S)


async def _told(connection: asyncpg.Connection, evidence: Evidence, *, looks: int | None) -> bool:
    """Of a standby: whether its checkpointer was told, after so many looks; None: as many as it takes.

    Its senders are no matter: whom a cascade's sender serves is not counted, and it looks at the names anew when it is a primary's.
    """
    await evidence.look(connection)  # who is there
    pause = pauses()
    while not evidence.told and looks != 0:
        looks = None if looks is None else looks - 1
        await evidence.look(connection)
        if not evidence.told:
            evidence.missing[:] = ["the checkpointer"]
            await asyncio.sleep(next(pause))
    return evidence.told


async def _everywhere(connection: asyncpg.Connection, evidence: Evidence, *, crossing: bool) -> bool:
    """Returns when all that count go by the names. `crossing`: whether commits wait at all has changed, which the checkpointer says."""
    await evidence.look(connection)  # who is there
    pause = pauses()
    while True:
        await evidence.look(connection)
        if crossing and not evidence.told:
            evidence.missing.append("the checkpointer")
        if not evidence.missing:
            return True
        await asyncio.sleep(next(pause))
