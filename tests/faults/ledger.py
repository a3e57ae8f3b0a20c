"""What clients were told, and whether the cluster kept it: DESIGN 13's laws, judged from the client's side alone.

Pure but for `read`; it asks nothing of any agent. The instants are time.monotonic() of this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from itertools import pairwise
from pathlib import Path

ACKNOWLEDGED, UNKNOWN, REFUSED = "A", "U", "R"


@dataclass(frozen=True, slots=True)
class Entry:
    """One statement of one client."""

    outcome: str
    client: str
    value: int
    sent: float
    heard: float
    node: str  # the address of the Postgres at the other end
    timeline: int  # on which it wrote when the connection was made; 0: it was in recovery
    key: int  # the list that was appended to; 0: a row was inserted
    items: tuple[int, ...]  # what the list held after the append
    words: str  # what the server or the driver said when it failed

    def line(self) -> str:
        return json.dumps(astuple(self), separators=(",", ":"))

    @staticmethod
    def of(line: str) -> Entry:
        outcome, client, value, sent, heard, node, timeline, key, items, words = json.loads(line)
        return Entry(outcome, client, value, sent, heard, node, timeline, key, tuple(items), words)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a node's tables hold."""

    rows: frozenset[int]
    lists: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without acknowledged writes; `end` None: it lasts."""

    start: float
    end: float | None
    seconds: float


@dataclass(slots=True)
class Ledger:
    path: Path
    entries: list[Entry] = field(default_factory=list)
    _offset: int = 0

    def read(self) -> Ledger:
        """Takes in what was written since the last time; a line that is not finished yet stays for the next."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                lines, end, _ = file.read().rpartition(b"\n")
            self._offset += len(lines) + len(end)
            self.entries += [Entry.of(line) for line in lines.decode().splitlines()]
        return self

    def between(self, since: float, until: float = float("inf")) -> Iterator[Entry]:
        return (entry for entry in self.entries if since < entry.heard <= until)

    def count(self, outcome: str, since: float = 0.0, until: float = float("inf")) -> int:
        return sum(1 for entry in self.between(since, until) if entry.outcome == outcome)

    def acknowledged(self, since: float = 0.0, client: str | None = None) -> list[Entry]:
        return [e for e in self.between(since) if e.outcome == ACKNOWLEDGED and client in (None, e.client)]

    def longest_gap(self, since: float, until: float, client: str | None = None) -> Gap:
        """The longest time without an acknowledgement that ended after `since` and began before `until`; one that lasts counts."""
        times = sorted(entry.heard for entry in self.acknowledged(client=client))
        gaps = [Gap(a, b, b - a) for a, b in pairwise(times) if b > since and a < until]
        if times and times[-1] < until:
            gaps.append(Gap(times[-1], None, until - times[-1]))
        return max(gaps, key=lambda gap: gap.seconds, default=Gap(since, None, until - since))


def broken_promises(entries: Sequence[Entry], holdings: Mapping[str, Holdings]) -> list[str]:
    """Sentences, none when all is well. `holdings`: of every node, read when it had all that the primary had at the end."""
    found: list[str] = []
    for node, held in holdings.items():
        found += [f"{node}: {line}" for line in (*_missing(entries, held), *_unkept_lists(entries, held), *_ghosts(entries, held))]
    return found + list(two_primaries(entries))


def _missing(entries: Iterable[Entry], held: Holdings) -> Iterator[str]:
    for entry in entries:
        if entry.outcome == ACKNOWLEDGED and not entry.key and entry.value not in held.rows:
            yield f"row {entry.value} is missing, acknowledged at {entry.heard:.3f} by {entry.node} on timeline {entry.timeline}"


def _ghosts(entries: Iterable[Entry], held: Holdings) -> Iterator[str]:
    for entry in entries:
        there = entry.value in (held.lists.get(entry.key, ()) if entry.key else held.rows)
        if entry.outcome == REFUSED and there:
            yield f"{entry.value} is there, though refused at {entry.heard:.3f} by {entry.node}: {entry.words}"


def _unkept_lists(entries: Iterable[Entry], held: Holdings) -> Iterator[str]:
    """What an acknowledged append has read back is how the list begins for ever: nothing lost, nothing reordered, nothing twice."""
    for entry in entries:
        if entry.outcome != ACKNOWLEDGED or not entry.key:
            continue
        final = held.lists.get(entry.key, ())
        if entry.value not in final:
            yield f"append {entry.value} to list {entry.key} is missing, acknowledged at {entry.heard:.3f} by {entry.node}"
        elif final[: len(entry.items)] != entry.items:
            yield f"list {entry.key} began otherwise when {entry.value} was appended at {entry.heard:.3f}: {_differ(entry.items, final)}"
    for key, items in held.lists.items():
        if len(set(items)) != len(items):
            yield f"list {key} holds something twice"


def _differ(seen: tuple[int, ...], final: tuple[int, ...]) -> str:
    at = next((i for i, (a, b) in enumerate(zip(seen, final, strict=False)) if a != b), min(len(seen), len(final)))
    return f"at {at} it had {seen[at : at + 3]}, and has now {final[at : at + 3]}"


def two_primaries(entries: Iterable[Entry]) -> Iterator[str]:
    """Once a commit of a later timeline was acknowledged, nobody acknowledges what was sent to an earlier one afterwards.

    And a timeline is written by one node only.
    """
    owner: dict[int, str] = {}
    latest: Entry | None = None  # the first acknowledgement on the latest timeline so far
    for entry in sorted((e for e in entries if e.outcome == ACKNOWLEDGED and e.timeline), key=lambda e: e.heard):
        if owner.setdefault(entry.timeline, entry.node) != entry.node:
            yield f"timeline {entry.timeline} was acknowledged by {owner[entry.timeline]} and, at {entry.heard:.3f}, by {entry.node}"
        if latest is None or entry.timeline > latest.timeline:
            latest = entry
        elif entry.timeline < latest.timeline and entry.sent > latest.heard:
            yield (
                f"{entry.node} acknowledged {entry.value} on timeline {entry.timeline} at {entry.heard:.3f} (sent {entry.sent:.3f}), "
                f"after {latest.node} had on timeline {latest.timeline} at {latest.heard:.3f}"
            )
