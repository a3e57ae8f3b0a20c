"""Mutants that live by what the models of etcd and Postgres have learnt last: directories, children, members of etcd. See mutants.py."""

from __future__ import annotations

from rivha.agent import perform
from rivha.agent.brain import actions as do
from rivha.agent.brain import leading
from rivha.agent.brain.view import View
from rivha.dcs.base import Reading
from rivha.model import Outcome
from tests.sim.etcd import SimDcs
from tests.sim.planting import Garden, Mutant
from tests.sim.shape import QUORUM, SYNCHRONOUS, Shape


def a_postgres_without_its_directory_is_left_alone(g: Garden) -> None:
    """It holds the port, and whoever would clone waits for it (HAZARDS E 73)."""
    g.without(leading.stop_a_postgres_without_its_directory)


def reads_are_serializable(g: Garden) -> None:
    """etcd is read without a quorum (HAZARDS A 7): a server that reaches no other goes on telling what it last knew."""
    before = SimDcs.read

    async def read(self: SimDcs, budget_s: float) -> Reading:
        member = self._store.lone_member(self._host)
        return await before(self, budget_s) if member is None else member.reading

    g.put(read, "read", SimDcs)


def resigns_with_children_left(g: Garden) -> None:
    """Who gives the key back does not end what a dead postmaster left behind: it may still write and send."""
    before = perform.Performer._resign

    async def resign(self: perform.Performer, v: View, action: do.Resign, budget_s: float) -> Outcome:
        async def nothing(**_: float) -> None:
            return

        real, self.postgres.stop = self.postgres.stop, nothing  # type: ignore[assignment, method-assign]
        try:
            return await before(self, v, action, budget_s)
        finally:
            self.postgres.stop = real  # type: ignore[method-assign]

    g.put(resign, "_resign", perform.Performer)


OF_MODELS = (
    Mutant(
        resigns_with_children_left,
        ("resigned while its Postgres runs",),
        (0,),
        4,
        "2 children_left leader 20",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        reads_are_serializable,
        ("acknowledged without the leader key", "two primaries"),
        (0,),
        4,
        "2 old_leader_answers leader 40",
    ),
    Mutant(
        a_postgres_without_its_directory_is_left_alone,
        ("a Postgres without its directory runs on",),
        (0,),
        4,
        "2 directory_removed leader 20",
    ),
)
