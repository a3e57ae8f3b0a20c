"""Mutants that live by what the models of etcd and Postgres have learnt last: directories, children, members of etcd. See mutants.py."""

from __future__ import annotations

from rivha.agent.brain import leading
from tests.sim.planting import Garden, Mutant


def a_postgres_without_its_directory_is_left_alone(g: Garden) -> None:
    """It holds the port, and whoever would clone waits for it (HAZARDS E 73)."""
    g.without(leading.stop_a_postgres_without_its_directory)


OF_MODELS = (
    Mutant(
        a_postgres_without_its_directory_is_left_alone,
        ("a Postgres without its directory runs on",),
        (0,),
        4,
        "2 directory_removed leader 20",
    ),
)
