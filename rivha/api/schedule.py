"""A restart of the local Postgres at a given time, and the conditions under which a restart happens at all. Used by `control`.

Kept in memory, as Patroni does: an agent that is restarted forgets it. The member key publishes it (`Api.scheduled_restart`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from rivha.agent.brain.view import View
from rivha.agent.desk import Desk
from rivha.api.bodies import RestartBody
from rivha.model import Role

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 5.0  # the wall clock may be set meanwhile
_ROLES = {"primary": Role.PRIMARY, "master": Role.PRIMARY, "leader": Role.PRIMARY, "replica": Role.STANDBY, "standby": Role.STANDBY}


def wall_at(view: View, now: float) -> float:
    """Seconds since 1970 at the monotonic instant `now`, by the wall clock that the View saw."""
    return view.wall + (now - view.now)


def why_not_restart(view: View, body: RestartBody) -> str | None:
    """The first condition of the request that does not hold for the local Postgres."""
    postgres = view.postgres
    if body.role is not None and postgres.role is not _ROLES[body.role]:
        return f"this node is a {'primary' if postgres.role is Role.PRIMARY else 'replica'}, not a {body.role}"
    if body.postgres_version is not None and (postgres.server_version or 0) >= version_number(body.postgres_version):
        return f"PostgreSQL is not older than {body.postgres_version}"
    if body.restart_pending and not postgres.pending_restart:
        return "no setting waits for a restart"
    return None


def version_number(text: str) -> int:
    """`15.4` as server_version_num, 150004; a major version alone is its first release."""
    major, _, minor = text.partition(".")
    return int(major) * 10_000 + int(minor.partition(".")[0] or 0)


class Schedule:
    """At most one restart to come."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._waiting: asyncio.Task[None] | None = None
        self._body: RestartBody | None = None

    @property
    def published(self) -> Mapping[str, object] | None:
        """As Patroni's member key carries it, or None."""
        return None if self._body is None else self._body.model_dump(exclude_none=True, exclude_defaults=True)

    def set(self, body: RestartBody, at: float) -> None:
        """`at` in seconds since 1970. The caller has seen to it that none is scheduled."""
        self._body = body
        self._waiting = asyncio.create_task(self._restart_at(body, at))

    def clear(self) -> bool:
        """False when there was none."""
        if self._waiting is not None:
            self._waiting.cancel()
        was, self._waiting, self._body = self._body, None, None
        return was is not None

    async def _restart_at(self, body: RestartBody, at: float) -> None:
        desk = self._desk
        view = desk.latest
        while view is None or (left_s := at - wall_at(view, desk.clock())) > 0:
            view = await desk.next_view(LOOK_EVERY_S if view is None else min(left_s, LOOK_EVERY_S))
        self._body = None
        why_not = "the cluster is paused" if view.policy.paused else why_not_restart(view, body)
        if why_not is not None:
            log.warning("the scheduled restart is dropped", why=why_not)
            return
        await desk.ask("restart", body.model_dump(exclude_none=True), body.timeout or view.policy.primary_start_timeout_s)
