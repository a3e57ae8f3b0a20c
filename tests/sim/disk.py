"""What survives a power failure of one model host: a data directory, as far as failover is concerned.

The WAL is a list of entries; an entry's `ident` is unique in the world and its place in a chain never changes, so two WALs agree up to the
last place where their idents agree. Positions (LSNs) are ends of entries. Of the entries the first `flushed` survive a power failure, and
the first `replayed` are in the tables.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from rivha.model import HistoryLine, Lsn

ENTRY_BYTES = 100
FIRST_LSN = 1000
CHECKPOINTS = ("initdb", "checkpoint", "shutdown checkpoint")


@dataclass(frozen=True, slots=True)
class Entry:
    ident: int
    timeline: int
    end: Lsn  # the LSN after it
    text: str  # a client's row, or what Postgres wrote for itself


@dataclass(slots=True)
class Disk:
    system_id: str = ""  # "": empty
    wal: list[Entry] = field(default_factory=list)
    flushed: int = 0
    replayed: int = 0
    past: tuple[HistoryLine, ...] = ()  # the timelines that ended, as the newest history file says
    timeline: int = 1
    checkpointed: int = 1  # the control file's timeline: behind the true one from a promotion to the next checkpoint (HAZARDS B 32)
    standby: bool = False  # standby.signal
    clean: bool = True  # the control file says "shut down"
    marker: str = ""  # clone, rewind, bootstrap: begun and not finished
    upstream: str = ""  # primary_conninfo, a host's name
    aside: int = 0  # directories moved out of the way
    full: bool = False
    names: str = ""  # synchronous_standby_names, as postgresql.conf says
    slots: dict[str, Lsn] = field(default_factory=dict)

    @property
    def end(self) -> Lsn:
        return self.wal[-1].end if self.wal else FIRST_LSN

    @property
    def flushed_end(self) -> Lsn:
        return self.wal[self.flushed - 1].end if self.flushed else FIRST_LSN

    @property
    def checkpoint(self) -> Lsn:
        """Where the newest checkpoint's record begins: what the control file of a stopped Postgres tells."""
        return next((e.end - ENTRY_BYTES for e in reversed(self.wal) if e.text in CHECKPOINTS), 0)

    def holds(self, ident: int, *, flushed: bool = False) -> bool:
        """Whether that entry lies here; idents only grow along a WAL. `flushed`: so that it survives a power failure."""
        upto = self.flushed if flushed else len(self.wal)
        if not upto or self.wal[upto - 1].ident <= ident:  # mostly it is about the newest
            return upto > 0 and self.wal[upto - 1].ident == ident
        place = bisect_left(self.wal, ident, 0, upto, key=lambda entry: entry.ident)
        return place < upto and self.wal[place].ident == ident

    def append(self, ident: int, text: str) -> Entry:
        entry = Entry(ident, self.timeline, self.end + ENTRY_BYTES, text)
        self.wal.append(entry)
        self.flushed = self.replayed = len(self.wal)
        return entry

    def lose_power(self) -> None:
        del self.wal[self.flushed :]
        if self.wal:
            self.timeline = self.wal[-1].timeline
            self.past = tuple(line for line in self.past if line.timeline < self.timeline)

    def wipe(self) -> None:
        """Moved aside. A full disk is still full."""
        aside, full = self.aside + 1, self.full
        self.__init__()  # type: ignore[misc]
        self.aside, self.full = aside, full

    def half_rewound(self, common: int) -> None:
        """What a rewind leaves that does not end: neither the old history nor the new one. `common`: entries that both have."""
        del self.wal[common // 2 :]
        self.flushed = self.replayed = len(self.wal)
        if self.wal:
            self.timeline = self.wal[-1].timeline
            self.past = tuple(line for line in self.past if line.timeline < self.timeline)

    def copy_from(self, other: Disk, upto: int) -> None:
        self.system_id, self.wal = other.system_id, other.wal[:upto]
        self.past, self.timeline = other.past, other.timeline
        self.flushed = self.replayed = len(self.wal)
        self.checkpointed, self.slots = other.checkpointed, {}


def agree(a: list[Entry], b: list[Entry]) -> int:
    """How many entries two WALs have in common from their beginning.

    Not by halves: a standby that streamed from the twin of its timeline agrees again beyond what it has of its own (decision 10).
    """
    least = min(len(a), len(b))
    if a[:least] == b[:least]:
        return least
    return next(n for n, (one, other) in enumerate(zip(a, b, strict=False)) if one != other)


def promoted(disk: Disk, reason: str) -> None:
    """A new timeline begins where the WAL ends now."""
    disk.past = (*disk.past, HistoryLine(disk.timeline, disk.end, reason))
    disk.timeline += 1
    disk.standby = False
