"""Why replay stopped by itself: a setting that the primary has larger (HAZARDS D 66). Called by `status` while replay is paused."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from rivha.postgres.controldata import ControlData

QUERY = "SELECT name, setting::int AS now FROM pg_settings WHERE name = ANY($1::text[])"


async def too_small(connection: asyncpg.Connection, control: ControlData) -> dict[str, tuple[int, int]]:
    """Setting -> (here, on the primary). The control file knows the primary's before replay stops; {} if an operator paused it."""
    rows = await connection.fetch(QUERY, list(control.sizes))
    return {name: (now, control.sizes[name]) for name, now in rows if now < control.sizes[name]}


def told(found: Mapping[str, tuple[int, int]]) -> str:
    """For people; "" when nothing is too small."""
    settings = ", ".join(f"{name} is {here} here and {theirs} on the primary" for name, (here, theirs) in found.items())
    return f"replay has stopped: {settings}" if settings else ""
