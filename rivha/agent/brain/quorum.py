"""Who may elect (etcd's `sync`) and who must acknowledge (`synchronous_standby_names`), moved one safe change at a time (DESIGN 5).

Any quorum + 1 of the voters V may elect; any n of the names W may acknowledge. The rule that holds at every instant, also when a
transition is cut short by a crash or a new goal: every set that can acknowledge meets every set that can elect, which is
|V + W| <= n + q (V + W their union: an acknowledging and an electing set that do not meet need n + q + 1 nodes).

The rule speaks of commits acknowledged under the names now in force. Older ones are covered as long as the electors only grow stricter;
before they become easier the caller must have seen the barrier: all that was written before the names in force came into force is
flushed by at least `number` of `members`. Names are in force when every walsender has them (`sync_state`), not when the file has them;
until then some go by the old names and some by the new, and each counts whoever either names (`meanwhile`).

Called by the rules of the leader's upkeep; must never look at anything but its arguments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = r'"(?:[^"]|"")+"|\*|[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*|\d+'
_ANY = re.compile(rf"\s*ANY\s+(\d+)\s*\(\s*((?:{_NAME})(?:\s*,\s*(?:{_NAME}))*)\s*\)\s*", re.IGNORECASE)
_EVERYBODY = "*"
PLACEHOLDER = "__patroni_strict_sync_replica_placeholder__"  # Patroni's; no member may have this name (rivha/config/file.py)


@dataclass(frozen=True, slots=True)
class Electors:
    """What etcd's `sync` says: any `quorum` + 1 of `voters` may elect. No voters: only the leader named there may lead."""

    voters: frozenset[str] = frozenset()
    quorum: int = 0

    @property
    def can_elect(self) -> bool:
        return self.quorum < len(self.voters)


@dataclass(frozen=True, slots=True)
class Names:
    """`synchronous_standby_names`: any `number` of `members` acknowledge. No members: commits wait for nobody."""

    members: frozenset[str] = frozenset()
    number: int = 0

    @property
    def text(self) -> str:
        """As it is written into the configuration; the same names always give the same text."""
        if not self.members:
            return ""
        quoted = (name if name == _EVERYBODY else '"' + name.replace('"', '""') + '"' for name in sorted(self.members))
        return f"ANY {self.number} ({','.join(quoted)})"

    @staticmethod
    def parse(text: str) -> Names | None:
        """The setting read back. None: it does not mean ANY (priority lists, typing errors), or asks for more than it names."""
        if not text.strip():
            return Names()
        if not (found := _ANY.fullmatch(text)):
            return None
        number = int(found[1])
        members = frozenset(name[1:-1].replace('""', '"') if name[0] == '"' else name for name in re.findall(_NAME, found[2]))
        return Names(members, number) if 0 < number <= len(members) else None


@dataclass(frozen=True, slots=True)
class Goal:
    """What the leader wants: `number` of `members` hold a commit before it is acknowledged.

    Unanimous is mode `on`: all of the members, so that any one of them may take over. Raises ValueError on a goal that nobody can meet.
    """

    members: frozenset[str]
    number: int
    unanimous: bool

    def __post_init__(self) -> None:
        if not 0 < self.number <= len(self.members) or (self.unanimous and self.number < len(self.members)):
            raise ValueError(f"{self.number} of {len(self.members)} members cannot be what a commit waits for")

    @property
    def names(self) -> Names:
        return Names(self.members, self.number)

    @property
    def electors(self) -> Electors:
        return Electors(self.members, len(self.members) - self.number)


@dataclass(frozen=True, slots=True)
class SetElectors:
    """Write `sync`, guarded by its revision and by the leader's term."""

    electors: Electors


@dataclass(frozen=True, slots=True)
class SetNames:
    """Put synchronous_standby_names in force; done when every walsender has it."""

    names: Names


@dataclass(frozen=True, slots=True)
class Wait:
    """The barrier comes first. `why` is for people."""

    why: str


Step = SetElectors | SetNames | Wait
NO_VOTERS = Electors()
NOBODY = Names()
BLOCK = Names(frozenset({PLACEHOLDER}), 1)  # strict, and nobody to name. Not "*": a clone under way and pg_receivewal would do, too


def keeps_the_rule(electors: Electors, names: Names) -> bool:
    """Every set that can acknowledge meets every set that can elect."""
    if not electors.voters:
        return True
    if _EVERYBODY in names.members:
        return False  # whoever connects may acknowledge: nobody knows how many
    return len(electors.voters | names.members) <= names.number + electors.quorum


def meanwhile(before: Names, after: Names) -> Names:
    """What must keep the rule while a reload is under way, besides both.

    A WAL sender wants as many as the names say that it has read itself, but counts every standby whose own sender takes it for named
    (SyncRepGetCandidateStandbys in syncrep.c): of those of one setting and of the other, as many as the smaller number.
    """
    return Names(before.members | after.members, min(before.number, after.number))


def is_easier(before: Electors, after: Electors) -> bool:
    """Some set may elect after that could not before.

    Of the q' + 1 that elect after, as few as q' + 1 - |V' - V| were voters before, and q + 1 had to be.
    """
    return after.can_elect and after.quorum - before.quorum < len(after.voters - before.voters)


def next_step(electors: Electors, names: Names | None, goal: Goal | None, strict: bool, barrier_passed: bool) -> Step | None:
    """The next change on the way to the goal, one side at a time; None: arrived. `names` None: what is in force is not of our writing.

    No goal means that nobody is left to replicate to, and gives the voters up: a strict cluster whose voters are only out of reach is
    better served by its present goal, since its commits wait either way and its voters may still elect when they come back.

    At most four changes lead anywhere, whatever was interrupted; voters are given up only for lack of a goal or to mend a broken rule.
    """
    if electors.voters and (goal is None or names is None or not electors.can_elect or not keeps_the_rule(electors, names)):
        return SetElectors(NO_VOTERS)
    if goal is None:
        wanted = BLOCK if strict else NOBODY
        return SetNames(wanted) if names != wanted else None
    if names is None or not electors.voters:
        return SetNames(goal.names) if names != goal.names else _elect(electors, names, goal, barrier_passed)
    return _towards(electors, names, goal, barrier_passed)


def _towards(electors: Electors, names: Names, goal: Goal, barrier_passed: bool) -> Step | None:
    """From voters to other voters: the electors first if all names until the goal's allow it, else the names, else by stricter electors.

    It waits only under the goal's own names: those in force before may name standbys that will never confirm anything.
    """
    if names == goal.names:
        return _elect(electors, names, goal, barrier_passed) if electors != goal.electors else None
    both = meanwhile(names, goal.names)
    if electors != goal.electors and keeps_the_rule(goal.electors, both) and (barrier_passed or not is_easier(electors, goal.electors)):
        return SetElectors(goal.electors)
    return SetNames(goal.names) if keeps_the_rule(electors, both) else SetElectors(_stricter(electors, both))


def _elect(electors: Electors, names: Names, goal: Goal, barrier_passed: bool) -> Step:
    if barrier_passed or not is_easier(electors, goal.electors):
        return SetElectors(goal.electors)
    return Wait(f"{names.number} of {', '.join(sorted(names.members))} must first hold all that was written before they were named")


def _stricter(electors: Electors, both: Names) -> Electors:
    """All voters and all that either names: so many of them that the rule holds with both and in between, and never easier than now.

    At least one acknowledgement is wanted by either, so never more than all of them must elect.
    """
    voters = electors.voters | both.members
    return Electors(voters, max(len(voters) - both.number, electors.quorum + len(voters - electors.voters)))
