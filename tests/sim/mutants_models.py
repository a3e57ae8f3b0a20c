"""Mutants that live by what the models of etcd and Postgres have learnt last: directories, children, members of etcd. See mutants.py."""

from __future__ import annotations

from rivha.agent.brain import leading
from rivha.dcs.base import Reading
from tests.sim.etcd import SimDcs
from tests.sim.planting import Garden, Mutant


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


OF_MODELS = (
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
