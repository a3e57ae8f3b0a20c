"""Physical slots of the members: on the primary so that WAL waits for them, on standbys so that it still does after a failover.

It must never drop a slot that is in use, temporary, logical, or named by the operator, nor move one beyond what is replayed here
(HAZARDS F 89-93). Called by the Server as a chore.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set

import asyncpg
import structlog

from rivha.model import PostgresStatus, Role, format_lsn
from rivha.postgres.parts import Parts
from rivha.postgres.running import alive

log = structlog.get_logger(__name__)

ADVANCE_S = 60.0
SLOTS = """
SELECT slot_name, active, xmin IS NOT NULL AS holds_xmin, wal_status = 'lost' AS lost, restart_lsn IS NULL AS unreserved,
       (restart_lsn - '0/0')::bigint AS restart
FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary
"""


def in_order(last: PostgresStatus, wanted: Set[str], advance: Mapping[str, int]) -> bool:
    """Nothing to do, by the last look? Then no query is spent."""
    known, replayed = last.slots, last.replay_lsn or 0
    moving = last.role is Role.STANDBY and any(known.get(name, 0) < min(lsn, replayed) for name, lsn in advance.items() if name in wanted)
    return set(known) == set(wanted) and all(known.values()) and not moving


async def keep(parts: Parts, wanted: Set[str], advance: Mapping[str, int]) -> None:
    """`advance`: where the primary's slots are; of those that are not kept here, nothing is taken. Raises PostgresUnavailable."""
    permanent, ignored = operators_slots(parts.conf.dynamic)
    async with parts.link.session(await alive(parts)) as connection:
        standby = await connection.fetchval("SELECT pg_is_in_recovery()")
        rows = {row["slot_name"]: row for row in await connection.fetch(SLOTS)}
        for name, row in rows.items():
            kept = name in wanted or name in permanent
            if not row["active"] and name not in ignored and (not kept or _broken(row, standby)):
                await _drop(connection, name, "not wanted" if not kept else "of no use any more")
        missing = (set(wanted) | permanent) - set(rows) | {n for n, r in rows.items() if _broken(r, standby) and not r["active"]}
        for name in sorted(missing.intersection(set(wanted) | permanent) - ignored):
            await connection.execute("SELECT pg_create_physical_replication_slot($1, true)", name)
            log.info("created a replication slot", slot=name)
        if standby:
            await _advance(connection, {n: lsn for n, lsn in advance.items() if n in wanted or n in permanent})


def _broken(row: asyncpg.Record, standby: bool) -> bool:
    """Lost its WAL, never reserved any, or (nobody streams here from it) holds back vacuum with a stale xmin: made anew."""
    return bool(row["lost"] or row["unreserved"] or (standby and row["holds_xmin"]))


async def _drop(connection: asyncpg.Connection, name: str, why: str) -> None:
    try:
        await connection.execute("SELECT pg_drop_replication_slot($1)", name)
        log.info("dropped a replication slot", slot=name, why=why)
    except (asyncpg.ObjectInUseError, asyncpg.UndefinedObjectError):
        pass  # in use since we looked, or gone


async def _advance(connection: asyncpg.Connection, targets: Mapping[str, int]) -> None:
    replayed = await connection.fetchval("SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint") or 0
    rows = {row["slot_name"]: row for row in await connection.fetch(SLOTS)}
    for name, lsn in targets.items():
        target = min(lsn, replayed)
        row = rows.get(name)
        if row is not None and not row["active"] and row["restart"] is not None and row["restart"] < target:
            await connection.execute(
                f"SET statement_timeout = 0; SELECT pg_replication_slot_advance('{name}', '{format_lsn(target)}')", timeout=ADVANCE_S
            )


def operators_slots(dynamic: Mapping[str, object]) -> tuple[set[str], set[str]]:
    """(permanent physical ones, ones to be left alone) of the cluster's configuration: `slots`, `ignore_slots`."""
    slots, ignore = dynamic.get("slots"), dynamic.get("ignore_slots")
    named = slots if isinstance(slots, Mapping) else {}
    physical = {str(n) for n, facts in named.items() if not (isinstance(facts, Mapping) and facts.get("type", "physical") != "physical")}
    matchers = [m for m in ignore if isinstance(m, Mapping)] if isinstance(ignore, (list, tuple)) else []
    left_alone = {str(m["name"]) for m in matchers if "name" in m and m.get("type", "physical") == "physical"}
    usable = {n for n in physical if re.fullmatch(r"[a-z0-9_]{1,63}", n)}
    return usable - left_alone, left_alone
