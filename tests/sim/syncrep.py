"""Synchronous replication of the model Postgres: whose flush counts, which commits wait for it, and what ends the waiting.

After src/backend/replication/syncrep.c, and held to tests/contract/test_postgres_sync.py. A commit that waits is in the WAL already, and
standbys show it; on the primary nobody sees it before its wait ends, however that ends. Whether commits wait is what the checkpointer has
read; each WAL sender lets them go by the names that it has read itself, and counts all standbys whose own senders take them for named.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from rivha.model import Lsn
from rivha.postgres import synchronous
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
        wanted = host.lower()
        for n, name in enumerate(self.members, 1):
            if name in ("*", wanted):
                return n
        return 0

    def states(self, priorities: Mapping[str, int]) -> dict[str, str]:
        """host -> pg_stat_replication.sync_state, of those that their own senders take for named; all others are async."""
        if self.method == "ANY":
            return dict.fromkeys(priorities, "quorum")
        order = sorted(priorities, key=lambda host: priorities[host])
        return {host: "sync" if place < self.number else "potential" for place, host in enumerate(order)}

    def lets_through(self, named: Mapping[str, tuple[int, Lsn]]) -> Lsn:
        """Up to where commits may return, by the priorities and reports of the connected standbys; 0 when too few are connected."""
        if len(named) < self.number:
            return 0
        if self.method == "ANY":
            return sorted((flush for _, flush in named.values()), reverse=True)[self.number - 1]
        return min(flush for _, flush in sorted(named.values())[: self.number])


@functools.cache
def parse(text: str) -> Names | None:
    """None: nobody is named. Raises ValueError. Read as the adapter reads it, which is held to the real one."""
    found = synchronous.parse(text)
    return Names(found.method, found.number, found.members) if found is not None else None


@dataclass(slots=True)
class Sender:
    """One WAL sender: what its standby last reported over this connection."""

    connection: int
    heard_at: float
    names: Names | None = None  # that this process goes by
    flush: Lsn = 0
    replay: Lsn = 0
    replied: float = 0.0  # by the standby's clock
    began_at: float = 0.0


@dataclass(slots=True)
class SyncRep:
    time: Callable[[], float]
    names: Names | None = None  # that the checkpointer goes by: without any, no commit waits
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

    def heard(self, host: str, connection: int, flush: Lsn, replay: Lsn, sent_at: float = 0.0) -> None:
        sender, now = self.senders.get(host), self.time()
        if sender is not None and sender.connection == connection and sender.heard_at >= now - SENDER_TIMEOUT_S:
            sender.replied = max(sender.replied, sent_at)
            sender.heard_at, sender.flush, sender.replay = now, max(sender.flush, flush), max(sender.replay, replay)
            if self.waiting:
                self._release(host)

    def gone(self, host: str, connection: int) -> None:
        sender = self.senders.get(host)
        if sender is not None and sender.connection == connection:
            del self.senders[host]

    def take(self, names: Names | None) -> None:
        """A reload has reached the checkpointer: without names nobody waits any more."""
        self.names = names
        if names is None:
            self._let_go(None)

    def sender_takes(self, host: str, names: Names | None) -> None:
        """A reload has reached the sender to that standby."""
        self.senders[host].names = names
        self._release(host)

    def named(self) -> dict[str, tuple[int, Lsn]]:
        """Of each connected standby that its own sender takes for named: its priority, and what it has flushed."""
        found = ((host, s.names.priority(host), s.flush) for host, s in self.live().items() if s.names)
        return {host: (priority, flush) for host, priority, flush in found if priority}

    def _release(self, by: str) -> None:
        """The sender to that standby has heard of it, or has taken a reload."""
        names = self.senders[by].names
        if self.waiting and names is not None and by in (named := self.named()):
            self._let_go(names.lets_through(named))

    def _let_go(self, upto: Lsn | None) -> None:
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
