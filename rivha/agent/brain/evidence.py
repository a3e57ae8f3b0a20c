"""What the standbys have shown a primary: that they live, and that they hold what was written before the names in force came into force.

Folded into Memory once a look (`memory.remember`), read by View and `synchronous`. A standby's own clock says nothing here: only that a
reply differs from the one seen before (DESIGN 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rivha.agent.brain.quorum import Names
from rivha.model import Lsn, PostgresStatus, Replication, Role, State

if TYPE_CHECKING:
    from rivha.agent.brain.view import View

FORGET_S = 60.0  # a standby that has been away for so long begins anew


@dataclass(frozen=True, slots=True)
class Reply:
    """A standby's last reply. It may have two connections: one that nobody has noticed to be dead lies beside the new one for a while."""

    texts: frozenset[str | None]  # the standby's times of sending, one of each connection: a new text is a new reply
    seen_at: float  # the connection was last seen
    changed_at: float | None  # a look that began then was the first to see this reply; None: it may be from long ago


@dataclass(frozen=True, slots=True)
class InForce:
    """synchronous_standby_names, and whether what was written before they came into force is safe under them."""

    text: str
    lsn: Lsn | None = None  # the end of the WAL when they were known to be in force everywhere; None: not known yet
    replies: Mapping[str, frozenset[str | None]] = field(default_factory=dict)  # what each standby had replied by then
    passed: bool = False  # the barrier of DESIGN 5: `number` of the members have flushed up to `lsn`, and said so since


def remembered_replies(v: View, before: Mapping[str, Reply]) -> Mapping[str, Reply]:
    """Empty on a standby: what it heard as a primary of old proves nothing when it is one again."""
    if v.postgres.role is Role.STANDBY:
        return {}
    at = v.postgres_seen_at
    found = {name: reply for name, reply in before.items() if at - reply.seen_at < FORGET_S}
    rows = [row for row in v.postgres.replication if row.state == "streaming" and row.flush_lsn is not None]
    for name, texts in _texts(rows).items():
        known = before.get(name)
        changed_at = None if known is None else at if texts - known.texts else known.changed_at
        found[name] = Reply(texts, at, changed_at)
    return found


def _texts(rows: Iterable[Replication]) -> dict[str, frozenset[str | None]]:
    texts: dict[str, frozenset[str | None]] = {}
    for row in rows:
        texts[row.application_name] = texts.get(row.application_name, frozenset()) | {row.reply_time}
    return texts


def remembered_names(v: View, before: InForce | None) -> InForce | None:
    """One look shows them, a later one that every WAL sender agrees, a later one that enough standbys have replied since."""
    p = v.postgres
    if p.role is not Role.PRIMARY or p.state in (State.STOPPED, State.CRASHED):
        return None
    if p.state is not State.RUNNING:
        return before
    names = Names.parse(p.synchronous_standby_names)
    begun = before is None or before.text != p.synchronous_standby_names or v.busy_with("synchronize") or not p.names_confirmed
    if before is None or begun or names is None:
        return InForce(p.synchronous_standby_names)
    if before.passed:
        return before
    if before.lsn is None:
        known = p.wal_lsn is not None and all(_agrees(row, names) for row in p.replication)
        return replace(before, lsn=p.wal_lsn, replies=_texts(p.replication)) if known else before
    return replace(before, passed=_holders(p, names, before) >= names.number)


def _agrees(row: Replication, names: Names) -> bool:
    """Each WAL sender takes a reload in its own time; until then it may let through what the new names would not (HAZARDS H 5)."""
    return (row.sync_state in ("quorum", "sync", "potential")) == is_named(row.application_name, names)


def _holders(p: PostgresStatus, names: Names, since: InForce) -> int:
    """Standbys, not connections."""
    return len(
        {
            row.application_name.lower()
            for row in p.replication
            if is_named(row.application_name, names)
            and row.flush_lsn is not None
            and row.flush_lsn >= (since.lsn or 0)
            and row.reply_time not in since.replies.get(row.application_name, ())
        }
    )


def is_named(name: str, names: Names) -> bool:
    """PostgreSQL compares application_name without case."""
    return "*" in names.members or name.lower() in {member.lower() for member in names.members}
