"""Synchronous replication of the model Postgres: whose flush counts, which commits wait for it, and what ends the waiting.

After src/backend/replication/syncrep.c, and held to tests/contract/test_postgres_sync.py. A commit that waits is in the WAL already, and
standbys show it; on the primary nobody sees it before its wait ends, however that ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from rivha.model import Lsn
from tests.sim.disk import Entry

SENDER_TIMEOUT_S = 5.0  # wal_sender_timeout: a standby that reported nothing for so long is dropped


class Answer(StrEnum):
    """How a commit ended for its client."""

    ACKNOWLEDGED = "acknowledged"
    ONLY_LOCAL = "only local"  # COMMIT, with the warning that it might not have been replicated
    BROKEN = "broken"  # the connection ended first


Told = Callable[[Entry, Answer], None]


@dataclass(frozen=True, slots=True)
class Names:
    """synchronous_standby_names, parsed. `members` in their order, without quotes, in lower case."""

    method: str  # FIRST or ANY
    number: int
    members: tuple[str, ...]

    def priority(self, host: str) -> int:
        """From 1; 0: not named."""
        return next((n for n, name in enumerate(self.members, 1) if name in ("*", host.lower())), 0)

    def states(self, hosts: list[str]) -> dict[str, str]:
        """host -> pg_stat_replication.sync_state, of those connected."""
        named = sorted((h for h in hosts if self.priority(h)), key=self.priority)
        if self.method == "ANY":
            return {h: "quorum" if h in named else "async" for h in hosts}
        return {h: ("sync" if named.index(h) < self.number else "potential") if h in named else "async" for h in hosts}

    def lets_through(self, flushed: Mapping[str, Lsn]) -> Lsn:
        """Up to where commits may return, by what the connected standbys have reported; 0 when too few are connected."""
        named = sorted((h for h in flushed if self.priority(h)), key=self.priority)
        if len(named) < self.number:
            return 0
        if self.method == "ANY":
            return sorted((flushed[h] for h in named), reverse=True)[self.number - 1]
        return min(flushed[h] for h in named[: self.number])


_LIST = re.compile(r"(?:(first|any)?\s*(\d+)\s*\((.*)\)|(.*))", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([A-Za-z_][\w$]*|\*))\s*')


def parse(text: str) -> Names | None:
    """None: nobody is named. Raises ValueError on what PostgreSQL would not take."""
    if not text.strip():
        return None
    match = _LIST.fullmatch(text.strip())
    assert match is not None  # its last branch takes anything
    method, number, members, plain = match.groups()
    found = []
    for part in (members if plain is None else plain).split(","):
        name = _NAME.fullmatch(part)
        if name is None:
            raise ValueError(f"synchronous_standby_names: {text!r} does not parse at {part!r}")
        found.append((name[1].replace('""', '"') if name[1] else name[2]).lower())
    if number is not None and int(number) < 1:
        raise ValueError(f"synchronous_standby_names: {number} is no number of standbys")
    return Names((method or "FIRST").upper(), int(number or 1), tuple(found))


@dataclass(slots=True)
class Sender:
    """One WAL sender: what its standby last reported over this connection."""

    connection: int
    heard_at: float
    flush: Lsn = 0
    replay: Lsn = 0
    replied: float = 0.0  # by the standby's clock


@dataclass(slots=True)
class SyncRep:
    time: Callable[[], float]
    names: Names | None = None  # in force
    senders: dict[str, Sender] = field(default_factory=dict)
    waiting: dict[int, tuple[Entry, Told]] = field(default_factory=dict)  # by the entry's ident, in the WAL's order

    def live(self) -> dict[str, Sender]:
        since = self.time() - SENDER_TIMEOUT_S
        return {host: s for host, s in self.senders.items() if s.heard_at >= since}

    def commit(self, entry: Entry, told: Told) -> None:
        """The entry is flushed here."""
        if self.names is None:
            told(entry, Answer.ACKNOWLEDGED)
        else:
            self.waiting[entry.ident] = (entry, told)
            self.release()

    def heard(self, host: str, connection: int, flush: Lsn, replay: Lsn, sent_at: float = 0.0) -> None:
        sender = self.senders.get(host)
        if sender is not None and sender.connection == connection:
            sender.replied = sent_at
            sender.heard_at, sender.flush, sender.replay = self.time(), max(sender.flush, flush), max(sender.replay, replay)
            if self.waiting:
                self.release()

    def gone(self, host: str, connection: int) -> None:
        sender = self.senders.get(host)
        if sender is not None and sender.connection == connection:
            del self.senders[host]

    def take(self, names: Names | None) -> None:
        """A reload has reached the senders: without names nobody waits any more, with other names others count."""
        self.names = names
        self.release()

    def release(self) -> None:
        upto = None if self.names is None else self.names.lets_through({h: s.flush for h, s in self.live().items()})
        while self.waiting:
            entry, told = next(iter(self.waiting.values()))
            if upto is not None and entry.end > upto:
                return
            del self.waiting[entry.ident]
            told(entry, Answer.ACKNOWLEDGED)

    def cancel(self, entry: Entry) -> None:
        """The client's cancel, or a statement timeout: too late to take anything back."""
        found = self.waiting.pop(entry.ident, None)
        if found is not None:
            found[1](entry, Answer.ONLY_LOCAL)

    def end_sessions(self) -> None:
        """A shutdown or the end of the process."""
        broken, self.waiting = list(self.waiting.values()), {}
        for entry, told in broken:
            told(entry, Answer.BROKEN)

    def end(self) -> None:
        self.end_sessions()
        self.senders.clear()
