"""pg_controldata's text as facts. Pure. Called by rivha.postgres.status and by the verbs that work on a stopped directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rivha.errors import CommandFailed
from rivha.model import Lsn, parse_lsn

# GUCs that size shared memory: a standby that has less than its primary had does not start or pauses replay (HAZARDS D 66).
SHARED_SIZES = ("max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_xacts", "max_locks_per_xact")
GUC_OF_SIZE = {"max_prepared_xacts": "max_prepared_transactions", "max_locks_per_xact": "max_locks_per_transaction"}


@dataclass(frozen=True, slots=True)
class ControlData:
    """What the control file says. LSNs are None where it says 0/0."""

    system_id: str
    state: str  # PostgreSQL's words: "shut down", "in production", "in archive recovery", ...
    checkpoint: Lsn  # where the latest checkpoint record begins
    redo: Lsn
    checkpoint_timeline: int
    minimum_recovery: Lsn | None  # a standby is consistent from here on
    minimum_recovery_timeline: int
    checksums: bool
    wal_log_hints: bool
    wal_block_bytes: int
    wal_segment_bytes: int
    sizes: Mapping[str, int]  # GUC -> what the primary that wrote this WAL had

    @property
    def clean(self) -> bool:
        return self.state in ("shut down", "shut down in recovery")

    @property
    def was_standby(self) -> bool:
        return self.state in ("shut down in recovery", "in archive recovery")

    @property
    def timeline(self) -> int:
        """Of the newest WAL that the control file knows of. After a promotion only the minimum recovery point tells, until a checkpoint.

        On a standby WAL of a later timeline may lie in pg_wal.
        """
        return max(self.checkpoint_timeline, self.minimum_recovery_timeline)


def parse(text: str) -> ControlData:
    """Raises CommandFailed when a line is missing or strange: a control file that is not understood must not be acted upon."""
    lines = dict(_pairs(text))
    try:
        minimum = parse_lsn(lines["Minimum recovery ending location"])
        return ControlData(
            system_id=lines["Database system identifier"],
            state=lines["Database cluster state"],
            checkpoint=parse_lsn(lines["Latest checkpoint location"]),
            redo=parse_lsn(lines["Latest checkpoint's REDO location"]),
            checkpoint_timeline=int(lines["Latest checkpoint's TimeLineID"]),
            minimum_recovery=minimum or None,
            minimum_recovery_timeline=int(lines["Min recovery ending loc's timeline"]),
            checksums=int(lines["Data page checksum version"]) > 0,
            wal_log_hints=lines["wal_log_hints setting"] == "on",
            wal_block_bytes=int(lines["WAL block size"]),
            wal_segment_bytes=int(lines["Bytes per WAL segment"]),
            sizes={GUC_OF_SIZE.get(size, size): int(lines[f"{size} setting"]) for size in SHARED_SIZES},
        )
    except (KeyError, ValueError) as e:
        raise CommandFailed(f"pg_controldata's output is not understood ({type(e).__name__}: {e})", text[-2000:]) from e


def _pairs(text: str) -> list[tuple[str, str]]:
    """`name: value` lines; older versions write "Current wal_log_hints setting" (HAZARDS E 75)."""
    pairs = []
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            pairs.append((name.strip().removeprefix("Current "), value.strip()))
    return pairs
