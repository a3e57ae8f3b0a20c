"""Whether somebody else would lead, should I give the key back, and when that is better than to try again. For `holding` and `leading`.

Judged by what the others last published, which may be as old as a member's lease: who gives the key back and is wrong takes it again.
"""

from __future__ import annotations

from rivha.agent.brain import votes
from rivha.agent.brain.view import View
from rivha.model import Role, State

CRASHES_TO_RESIGN = 3  # within memory.CRASH_WINDOW_S
FAILURES_TO_RESIGN = 3
GIVE_BACK_S = 2.0  # a resignation that etcd takes is done within a tick; a restart in place takes about as long


def cannot_be_given_back(v: View) -> bool:
    """The key is still mine, though my Postgres is down and I give it back all the time: an etcd out of space refuses that, and renews.

    Nobody can be elected there, so what would otherwise end my leadership does not: Postgres is started in place. No answer is no refusal.
    In a pause nothing is started, so that giving back, and to whom, is gone on with.
    """
    refused = v.lease is None or not v.lease.doubtful
    return v.key_is_mine and refused and _down_for_s(v) > GIVE_BACK_S and not v.stopping and not v.policy.paused


def _down_for_s(v: View) -> float:
    """For how long my primary has been found down, with nothing done about it."""
    return 0.0 if v.memory.dead_since is None else v.now - v.memory.dead_since


def voters_take_over(v: View) -> bool:
    """Not if nobody did when I gave the key back before; nor if it cannot be given back: an etcd out of space refuses that, and renews."""
    died = v.postgres.state is State.CRASHED and v.postgres.role is Role.PRIMARY
    in_vain = _down_for_s(v) > GIVE_BACK_S
    allowed = v.policy.failover_on_crash and not v.policy.paused and not v.memory.took_back and not in_vain
    return died and allowed and bool(v.voters) and others_can_elect(v)


def another_can_lead(v: View) -> bool:
    """Some other published node is a running standby that may lead, and take over what I hand over whole."""
    members = v.cluster.members if v.cluster else ()
    named = v.cluster.failover.candidate if v.cluster and v.cluster.failover else None
    up = [m.name for m in members if m.name != v.me and m.state == "running" and m.role == "replica" and not m.nofailover]
    return any(name in v.voters or name == named for name in up) if votes.decide(v) else bool(up)


def others_can_elect(v: View) -> bool:
    """They can do it without me: q + 1 voters are up by what they published, one of which may lead; or, asynchronous, anybody is.

    Or an operator accepts the loss and has named somebody: that one can lead once the key is gone.
    """
    if not votes.decide(v):
        return another_can_lead(v)
    if _loss_is_accepted_for_another(v):
        return True
    members = v.cluster.members if v.cluster else ()
    up = [m for m in members if m.name in v.voters and m.state == "running" and m.role == "replica" and not m.leaving]
    return v.sync is not None and len(up) > v.sync.quorum and any(not m.nofailover for m in up)


def _loss_is_accepted_for_another(v: View) -> bool:
    f = v.cluster.failover if v.cluster else None
    member = v.cluster.member(f.candidate) if v.cluster and f else None
    if f is None or member is None or not f.accept_loss or f.leader is not None or f.candidate == v.me:
        return False
    return member.state == "running" and member.role == "replica" and not member.nofailover


def why_restarting_is_hopeless(v: View) -> str | None:
    """Crash loops, failing starts and promotions end the term, if somebody else can lead (HAZARDS G 99); otherwise go on trying.

    Counted within one term: who gave the key back and got it again, got it because nobody else could lead.
    """
    if not others_can_elect(v) or v.policy.paused or cannot_be_given_back(v):
        return None
    if len(v.memory.crashes) >= CRASHES_TO_RESIGN:
        return f"Postgres crashed {len(v.memory.crashes)} times"
    if v.failed("start") >= FAILURES_TO_RESIGN:
        return f"Postgres failed to start {v.failed('start')} times"
    if v.failed("promote") >= FAILURES_TO_RESIGN:
        return f"Postgres failed to promote {v.failed('promote')} times"
    if v.memory.start_took_too_long:
        return "Postgres did not start within primary_start_timeout"
    if v.policy.primary_start_timeout_s == 0 and v.postgres.state is State.CRASHED and not v.memory.took_back:
        return "Postgres crashed and primary_start_timeout is 0"
    return None
