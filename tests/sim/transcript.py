"""What a run tells: one line for each thing that somebody saw, decided or did. docs/simulation.md tells how to read it.

The agents' own log is its main part: the decision lines name the rules. Of a decision only what has changed for that host is told.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from tests.sim.loop import PROCESS

WORLD = "-"


class Transcript:
    """`time`: seconds. With `keep` False it costs little and says nothing."""

    def __init__(self, *, keep: bool, time: Callable[[], float]) -> None:
        self.keep, self._time = keep, time
        self.lines: list[str] = []
        self.began = 0.0  # what the lines' instants count from
        self.from_whole = False  # a story's: nothing is told of how the cluster came to be
        self._decided: dict[str, tuple[str, ...]] = {}  # host -> what was last told of its decisions

    def note(self, who: str, text: str) -> None:
        if self.keep:
            self.lines.append(f"{self._time() - self.began:9.3f}  {who or WORLD:6} {text}")

    def cluster_is_whole(self) -> None:
        """The faults' instants count from now, and so does a story's transcript, which begins here."""
        if self.from_whole:
            self.lines.clear()
            self.began = self._time()
        self.note("", "the cluster is whole")

    def begins(self, host: str) -> None:
        """An agent that has forgotten what it decided before."""
        self._decided.pop(host, None)
        self.note(host, "agent starts")

    def listen(self) -> None:
        """From now on it hears what the agents log."""
        if self.keep:
            structlog.configure(processors=[self._heard], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False)
        else:
            structlog.configure(wrapper_class=Silent, cache_logger_on_first_use=False)

    def _heard(self, _: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        host = PROCESS.get().partition("#")[0]
        text = str(event.pop("event"))
        facts = {k: v for k, v in event.items() if v not in ("", None)}
        if text == "decision":
            told = self._decision(host, facts)
        else:
            told = f"{WORDS.get(text, text)} {' '.join(_fact(k, v) for k, v in facts.items())}".rstrip()
        if told:
            self.note(host, told)
        raise structlog.DropEvent

    def _decision(self, host: str, facts: dict[str, Any]) -> str:
        lease_rule, _, postgres_rule = facts["rules"].partition("/")
        now = (facts["situation"], f"{facts['lease']} ({lease_rule})", f"{facts['postgres']} ({postgres_rule})")
        before, self._decided[host] = self._decided.get(host, ("", "", "")), now
        changed = (f"{name}: {new}" for name, old, new in zip(("lease", "postgres"), before[1:], now[1:], strict=True) if old != new)
        situation = f"{now[0]} | " if now[0] != before[0] else ""
        return situation + " | ".join(changed)


WORDS = {
    "job begins": "begins",
    "job done": "done:",
    "job cancelled": "cancelled:",
    "job failed": "FAILED:",
    "job failed again": "FAILED again:",
}
BARE = ("job", "subject", "write")


def _fact(key: str, value: object) -> str:
    return str(value) if key in BARE else f"{key}={value}"


class Silent(structlog.BoundLoggerBase):
    """Costs nothing and says nothing."""

    def _nothing(self, event: str, **facts: object) -> None:
        return

    debug = info = warning = error = critical = _nothing
