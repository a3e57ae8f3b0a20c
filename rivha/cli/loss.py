"""What a failover to a member may cost, in bytes and seconds, for people who are about to confirm it. Used by `act`; decides nothing.

Both are of what is known: the leader publishes its position once a loop_wait, and what it wrote after that nobody can tell.
"""

from __future__ import annotations

import json
from datetime import datetime

from rivha.api.cluster import end_of_wal, member_lsn
from rivha.cli.place import Agents, Failed, UnreachableError
from rivha.model import Cluster, Member, format_lsn

ASK_S = 3.0


async def loss(agents: Agents, cluster: Cluster, candidate: str) -> list[str]:
    """Sentences for people. Empty for a candidate that is no member: it will be refused."""
    member = cluster.member(candidate)
    if member is None:
        return []
    return [in_bytes(cluster, member), await _in_seconds(agents, member)]


def of_the_old_leader(cluster: Cluster, candidate: str) -> list[str]:
    """What who gives up commits must know of the node that may alone hold them; empty when that is the candidate, or that no member."""
    name = cluster.leader.name if cluster.leader else cluster.sync.leader if cluster.sync else None
    if name == candidate or cluster.member(candidate) is None:
        return []
    old = name or "whoever led last"
    demoted = f"{old} is demoted if it reaches etcd. If it does not, make" if cluster.leader else "Make"
    return [
        f"{demoted} sure that {old} is down, and stays down until it reaches etcd again: else its clients go on writing what will be lost.",
        f"The data directory of {old} is rewound when its agent starts, or follows: copy it before, to look at what it alone holds.",
    ]


def in_bytes(cluster: Cluster, member: Member) -> str:
    mine, end = member_lsn(member), end_of_wal(cluster)
    if mine is None or not end:
        return f"What may be lost is not known: {member.name if mine is None else 'the leader'} has published no position."
    behind = max(0, end - mine)
    ends = f"{member.name} ends at {format_lsn(mine)}, the leader's WAL at {format_lsn(end)} or after it"
    if behind:
        return f"{ends}: {behind} bytes ({behind / (1 << 20):.1f} MB) are lost, and what the leader wrote since it published that."
    return f"{ends}: only what the leader wrote since it published that can be lost."


async def _in_seconds(agents: Agents, member: Member) -> str:
    try:
        status, text = await agents.ask(member, "GET", "/patroni", timeout_s=ASK_S)
    except (UnreachableError, Failed) as why:
        return f"How old its last transaction is, is not known: {why}"
    return in_seconds(member.name, text if status == 200 else "")


def in_seconds(name: str, answer: str) -> str:
    """From an agent's `/patroni`: by its own clock on both sides."""
    try:
        found = json.loads(answer)
        last = datetime.fromisoformat(found["xlog"]["replayed_timestamp"]).timestamp()
        age_s = max(0.0, float(found["dcs_last_seen"]) - last)
    except (ValueError, TypeError, KeyError):
        return f"How old {name}'s last transaction is, is not known."
    return (
        f"The last transaction that {name} has applied is {age_s:.0f} s old; of what was committed after it, it has what it has received."
    )
