"""Who gives up its data is no voter, from before it begins until it has data again."""

from __future__ import annotations

from rivha.agent.brain.upkeep import describe
from rivha.model import Data
from tests.build import ME, PRIMARY, World, a_member, a_view


def says_so(world: World) -> bool:
    return describe(world.view(), a_member(ME)).leaving


def test_who_was_taken_out_of_the_voters_goes_on_saying_why_it_cannot_be_one():
    """Else the leader makes it a voter again while it still streams, and its data is on its way out (simulator, seed 1000003)."""
    asked = a_view().leader("db1", PRIMARY).mode("quorum").wish("reinitialize")

    assert says_so(asked.sync("db1", f"{ME} db3", 1))
    assert says_so(asked.sync("db1", "db3", 0))
    assert says_so(a_view().leader("db1", PRIMARY).mode("quorum").sync("db1", "db3", 0).compared("diverged"))
    assert says_so(a_view().leader("db1", PRIMARY).mode("quorum").sync("db1", "db3", 0).no_data(Data.EMPTY))


def test_a_leader_says_nothing_of_the_kind_nor_does_anybody_where_nobody_votes():
    assert not says_so(a_view().me(PRIMARY).leads().mode("quorum").stopping())
    assert not says_so(a_view().leader("db1", PRIMARY).mode("off").wish("reinitialize"))
