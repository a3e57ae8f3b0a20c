"""Where the REST API meets the agent: it reads what the last tick knew, files writes and wishes, and waits for what became of them.

The API never asks etcd or Postgres itself. `Desk` has one writer of `latest` (the tick); everything else is a request to the tick.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from rivha.agent.brain.view import View, Wish
from rivha.agent.journal import Journal
from rivha.dcs.base import Txn
from rivha.model import Outcome


@dataclass(slots=True)
class Desk:
    clock: Callable[[], float]
    journal: Journal
    commit: Callable[[Txn], Awaitable[Outcome]]  # through the agent's Dcs, within retry_timeout; wakes the tick afterwards
    reload_file: Callable[[], Awaitable[str]]  # reads the file again (SIGHUP, POST /reload); says what changed, raises ConfigError
    wake: Callable[[], None]
    latest: View | None = None  # None until the first tick has ended
    out_of_routing: bool = False  # set before a primary begins to stop: health goes 503 first
    wishes: dict[int, Wish] = field(default_factory=dict)
    answers: dict[int, asyncio.Future[tuple[bool, str]]] = field(default_factory=dict)
    numbers: int = 0
    _ticked: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, view: View) -> None:
        """The tick's: replaces what the API answers from, and wakes who waits for news."""
        self.latest = view
        self._ticked.set()
        self._ticked = asyncio.Event()

    async def next_view(self, timeout_s: float) -> View | None:
        """The View of the next tick that ends, or the latest when `timeout_s` pass before."""
        event = self._ticked
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            pass
        return self.latest

    async def ask(self, kind: str, detail: Mapping[str, object], timeout_s: float) -> tuple[bool, str] | None:
        """Files a wish (restart, reinitialize) and waits for (did it work, in words); None when `timeout_s` pass before: it goes on."""
        self.numbers += 1
        number = self.numbers
        answer: asyncio.Future[tuple[bool, str]] = asyncio.get_running_loop().create_future()
        self.wishes[number] = Wish(kind, number, dict(detail))
        self.answers[number] = answer
        self.wake()
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(answer)
        except TimeoutError:
            return None

    def settle(self, number: int, ok: bool, text: str) -> None:
        """The performer's: the wish has been carried out or refused."""
        self.wishes.pop(number, None)
        answer = self.answers.pop(number, None)
        if answer is not None and not answer.done():
            answer.set_result((ok, text))
