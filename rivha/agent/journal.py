"""The last changes of mind: a bounded ring of (when, view, decision), fed by the tick, read by the API and by people."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rivha.agent.brain.actions import Decision
from rivha.agent.brain.view import View

KEPT = 500


@dataclass(frozen=True, slots=True)
class Entry:
    at: float  # monotonic
    wall: float  # seconds since 1970, for people
    view: View
    decision: Decision
    seconds: float  # what the tick cost; until it has ended, how long it took to decide


class Journal:
    """Keeps an entry whenever a reason or an action differs from the entry before; at most KEPT of them."""

    def __init__(self, kept: int = KEPT) -> None:
        self._entries: deque[Entry] = deque(maxlen=kept)
        self._gist: tuple[str, ...] = ()  # of the last one

    def record(self, entry: Entry) -> bool:
        """True when the decision is a new one."""
        if (gist := entry.decision.gist) == self._gist:
            return False
        self._gist = gist
        self._entries.append(entry)
        return True

    def took(self, at: float, seconds: float) -> None:
        """The tick that began `at` has ended; nothing when no entry was made of it."""
        if self._entries and self._entries[-1].at == at:
            self._entries[-1] = replace(self._entries[-1], seconds=seconds)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @property
    def latest(self) -> Entry | None:
        return self._entries[-1] if self._entries else None
