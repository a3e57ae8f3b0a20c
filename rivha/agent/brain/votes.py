"""Winning in a synchronous mode: who provably holds every acknowledged commit (DESIGN 5, 6; docs/model/takeover.py). Facts for `election`.

There are two proofs, and one way around them. Votes: of any q + 1 voters that acknowledge nothing any more, the most advanced holds all.
A hand-over: the leader's Postgres has stopped, and I hold the whole of its WAL. And an operator who accepts the loss.
"""

from __future__ import annotations

from rivha.agent.brain.view import View
from rivha.model import Member, Pledge, Role


def decide(v: View) -> bool:
    """Whether it is votes, and not the mere absence of a leader, that make one.

    A mode that was just turned off leaves voters behind, or a holder that has not heard of it and needs no lease.
    """
    return v.synchronous or bool(v.voters) or v.is_held_synchronously


def is_voter(v: View) -> bool:
    return v.me in v.voters


def is_open(v: View) -> bool:
    """An election may be held now: nobody leads, or, for voters, the leader in office is lost (DESIGN 6.1)."""
    if v.cluster is None or not decide(v):
        return v.nobody_leads
    if v.nobody_leads and (v.cluster.resigned is not None or loss_is_accepted(v)):
        return True
    return bool(v.voters) and v.leader_is_lost


def a_late_pledge_must_be_refused(v: View) -> bool:
    """Before this standby streams. What lies here as a primary's was promoted since, and `sync` written: its pledges are refused anyway."""
    return decide(v) and v.a_pledge_may_land and v.has_data and v.postgres.role is Role.STANDBY and not v.postgres.streaming


def why_closed(v: View) -> str:
    """For people, while nobody leads: what an election waits for."""
    sync = v.sync
    holder = sync.leader if sync else None
    if sync is None or holder is None:
        return "synchronous, but etcd has lost who held the commits: waiting for a primary, or for `rivhactl failover --accept-loss`"
    if not sync.voters:
        return f"only {holder} holds all commits: waiting for it, or for `rivhactl failover --accept-loss`"
    return f"{holder} may still be alive: suspected after {v.policy.suspect_after_s:g} s of silence"


def why_i_have_none(v: View) -> str | None:
    """Why a pledge of mine would count for nothing; None: it counts."""
    c = v.cluster
    if is_voter(v) or loss_is_accepted(v) or (c is not None and c.resigned is not None and c.resigned.candidate == v.me):
        return None
    if not v.voters:
        return why_closed(v)
    return f"not a voter ({', '.join(sorted(v.voters))} are)"


def why_i_may_not_win(v: View) -> str | None:
    if Member(v.me, tags=v.tags).nofailover:
        return "tag nofailover"
    if v.unfit:
        return v.unfit
    if loss_is_accepted(v):
        return None
    return why_not_enough(v, v.my_pledge) if v.my_pledge else "no pledge of mine"


def why_not_enough(v: View, pledge: Pledge) -> str | None:
    """None: its writer holds every acknowledged commit."""
    if holds_the_whole(v, pledge):
        return None
    sync, have = v.sync, supporters(v, pledge)
    if sync is None or not sync.voters:
        return why_closed(v)
    if pledge.name not in sync.voters:
        return f"{pledge.name} is not a voter"
    if len(have) <= sync.quorum:
        silent = ", ".join(sorted(sync.voters - {p.name for p in v.cluster.pledges})) if v.cluster else ""
        return f"{len(have)} of {sync.quorum + 1} needed pledges" + (f", waiting for {silent}" if silent else "")
    return None


def supporters(v: View, pledge: Pledge) -> frozenset[str]:
    """The voters whose pledges rank no higher: of them it is the most advanced, and q + 1 of them make an electing set."""
    pledges = v.cluster.pledges if v.cluster else ()
    mine = (pledge.timeline, pledge.lsn)
    return frozenset(p.name for p in pledges if p.name in v.voters and (p.timeline, p.lsn) <= mine)


def holds_the_whole(v: View, pledge: Pledge) -> bool:
    """The leader has stopped its Postgres and said where its WAL ends: on that timeline, whoever has the shutdown checkpoint has all.

    Only who streamed from that leader can tell its timeline by the number (twins: docs/decisions/0010): the voters, and whom it named.
    """
    r = v.cluster.resigned if v.cluster and v.nobody_leads else None
    if r is None or not r.lsn or pledge.timeline != r.timeline or pledge.lsn <= r.lsn:
        return False
    return pledge.name in v.voters or pledge.name == r.candidate


def loss_is_accepted(v: View) -> bool:
    """An operator named me, the leader's key is gone, and he knows that I may lack acknowledged commits."""
    f = v.cluster.failover if v.cluster else None
    return f is not None and f.accept_loss and f.candidate == v.me and f.leader is None and v.nobody_leads
