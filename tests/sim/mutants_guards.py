"""Mutants of what happens too late, and of single guards of etcd's transactions. See mutants.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rivha.agent.brain import actions as do
from rivha.agent.brain import election, holding
from rivha.agent.brain.view import View
from rivha.dcs import writes
from rivha.dcs.base import Txn
from rivha.model import Cluster, Lsn
from tests.sim.planting import Garden, Mutant
from tests.sim.shape import QUORUM, SYNCHRONOUS, Shape

DAWDLES_S = 25.0

# ---- too late --------------------------------------------------------------------------------------------------------------------


def nobody_pledges_for_a_while(g: Garden) -> None:
    """Nobody stands for election before the key has been gone for 25 s."""
    rule = holding.pledge_when_nobody_leads

    def stand(v: View) -> do.LeaseVerdict | None:
        verdict = rule(v)
        early = verdict is not None and isinstance(verdict.action, do.MakePledge) and election.leaderless_for_s(v) < DAWDLES_S
        return do.Verdict(do.Nothing(), "planted") if early else verdict

    g.instead(rule, stand)


def nobody_pledges_for_a_while_either(g: Garden) -> None:
    """The same where commits wait for standbys: that the holder answers nobody is of no account."""
    nobody_pledges_for_a_while(g)


def position_one_is_published_for_ever(g: Garden) -> None:
    """The leader says that its WAL ends at 1, whatever it writes, and so nobody ever lags (HAZARDS C 40)."""
    before = writes.publish_status

    def publish_status(c: Cluster, optime: Lsn, slots: Mapping[str, Lsn], retain_slots: Iterable[str] = ()) -> Txn:
        return before(c, 1, slots, retain_slots)

    g.put(publish_status, "publish_status", writes)


OF_GUARDS = (
    Mutant(nobody_pledges_for_a_while, ("nobody took over",), (0,), 4, "2 power_off leader 50"),
    Mutant(
        nobody_pledges_for_a_while_either,
        ("nobody took over",),
        (0,),
        4,
        "2 power_off leader 50",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(position_one_is_published_for_ever, ("the published position is old",), (0,), 4, "2 deaf_watch db1 1"),
)
