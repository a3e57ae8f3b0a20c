"""Switchover and failover as an operator asks for them: is it possible, and what became of it. Pure; used by `control`.

The leader asks itself the same question again when it sees the request; a refusal here only saves the operator the wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from rivha.agent.brain.leading import why_not_switch_over
from rivha.agent.brain.view import View
from rivha.api.bodies import SwitchBody, parse_instant
from rivha.api.cluster import why_sync_cannot_be_read
from rivha.api.reply import Reply, as_text
from rivha.model import Cluster, FailoverRequest


@dataclass(frozen=True, slots=True)
class Switch:
    """A request that was filed."""

    action: str  # switchover or failover
    before: str | None  # who led when it was filed
    candidate: str | None
    filed_at: float  # monotonic: when etcd had confirmed it


def refuse(view: View, action: str, body: SwitchBody, wall_now: float) -> Reply | None:
    """Why this cannot be asked for now (400, 412 or 503), or None."""
    cluster = view.cluster
    if cluster is None:
        return as_text(503, f"{action} is not possible: etcd does not answer this node")
    mistake = _mistake(view, action, body, wall_now)
    if mistake is not None:
        return mistake
    why = _why_not(view, cluster, action, body)
    if why is not None:
        return as_text(412, f"{action} is not possible: {why}")
    pending = cluster.failover
    if pending is not None and pending.scheduled_at is None and cluster.leader is not None:
        text = f"a request to {pending.candidate or 'any replica'} is under way; DELETE /switchover withdraws it"
        return as_text(503, f"{action} is not possible: {text}")
    return None


def is_settling(view: View, body: SwitchBody) -> bool:
    """What stands in the way of a switchover is gone in a moment: a new leader has no voters before they have what it has (DESIGN 6.4)."""
    cluster = view.cluster
    if cluster is None or cluster.leader is None or not view.synchronous or view.voters or body.leader != cluster.leader.name:
        return False
    if why_sync_cannot_be_read(cluster):
        return False
    others = [m for m in cluster.members if m.name != cluster.leader.name and body.candidate in (None, m.name)]
    return any(m.role == "replica" and m.state in ("running", "starting") and not m.nofailover for m in others)


def _mistake(view: View, action: str, body: SwitchBody, wall_now: float) -> Reply | None:
    """What is wrong with the request whatever the cluster's state; Patroni's texts, as scripts match them."""
    planned, title = action == "switchover", action.capitalize()
    if planned and not body.leader:
        return as_text(400, "Switchover could be performed only from a specific leader")
    if not planned and not body.candidate:
        return as_text(400, "Failover could be performed only to a specific candidate")
    if not planned and body.scheduled_at:
        return as_text(400, "Failover can't be scheduled")
    if planned and body.accept_loss:
        return as_text(400, "accept_loss is for a failover; a switchover loses nothing")
    if body.leader and body.leader == body.candidate:
        return as_text(400, f"{title} target and source are the same")
    if view.policy.paused and body.scheduled_at:
        return as_text(400, "Can't schedule switchover in the paused state")
    if view.policy.paused and not body.candidate:
        return as_text(400, "Switchover is possible only to a specific candidate in a paused state")
    if body.scheduled_at:
        instant = parse_instant(body.scheduled_at, "switchover", wall_now)
        return instant if isinstance(instant, Reply) else None
    return None


def _why_not(view: View, cluster: Cluster, action: str, body: SwitchBody) -> str | None:
    leader = cluster.leader.name if cluster.leader else None
    if body.leader and body.leader != leader:
        return f"leader name does not match: {f'{leader} leads' if leader else 'nobody leads'}"
    others = [member.name for member in cluster.members if member.name != leader]
    if body.candidate:
        if body.candidate == leader:
            return f"{leader} is the leader already"
        if body.candidate not in others:
            return f"candidate does not exists: there is no member {body.candidate}"
        if action == "switchover" and (why := _not_synchronous(view, cluster, body.candidate)):
            return why
        if action == "failover" and not body.accept_loss:
            why = why_it_may_lose(cluster, view.policy.synchronous_mode, body.candidate)
            if why is not None:
                return f"{why}; accept_loss (rivhactl failover --accept-loss) promotes it all the same"
        others = [body.candidate]
    if not others:
        return "cluster does not have members except leader"
    obstacles = {name: _obstacle(view, cluster, action, leader, name) for name in others}
    if all(obstacles.values()):
        return "no good candidates have been found: " + "; ".join(filter(None, obstacles.values()))
    if not body.candidate and (view.synchronous or view.voters) and all(why for name, why in obstacles.items() if name in view.voters):
        why = why_sync_cannot_be_read(cluster) or "there is no synchronous standby"
        return f"no other member can take over: {why}"  # the leader, who names nobody, leaves it to the voters
    return None


def _not_synchronous(view: View, cluster: Cluster, candidate: str) -> str | None:
    if view.policy.synchronous_mode != "on" or cluster.sync is None or candidate in cluster.sync.voters:
        return None
    return "candidate name does not match with sync_standby"


def why_it_may_lose(cluster: Cluster, mode: str, candidate: str) -> str | None:
    """Why acknowledged commits may be missing after a failover to this member. None: none are, or (`mode` off) none were promised to be."""
    sync = cluster.sync
    voters = sync.voters if sync is not None else frozenset()
    if (mode == "off" and not voters) or candidate in voters or (sync is not None and sync.leader == candidate):
        return None
    holders = ", ".join(sorted(voters)) or (f"only {sync.leader}" if sync is not None and sync.leader else "nobody known")
    return f"{candidate} is no synchronous standby and may lack acknowledged commits, which {holders} held last"


def _obstacle(view: View, cluster: Cluster, action: str, leader: str | None, name: str) -> str | None:
    """The leader's own question when there is one; without a leader, whether this member may be promoted at all."""
    if leader is not None:
        planned = action == "switchover"
        return why_not_switch_over(view, FailoverRequest(leader if planned else None, name, None, 0, accept_loss=not planned))
    member = cluster.member(name)
    assert member is not None, "the caller took the name from the members"
    if member.nofailover:
        return f"{name} has the tag nofailover"
    return None if member.state == "running" and member.role == "replica" else f"{name} is no running replica"


def outcome(switch: Switch, view: View | None) -> Reply | None:
    """What became of it, once a read that etcd answered after the filing shows it; None: go on waiting."""
    if view is None or view.cluster is None or view.cluster_seen_at is None or view.cluster_seen_at <= switch.filed_at:
        return None
    cluster, planned = view.cluster, switch.action == "switchover"
    leader = cluster.leader.name if cluster.leader else None
    if leader is not None and leader != switch.before:
        done = "switched" if planned else "failed"
        if switch.candidate in (None, leader):
            return as_text(200, f'Successfully {done} over to "{leader}"')
        return as_text(200, f'{done.capitalize()} over to "{leader}" instead of "{switch.candidate}"')
    if leader is not None and cluster.failover is None:
        return as_text(503, f"{switch.action.capitalize()} failed: {leader} dropped the request; its log and /journal say why")
    return None
