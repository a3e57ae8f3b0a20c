"""What the agent asks of etcd: one read, one transaction, leases, a wake-up. Nothing here knows what the keys mean.

Two implementations: `rivha.dcs.etcd.Etcd` and the simulator's. One contract suite, tests/contract/test_dcs.py, runs on both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rivha.model import Outcome


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key below the cluster's prefix; `key` is relative to it (`leader`, `members/db1`)."""

    key: str
    value: str
    mod_revision: int
    create_revision: int
    lease_id: int = 0

    def __hash__(self) -> int:
        return hash((self.key, self.mod_revision))  # which says it all, and costs a fraction: what was parsed is kept by it


@dataclass(frozen=True, slots=True)
class Reading:
    """All keys of the cluster at one revision of etcd's store, read linearizably."""

    revision: int
    items: tuple[KeyValue, ...]

    def __hash__(self) -> int:
        return self.revision


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Compare: the key was last written at `mod_revision`; 0 means that it does not exist."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: str
    lease_id: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class Txn:
    """If every compare holds, all writes happen at one revision; else none does."""

    when: tuple[Unchanged, ...]
    then: tuple[Put | Delete, ...]


class Dcs(Protocol):
    """The cluster's store. Every call takes its own budget in seconds and keeps it, over all endpoints together.

    Reads and lease calls raise DcsUnavailable when they could not be answered in time. `commit` never raises for that: it answers UNKNOWN.
    """

    async def read(self, budget_s: float) -> Reading:
        """A linearizable range read of the whole prefix: never stale."""
        ...

    async def commit(self, txn: Txn, budget_s: float) -> Outcome:
        """DONE: the writes happened. REFUSED: a compare failed, or a lease in it is gone; nothing happened. UNKNOWN: it may have happened.

        A transaction whose request may have reached etcd is never sent a second time.
        """
        ...

    async def grant(self, ttl_s: float, budget_s: float) -> int:
        """A new lease's id. etcd rounds the ttl up to whole seconds and its own minimum."""
        ...

    async def renew(self, lease_id: int, budget_s: float) -> float:
        """The lease's whole ttl in seconds, which counts from before this call; 0.0 when etcd does not know the lease (any more)."""
        ...

    async def revoke(self, lease_id: int, budget_s: float) -> None:
        """Gives the lease back; its keys go at once. A lease that is gone already is no error."""
        ...

    async def time_to_live(self, lease_id: int, budget_s: float) -> float | None:
        """Seconds left, by etcd's clock; None when the lease is gone."""
        ...

    async def unrenewed_s(self, lease_id: int, budget_s: float) -> float:
        """For how many seconds at the least nobody has renewed it, by etcd's clock and the lease's own ttl; infinite when it is gone."""
        ...

    async def watch(self, on_change: Callable[[str], None]) -> None:
        """Calls `on_change(key)` for each change below the prefix, until cancelled. Only a wake-up: may be late, repeat, or miss.

        It mends itself: silent death, cancellation, compaction and endpoint changes lead to a new stream and one `on_change("")`.
        """
        ...

    async def close(self) -> None: ...
