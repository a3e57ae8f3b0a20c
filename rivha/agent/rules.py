"""The policy as a page: the rule tables with what each rule says of itself. `rivhactl rules` prints it, docs/rules.md keeps it.

It only reads docstrings; a test holds docs/rules.md to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence

from rivha.agent.brain.decide import POSTGRES
from rivha.agent.brain.holding import LEASE
from rivha.agent.brain.view import Situation

INTRODUCTION = """# The rules

Printed by `rivhactl rules`. Each tick asks two questions of what it sees; the first rule of a table that answers decides, and its
name stands in the log (`rules=`), in `rivhactl explain` and in `GET /journal`.
"""

SITUATIONS = {
    Situation.LEADING: "the leader key is mine, on a lease that lives",
    Situation.FOLLOWING: "another node holds the leader key",
    Situation.LEADERLESS: "nobody holds it, or it is mine by name but my lease is not known to live",
    Situation.BLIND: "etcd does not answer",
    Situation.PAUSED: "an operator paused the cluster",
}


def page() -> str:
    """Markdown."""
    parts = [INTRODUCTION, "## What about the lease? (in every situation)\n", *_table(LEASE)]
    for situation, words in SITUATIONS.items():
        parts += [f"\n## What about Postgres, when {words}? (`{situation.value}`)\n", *_table(POSTGRES[situation])]
    return "\n".join(parts) + "\n"


def _table(rules: Sequence[Callable[..., object]]) -> Iterator[str]:
    yield "| rule | why |"
    yield "|---|---|"
    for rule in rules:
        why = " ".join((inspect.getdoc(rule) or "").split())
        yield f"| `{rule.__name__}` | {why} |"
