"""The operator's scripts on events: `CMD ACTION ROLE SCOPE` (REFERENCE 1.18). `call` never blocks and never fails.

One at a time: a newer one kills the older with all its children, so that the last word is always the newest role (HAZARDS C 48). on_reload
has a slot of its own, lest a reload kill a running VIP script. Called by the agent's performer.
"""

from __future__ import annotations

import asyncio
import shlex

import structlog

from rivha.errors import CommandFailed
from rivha.postgres.command import clean_environment, run
from rivha.postgres.settings import PostgresSettings

log = structlog.get_logger(__name__)

LONGEST_S = 3600.0
LAST_WORD_S = 10.0  # for the one that tells of the agent's own stop: a virtual address that is half removed is not removed
ACTIONS = ("on_start", "on_stop", "on_restart", "on_reload", "on_role_change")


class Callbacks:
    def __init__(self, settings: PostgresSettings) -> None:
        self.settings = settings
        self._running: dict[str, asyncio.Task[None]] = {}  # slot -> the one at work

    def call(self, action: str, role: str) -> None:
        """Starts the script for `action`, if there is one. `role`: primary, replica, demoted."""
        command = self.settings.callbacks.get(action)
        if not command:
            return
        slot = "reload" if action == "on_reload" else "role"
        older = self._running.get(slot)
        if older is not None:
            older.cancel()
        self._running[slot] = asyncio.create_task(self._run(action, [*shlex.split(command), action, role, self.settings.scope], older))

    async def _run(self, action: str, argv: list[str], older: asyncio.Task[None] | None) -> None:
        if older is not None:
            await asyncio.wait([older], timeout=LONGEST_S)
        try:
            await run(argv, name=f"callback {action}", timeout_s=LONGEST_S, env=clean_environment(c_locale=False))
        except CommandFailed as e:
            log.warning("a callback failed", action=action, error=str(e))

    async def close(self, patience_s: float = 0.0) -> None:
        """Ends what still runs after so many seconds; waits until it has ended."""
        running = [task for task in self._running.values() if not task.done()]
        tasks = (await asyncio.wait(running, timeout=patience_s))[1] if running else set()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=10)
