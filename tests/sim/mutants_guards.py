"""Mutants of what happens too late, and of single guards of etcd's transactions. See mutants.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rivha.agent.brain import actions as do
from rivha.agent.brain import election, holding, votes
from rivha.agent.brain.view import View
from rivha.dcs import records, writes
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


def off_needs_no_votes(g: Garden) -> None:
    """Once the mode is turned off anybody takes over, though the leader has not heard of it: what the voters hold is lost."""
    g.put(lambda v: v.synchronous, "decide", votes)


# ---- single guards ---------------------------------------------------------------------------------------------------------------


def _unguarded(g: Garden, name: str, begin: str) -> None:
    """That transaction does not compare the keys that begin so."""
    before: Callable[..., Txn] = getattr(writes, name)

    def build(*how: Any) -> Txn:
        txn = before(*how)
        return replace(txn, when=tuple(compare for compare in txn.when if not compare.key.startswith(begin)))

    g.put(build, name, writes)


def win_compares_no_pledges(g: Garden) -> None:
    """Who wins may do so on pledges that were withdrawn meanwhile: their writers acknowledge again (DESIGN 6.4)."""
    _unguarded(g, "win", records.PLEDGES)


def win_does_not_compare_sync(g: Garden) -> None:
    """Who wins may do so by voters of yesterday: the leader came back and went on without them."""
    _unguarded(g, "win", records.SYNC)


def win_does_not_compare_the_request(g: Garden) -> None:
    """Who was appointed with loss wins although the operator has taken the request back."""
    _unguarded(g, "win", records.FAILOVER)


def win_does_not_compare_the_config(g: Garden) -> None:
    """Who won by the mode `off` takes over although the mode was turned on meanwhile."""
    _unguarded(g, "win", records.CONFIG)


BACK_AGAIN = "2 wins_land_late leader 20; 2.1 leaders_agent_unheard leader"  # somebody wins late, and the leader is back by then
QUORUM_OF_TWO = Shape(2, QUORUM)
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
    Mutant(
        win_compares_no_pledges,
        ("the key was taken without the voters",),
        (1,),
        40,
        BACK_AGAIN + " 2.6",
        Shape(settings={**QUORUM, "synchronous_mode_strict": True}),
        first=SYNCHRONOUS,
    ),
    Mutant(
        win_does_not_compare_sync,
        ("the winner lacks acknowledged rows",),
        (0,),
        40,
        BACK_AGAIN + " 5; 5 agent_frozen db1 25; 5 agent_frozen db2 25",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        win_does_not_compare_the_request,
        ("who is no voter leads",),
        (10,),
        40,
        "2 one_cut_from_leader db1 20; 8 power_off leader 50; 15 wins_land_late leader 40; 20 failover_with_loss db1 1;"
        "20.1 failover_with_loss db2 1; 23.3 request_withdrawn db1 0",
        QUORUM_OF_TWO,
        first=SYNCHRONOUS,
    ),
    Mutant(
        win_does_not_compare_the_config,
        ("who is no voter leads",),
        (5,),
        40,
        "2 mode_edited db1 0; 10 power_off leader 50; 15 wins_land_late leader 40; 23.3 mode_edited db1 0.04",
        QUORUM_OF_TWO,
        first=SYNCHRONOUS,
    ),
    Mutant(
        off_needs_no_votes,
        ("the winner lacks acknowledged rows",),
        (0,),
        40,
        "2 one_cut_from_leader db1 30; 7.9 cut_from_etcd leader 40; 8 mode_edited db1 0; 8.2 power_off leader 40; 8.2 power_off db2 30",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
)
