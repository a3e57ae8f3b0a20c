"""What cannot be observed again, as a value: folded once a tick by `remember`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Memory:
    leaderless_since: float | None = None  # when I first saw that nobody leads; None while somebody does
    last_term: int = 0  # the newest leadership that I saw in etcd
    last_leader: str | None = None
    last_members: frozenset[str] = frozenset()  # names of the members published while somebody last led (HAZARDS A 17)
    initialized: bool = False  # I have seen `initialize` with a system identifier
    crashes: tuple[float, ...] = ()  # when the postmaster of a primary died under me, within the last CRASH_WINDOW_S
    compared_term: int = 0  # the term for which `history` holds
    history: str = ""  # "", same, diverged, unknown: how my WAL relates to the leader's (History's values)
    compared_at: float | None = None
    rewind_failures: int = 0  # since the last success
    failures: dict[str, tuple[int, float]] = field(default_factory=dict)  # job kind -> (in a row, when the last one ended)
    not_streaming_since: float | None = None
    silent_since: float | None = None  # Postgres has a postmaster and answers nothing
    starting_since: float | None = None
    leading_since: float | None = None
    primary_since: float | None = None  # out of recovery with leadership, as seen here
    checkpointed_term: int = 0  # the term for which the checkpoint after promotion is finished
    handed_over_term: int = 0
    was_primary: bool = False  # the last postmaster seen alive was a primary
