"""The verbs of the brain, each with the guard under which it may still be done, and the shape of a decision.

A write to etcd is guarded by the compares of its transaction, which name the revisions that the decision was based on: etcd refuses a
stale one. What is done to Postgres carries `start_before`, the instant after which the performer must not begin it.
"""

from __future__ import annotations

import re
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
class Rebind:
    """Put the leader key on a new lease of the configured ttl, before the old one ends (HAZARDS A 20)."""


@dataclass(frozen=True, slots=True)
class ClaimBootstrap:
    """Create `initialize` if it does not exist; who created it runs the bootstrap."""


@dataclass(frozen=True, slots=True)
class AbandonBootstrap:
    """Take my claim back: the bootstrap failed."""


@dataclass(frozen=True, slots=True)
class Acquire:
    """Take the free leader key for a Postgres that needs no election: the holder's own, an adopted primary, a fresh one."""


@dataclass(frozen=True, slots=True)
class MakePledge:
    """Stop the receiver, learn the end of the WAL, publish the pledge (DESIGN 6.2)."""

    term: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take my pledge back; only while the leadership is as read."""


@dataclass(frozen=True, slots=True)
class Win:
    """The one transaction of DESIGN 6.4: the leader key, `sync` and every pledge are as read."""


@dataclass(frozen=True, slots=True)
class Resign:
    """Give the key back and say so; only when no Postgres process is left here."""

    candidate: str | None = None
    lsn: int = 0  # the shutdown checkpoint: who takes over must hold it; 0 when there is none
    reason: str = ""


LeaseAction: TypeAlias = Nothing | Renew | Rebind | ClaimBootstrap | AbandonBootstrap | Acquire | MakePledge | Withdraw | Win | Resign


# ---- Postgres ----


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
    start_before: float  # the lease must outlive the promotion
    names: str = ""  # synchronous_standby_names, in force before the first commit can be
    surely: bool = False  # not one commit may go without them: others may elect already, or the mode is strict


@dataclass(frozen=True, slots=True)
class Stop:
    """Out of routing first, then fast for `fast_s`, then immediate, then SIGKILL. Cancels whatever the job slot does."""

    fast_s: float
    quit_s: float = 1.0


@dataclass(frozen=True, slots=True)
class HandOver:
    """The first half of a switchover: CHECKPOINT while serving, out of routing, fast stop (DESIGN 9)."""

    term: int
    candidate: str | None
    fast_s: float
    linger_s: float | None = None  # for who takes nothing any more once all is written; None: all of `fast_s`


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
class Synchronize:
    """Put synchronous_standby_names in force, and see that every WAL sender has them."""

    names: str


@dataclass(frozen=True, slots=True)
class SetAside:
    """Move the data directory out of the way (never delete); a running Postgres is stopped before."""

    why: str
    wish: int = 0


@dataclass(frozen=True, slots=True)
class Restart:
    """Stop and start in the same role, because an operator asked."""

    wish: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the agent with an exit code; Postgres is left as it is."""

    exit_code: int
    why: str


PostgresAction: TypeAlias = (
    Nothing | Clone | Start | Promote | Stop | HandOver | Follow | Synchronize | Compare | Rewind | SetAside | Restart | GiveUp
)

A = TypeVar("A")
_NUMBERS = re.compile("[0-9]+")


@dataclass(frozen=True, slots=True)
class Verdict(Generic[A]):
    action: A
    reason: str  # one sentence for people
    rule: str = ""  # the function that decided; filled in by `decide.first`


LeaseVerdict: TypeAlias = Verdict[LeaseAction]
PostgresVerdict: TypeAlias = Verdict[PostgresAction]


@dataclass(frozen=True, slots=True)
class Decision:
    lease: LeaseVerdict
    postgres: PostgresVerdict

    @property
    def gist(self) -> tuple[str, ...]:
        """Equal for two decisions that say the same but for running numbers: the log and the journal hold changes, not beats."""
        parts = (self.lease.rule, type(self.lease.action).__name__, self.postgres.rule, type(self.postgres.action).__name__)
        return (*parts, *(_NUMBERS.sub("#", verdict.reason) for verdict in (self.lease, self.postgres)))
