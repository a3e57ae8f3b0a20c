"""Whether a primary's control file names its timeline. After a promotion it does so only from the next checkpoint on (HAZARDS B 32).

pg_rewind and a crash believe that file. Postgres' own checkpoint may take checkpoint_timeout. Called by rivha.postgres.status.
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

CONTROL_TIMELINE = "SELECT timeline_id FROM pg_control_checkpoint()"


@dataclass(slots=True)
class Promoted:
    """Asks until the checkpoint was seen, once for each postmaster and timeline, whoever promoted it."""

    _seen: tuple[int, int] | None = None

    async def checkpoint_is_due(self, connection: asyncpg.Connection, pid: int, timeline: int) -> bool:
        """Raises asyncpg's errors when Postgres does not answer."""
        if timeline == 1 or self._seen == (pid, timeline):  # nobody was promoted onto the first one
            return False
        try:
            if await connection.fetchval(CONTROL_TIMELINE) != timeline:
                return True
        except asyncpg.InternalServerError:  # read while it was written: its checksum is wrong. The next look asks again
            return True
        self._seen = (pid, timeline)
        return False
