"""The verbs of the brain, each with the guard under which it may still be done, and the shape of a decision.

A transaction's guard is in its compares (etcd refuses a stale one); `start_before` is the instant after which the performer must not
start. `Nothing` is an action like the others: it has a reason too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from rivha.model import Upstream


@dataclass(frozen=True, slots=True)
class Nothing:
    """Leave it as it is."""


# ---- the lease ----


@dataclass(frozen=True, slots=True)
class Renew:
    """Keep the lease that carries the leader key alive; adopts the key's lease after an agent's restart."""

    lease_id: int


@dataclass(frozen=True, slots=True)
class ClaimBootstrap:
    """Create `initialize`, if it does not exist."""


@dataclass(frozen=True, slots=True)
class Acquire:
    """Take the free leader key for a Postgres that needs no election: the holder's own, an adopted primary, a fresh one."""

    revision: int


@dataclass(frozen=True, slots=True)
class PledgeAllegiance:
    """Stop the receiver, learn the end of the WAL, publish the pledge (DESIGN 6.2)."""

    term: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take my pledge back; only while the leadership is as read."""

    term: int


@dataclass(frozen=True, slots=True)
class Win:
    """The one transaction of DESIGN 6.4."""

    revision: int


@dataclass(frozen=True, slots=True)
class Resign:
    """Give the key back, saying so; only when no Postgres process is left."""

    term: int
    candidate: str | None = None
    lsn: int = 0


@dataclass(frozen=True, slots=True)
class Release:
    """Give the key back without having stopped a primary: there is none here."""

    term: int


LeaseAction: TypeAlias = Nothing | Renew | ClaimBootstrap | Acquire | PledgeAllegiance | Withdraw | Win | Resign | Release


# ---- Postgres ----


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """initdb and all that follows."""


@dataclass(frozen=True, slots=True)
class Clone:
    source: Upstream


@dataclass(frozen=True, slots=True)
class Start:
    primary: bool
    upstream: Upstream | None = None
    start_before: float | None = None


@dataclass(frozen=True, slots=True)
class Promote:
    term: int
    start_before: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Out of routing first, then fast for `fast_s`, then immediate, then SIGKILL."""

    fast_s: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class HandOver:
    """Switchover's first half: CHECKPOINT, out of routing, fast stop (DESIGN 9)."""

    term: int
    candidate: str | None
    fast_s: float


@dataclass(frozen=True, slots=True)
class Follow:
    upstream: Upstream | None


@dataclass(frozen=True, slots=True)
class Compare:
    leader: Upstream
    term: int


@dataclass(frozen=True, slots=True)
class Rewind:
    source: Upstream


@dataclass(frozen=True, slots=True)
class SetAside:
    why: str


@dataclass(frozen=True, slots=True)
class Restart:
    wish: int


PostgresAction: TypeAlias = (
    Nothing | Bootstrap | Clone | Start | Promote | Stop | HandOver | Follow | Compare | Rewind | SetAside | Restart
)


A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Verdict(Generic[A]):
    action: A
    reason: str  # one sentence for people
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    lease: Verdict[LeaseAction]
    postgres: Verdict[PostgresAction]
