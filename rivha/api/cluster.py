"""A Cluster as Patroni's `/cluster` JSON, for the API and for rivhactl's tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Set

from rivha.agent.brain.synchronous import confirmation
from rivha.agent.brain.view import View, upstream_of
from rivha.api.status import Json, restart_reasons, sync_kind_of
from rivha.model import Cluster, Lsn, Member, Policy, format_lsn

UNKNOWN = "unknown"


def cluster_json(cluster: Cluster, scope: str, in_force: Policy, told_by: View | None = None) -> Json:
    """`told_by`: the agent that answers; None: rivhactl, which knows no more than etcd says."""
    end, mode = end_of_wal(cluster), in_force.synchronous_mode
    document: Json = {"members": [_member_json(cluster, member, mode, end) for member in cluster.members], "scope": scope}
    if in_force.paused:
        document["pause"] = True
    degraded = why_degraded(cluster, in_force, told_by)
    if degraded:
        document["degraded"] = degraded
    request = cluster.failover
    if request is not None and request.scheduled_at:
        scheduled = {"at": request.scheduled_at, "from": request.leader, "to": request.candidate}
        document["scheduled_switchover"] = {key: value for key, value in scheduled.items() if value}
    if cluster.complaints:
        document["complaints"] = list(cluster.complaints)
    return document


def why_degraded(cluster: Cluster, in_force: Policy, told_by: View | None = None) -> str:
    """What the clients of a synchronous cluster miss, for people: commits that wait, or that only the leader holds; "" when all is well."""
    if in_force.synchronous_mode == "off" or cluster.leader is None:
        return ""
    leads = told_by is not None and told_by.me == cluster.leader.name
    waiting = _why_commits_wait(told_by, in_force) if told_by is not None and leads else _why_commits_seem_to_wait(cluster, in_force)
    if waiting:
        return waiting
    if why := why_sync_cannot_be_read(cluster):
        return why
    if cluster.sync is not None and cluster.sync.voters:
        return ""
    if in_force.synchronous_mode_strict:
        return "commits wait: there is no synchronous standby, and synchronous_mode_strict is on"
    name = cluster.leader.name
    return f"there is no synchronous standby: what {name} acknowledges now only {name} holds, and nobody else may lead"


def why_sync_cannot_be_read(cluster: Cluster) -> str:
    """Garbage in `sync` does not mean that there is no synchronous standby; "" when it can be read, or is not there."""
    found = next((complaint for complaint in cluster.complaints if complaint.startswith("sync: ")), "")
    return f"who holds the commits cannot be read: {found}" if found else ""


def _why_commits_wait(v: View, in_force: Policy) -> str:
    """By the leader's own eyes: too few of the standbys that are named in force stream, or have replied lately."""
    waited = confirmation(v)
    return _waiting("commits wait", waited.asked, waited.heard, waited.number, in_force) if waited is not None and waited.asked else ""


def _why_commits_seem_to_wait(cluster: Cluster, in_force: Policy) -> str:
    """By what the members publish. An agent that is gone says nothing of its Postgres, so this is never certain."""
    leader = cluster.member(cluster.leader.name) if cluster.leader else None
    sync = cluster.sync
    if leader is None or leader.role != "primary" or leader.state != "running" or sync is None or sync.leader != leader.name:
        return ""
    confirm = {m.name for m in cluster.members if m.name in sync.voters and m.state == "running" and m.replication_state == "streaming"}
    return _waiting("commits seem to wait", sync.voters, confirm, len(sync.voters) - sync.quorum, in_force)


def _waiting(verb: str, asked: Iterable[str], confirm: Set[str], number: int, in_force: Policy) -> str:
    if len(confirm) >= number:
        return ""
    names = sorted(asked)
    who = f"only {', '.join(sorted(confirm))} of {', '.join(names)} confirms them, and {number} must"
    if not confirm:
        who = f"none of {', '.join(names)} confirms them" if len(names) > 1 else f"{names[0]} does not confirm them"
    if in_force.synchronous_mode_strict and not confirm:
        return f"{verb}: {who}, and synchronous_mode_strict is on"
    return f"{verb}: {who}; who is away for degrade_after ({in_force.degrade_after_s:g} s) is left out then"


def end_of_wal(cluster: Cluster) -> Lsn:
    """The furthest position that the leader is known to have written."""
    leader = cluster.member(cluster.leader.name) if cluster.leader else None
    return max(cluster.optime, (leader.xlog_location or 0) if leader else 0)


def member_lsn(member: Member) -> Lsn | None:
    """How far its WAL goes, written or replayed; None when it published nothing."""
    known = [lsn for lsn in (member.xlog_location, member.receive_lsn, member.replay_lsn) if lsn is not None]
    return max(known, default=None)


def is_leader(cluster: Cluster, member: Member) -> bool:
    return cluster.leader is not None and cluster.leader.name == member.name


def _member_json(cluster: Cluster, member: Member, mode: str, end: Lsn) -> Json:
    leads = is_leader(cluster, member)
    document: Json = {
        "name": member.name,
        "role": "leader" if leads else sync_kind_of(cluster, member.name, mode) or "replica",
        "state": member.state if leads else (member.state == "running" and member.replication_state) or member.state,
        "api_url": member.api_url,
    }
    upstream = upstream_of(member)
    if upstream is not None:
        document |= {"host": upstream.host, "port": upstream.port}
    if member.timeline is not None:
        document["timeline"] = member.timeline
    if member.pending_restart:
        document |= {"pending_restart": True, "pending_restart_reason": restart_reasons(member.pending_restart)}
    if member.scheduled_restart:
        document["scheduled_restart"] = dict(member.scheduled_restart)
    if member.tags:
        document["tags"] = dict(member.tags)
    if member.problem:
        document["problem"] = member.problem
    document["lsn"] = _shown(member_lsn(member))
    if not leads:
        document |= _lags(member, end)
    return document


def _lags(member: Member, end: Lsn) -> Json:
    lags: Json = {"lag": _lag(member_lsn(member), end)}
    for word, lsn in (("receive", member.receive_lsn), ("replay", member.replay_lsn)):
        lags |= {f"{word}_lsn": _shown(lsn), f"{word}_lag": _lag(lsn, end)}
    return lags


def _shown(lsn: Lsn | None) -> str:
    return UNKNOWN if lsn is None else format_lsn(lsn)


def _lag(lsn: Lsn | None, end: Lsn) -> int | str:
    return UNKNOWN if lsn is None or not end else max(0, end - lsn)
