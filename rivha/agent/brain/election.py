"""Who may stand, who is best, and when the best one acts. All candidates see the same frozen pledges in etcd and so agree.

In asynchronous mode everybody eligible may pledge, and winning needs the leader key to be gone. In a synchronous mode only those win who
provably hold every acknowledged commit (`votes.py`), and for that the key may still stand.
"""

from __future__ import annotations

from rivha.agent.brain import votes
from rivha.agent.brain.view import View
from rivha.model import Lsn, Member, Pledge, Role, format_lsn

GRACE_S = 3.0  # how long a resigned leader's candidate, or an operator's, is waited for
TELL_AFTER_S = 2.0  # an election that has lasted so long wants to be explained; most are over in a third of a second
PREFERRED_S = 0.6  # where any voter may win at once, one of higher priority gets so long: its own probe tells it half a second later
HOLD_BACK_S = 1.0  # each rank below the best waits this much longer, should the best one have died meanwhile


def patience_s(v: View) -> float:
    """How long a candidate waits for the pledges of others that it knows: they may wake only at their next beat."""
    return v.policy.loop_wait_s + 0.5


def leaderless_for_s(v: View) -> float:
    since = v.memory.leaderless_since
    return 0.0 if since is None else v.now - since


def standing_for_s(v: View) -> float:
    """What patience is counted from: after a pause, a forgiven lag or garbage in etcd all pledge together, long after the key had gone."""
    since = v.memory.standing_since
    return 0.0 if since is None else v.now - since


def named_candidate(v: View) -> str | None:
    """Whom the resigned leader or an operator wants, while that node is published and the grace lasts."""
    c = v.cluster
    if c is None or (leaderless_for_s(v) if v.nobody_leads else standing_for_s(v)) > GRACE_S:
        return None
    resigned = c.resigned.candidate if c.resigned and c.resigned.term >= v.memory.last_term else None
    name = resigned or (c.failover.candidate if c.failover and not c.failover.scheduled_at else None)
    member = c.member(name)
    return name if member is not None and not (member.nofailover and not resigned) else None


def operator_named_me(v: View) -> bool:
    """A manual failover to me: the operator has taken the lag upon himself (REFERENCE 1.5), and may know that nothing better is left."""
    f = v.cluster.failover if v.cluster else None
    return f is not None and f.candidate == v.me and f.leader is None and not f.scheduled_at


def least_lsn(v: View) -> Lsn:
    """What a candidate must hold: the last published position less the allowed lag, and a shutdown checkpoint that was named."""
    c = v.cluster
    if c is None:
        return 0
    allowed = c.optime - v.policy.maximum_lag_on_failover
    promised = c.resigned.lsn + 1 if c.resigned and c.resigned.candidate and leaderless_for_s(v) <= GRACE_S else 0
    return max(0, allowed, promised)


def why_i_was_not_elected(v: View) -> str | None:
    """Of a standby that runs, while the key names it: who wins is frozen, and writes its own name to `sync` in the same transaction."""
    if v.postgres.upstream is not None:
        return f"I follow {v.postgres.upstream}"
    if v.memory.cut_loose:
        return "I stream from nobody only until I know whom to follow"
    if v.sync is not None and not v.i_am_the_holder:
        return f"{v.sync.leader or 'nobody'} holds the commits"
    return None


def history_forbids(v: View, timeline: int | None) -> str | None:
    """A node of an older history must not lead: a later leader has acknowledged writes that it lacks (HAZARDS A 25)."""
    lines = v.cluster.history if v.cluster else ()
    if lines and timeline is not None and timeline <= lines[-1].timeline:
        return f"my timeline {timeline} ended at {format_lsn(lines[-1].lsn)}; the cluster went on without it"
    return None


def timeline_ended_at(v: View, timeline: int | None) -> Lsn | None:
    """Where the cluster left that timeline: what lies beyond is an old primary's tail that a later leader never had."""
    lines = v.cluster.history if v.cluster else ()
    return next((line.lsn for line in lines if line.timeline == timeline), None)


def why_i_may_not_stand(v: View) -> str | None:
    """The reason, in words for the on-call engineer, or None."""
    c, p = v.cluster, v.postgres
    if c is None:
        return "etcd does not answer"
    if v.unreadable:
        return f"etcd holds what I cannot read: {v.unreadable}"
    if Member(v.me, tags=v.tags).nofailover and not votes.is_voter(v):
        return "tag nofailover"
    if v.unfit and not votes.is_voter(v):
        return v.unfit
    if not (v.running and p.role is Role.STANDBY):
        problem = f": {v.problem}" if v.problem else ""
        return f"my Postgres is {'no standby' if v.running else p.state.value}{problem}"
    if not v.has_data:
        return "my data directory is unfinished or cannot be used"
    if not v.data_is_of_this_cluster:
        return "my data directory belongs to another cluster"
    return _why_my_wal_does_not_do(v)


def _why_my_wal_does_not_do(v: View) -> str | None:
    pledge = v.my_pledge
    mine = pledge.lsn if pledge else max(v.postgres.receive_lsn or 0, v.postgres.replay_lsn or 0)
    timeline = pledge.timeline if pledge else v.postgres.timeline
    by_votes = votes.decide(v)
    if votes.loss_is_accepted(v) or (operator_named_me(v) and not by_votes):
        return None
    if v.memory.history == "diverged" and v.memory.compared_term == v.memory.last_term:
        return "my WAL left the leader's history"
    if (ended := timeline_ended_at(v, timeline)) is not None and mine > ended:
        return f"my WAL ends at {format_lsn(mine)}, but the cluster left timeline {timeline} at {format_lsn(ended)}"
    if by_votes:
        return votes.why_i_have_none(v) or _why_my_wal_is_nobodys(v)
    if v.policy.check_timeline and (timeline is None or history_forbids(v, timeline)):
        return history_forbids(v, timeline) or "my timeline is not known"
    if mine < least_lsn(v):
        return f"{least_lsn(v) - mine} bytes behind what a leader must hold (my end {format_lsn(mine)})"
    return None


def _why_my_wal_is_nobodys(v: View) -> str | None:
    """A voter promoted by hand ranks first, by a timeline of its own that lacks what the others have acknowledged since (HAZARDS B 35)."""
    return "my Postgres was a primary while another led, and has not streamed since" if v.memory.strayed else None


def may_stand(v: View, pledge: Pledge) -> bool:
    """Another node's pledge counts in the ranking while its writer is published, and may lead."""
    member = v.cluster.member(pledge.name) if v.cluster else None
    if member is None or member.nofailover:
        return False
    return votes.why_not_enough(v, pledge) is None if votes.decide(v) else pledge.lsn >= least_lsn(v)


def ranking(v: View) -> tuple[Pledge, ...]:
    """The pledged candidates, best first: timeline, LSN, failover_priority, then name (DESIGN 6.3)."""
    c = v.cluster
    if c is None:
        return ()

    def key(p: Pledge) -> tuple[int, int, int, str]:
        member = c.member(p.name) if p.name != v.me else Member(v.me, tags=v.tags)
        return -p.timeline, -p.lsn, -(member.failover_priority if member else 1), p.name

    return tuple(sorted((p for p in c.pledges if p.name == v.me or may_stand(v, p)), key=key))


def awaited(v: View) -> tuple[str, ...]:
    """Who could still pledge and be better than I: published or remembered, may lead, has not pledged.

    Who led last is gone, unless it says that it runs again, as a standby: then it has the most of all.
    """
    c = v.cluster
    if c is None:
        return ()
    names = (v.memory.last_members - {v.memory.last_leader}) | {m.name for m in c.members}
    others = names - {v.me} - {p.name for p in c.pledges}
    return tuple(sorted(n for n in others if _could_stand(c.member(n))))


def _could_stand(member: Member | None) -> bool:
    """A member whose key vanished may come back at any moment; one that says that it cannot lead is not waited for."""
    return member is None or (not member.nofailover and member.state == "running" and member.role == "replica")


def why_i_hold_back(v: View) -> str | None:
    """None: the moment to win is now. Everybody ranks the same pledges, so at most one candidate gets None at first."""
    by_votes = votes.decide(v)
    if by_votes and (why := votes.why_i_may_not_win(v)):
        return why
    named = named_candidate(v)
    if named == v.me:
        return None
    if named is not None:
        return f"{named} was named to take over"
    order = ranking(v)
    place = next((i for i, p in enumerate(order) if p.name == v.me), len(order))
    waited, patience = standing_for_s(v), 0.0 if by_votes else patience_s(v)
    if place > 0 and waited < patience + HOLD_BACK_S * place:
        return f"{order[0].name} ranks before me (timeline {order[0].timeline}, {format_lsn(order[0].lsn)})"
    late, limit = (_preferred_voters(v), PREFERRED_S) if by_votes else (awaited(v), patience)
    if late and waited < limit:
        return "waiting for the pledge of " + ", ".join(late)
    return None


def _preferred_voters(v: View) -> list[str]:
    """Who has not pledged, and is to lead rather than I (HAZARDS B 28)."""
    mine = Member(v.me, tags=v.tags).failover_priority
    members = [v.cluster.member(name) for name in awaited(v) if name in v.voters] if v.cluster else []
    return [member.name for member in members if member is not None and member.failover_priority > mine]


def why_i_do_not_take_over(v: View) -> str:
    """For people, once an election has lasted for a while, also with the lost leader's key still there; "" when there is nothing to say."""
    silent_s = v.witness.silent_s - v.policy.suspect_after_s if v.witness else 0.0
    if not votes.is_open(v) or v.policy.paused or v.is_primary or (leaderless_for_s(v) if v.nobody_leads else silent_s) < TELL_AFTER_S:
        return ""
    why = why_i_may_not_stand(v) or (why_i_hold_back(v) if v.my_pledge else None)
    return f"not eligible: {why}" if why else ""
