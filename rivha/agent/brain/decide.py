"""Names the situation and asks the two questions. First match wins; the order of a table is the policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from rivha.agent.brain.actions import Decision, PostgresVerdict, Verdict
from rivha.agent.brain.following import FOLLOWING
from rivha.agent.brain.holding import LEASE
from rivha.agent.brain.leading import LEADING
from rivha.agent.brain.view import Situation, View
from rivha.agent.brain.waiting import BLIND, LEADERLESS, PAUSED

A = TypeVar("A")
Rule = Callable[[View], PostgresVerdict | None]

POSTGRES: Mapping[Situation, Sequence[Rule]] = {
    Situation.BLIND: BLIND,
    Situation.PAUSED: PAUSED,
    Situation.LEADING: LEADING,
    Situation.FOLLOWING: FOLLOWING,
    Situation.LEADERLESS: LEADERLESS,
}


def decide(v: View) -> Decision:
    """What to do about the lease, and about Postgres. Total: every table's last rule answers."""
    return Decision(lease=first(LEASE, v), postgres=first(POSTGRES[v.situation], v))


def first(table: Sequence[Callable[[View], Verdict[A] | None]], v: View) -> Verdict[A]:
    return next(Verdict(verdict.action, verdict.reason, rule.__name__) for rule in table if (verdict := rule(v)) is not None)
