"""What survives a power failure of one model host: a data directory, as far as failover is concerned.

The WAL is a list of entries; an entry's `ident` is unique in the world and its place in a chain never changes, so two WALs agree up to the
last place where their idents agree. Positions (LSNs) are ends of entries.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rivha.model import HistoryLine, Lsn

ENTRY_BYTES = 100
FIRST_LSN = 1000


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
    past: tuple[HistoryLine, ...] = ()  # the timelines that ended, as the newest history file says
    timeline: int = 1
    standby: bool = False  # standby.signal
    clean: bool = True  # the control file says "shut down"
    marker: str = ""  # clone, rewind, bootstrap: begun and not finished
    upstream: str = ""  # primary_conninfo, a host's name
    aside: int = 0  # directories moved out of the way
    full: bool = False

    @property
    def end(self) -> Lsn:
        return self.wal[-1].end if self.wal else FIRST_LSN

    def append(self, ident: int, text: str) -> Entry:
        entry = Entry(ident, self.timeline, self.end + ENTRY_BYTES, text)
        self.wal.append(entry)
        return entry

    def wipe(self) -> None:
        aside = self.aside + 1
        self.__init__()  # type: ignore[misc]
        self.aside = aside

    def copy_from(self, other: Disk, upto: int) -> None:
        self.system_id, self.wal = other.system_id, other.wal[:upto]
        self.past, self.timeline = other.past, other.timeline


def agree(a: list[Entry], b: list[Entry]) -> int:
    """How many entries two WALs have in common from their beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[middle - 1].ident == b[middle - 1].ident:
            low = middle
        else:
            high = middle - 1
    return low


def promoted(disk: Disk, reason: str) -> None:
    """A new timeline begins where the WAL ends now."""
    disk.past = (*disk.past, HistoryLine(disk.timeline, disk.end, reason))
    disk.timeline += 1
    disk.standby = False
