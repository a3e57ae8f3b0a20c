"""Whom the leader wants to hold its commits, and the one next change towards that. Facts for `leading`, `holding` and `upkeep`.

Only `quorum.next_step` decides about the order of changes; here it is decided who is a voter, and when one is given up.
"""

from __future__ import annotations

from dataclasses import dataclass

from rivha.agent.brain import quorum
from rivha.agent.brain.evidence import is_named
from rivha.agent.brain.quorum import Electors, Goal, Names, SetElectors, SetNames, Step, Wait
from rivha.agent.brain.view import View
from rivha.model import Member, Replication, Role


def next_step(v: View) -> Step | None:
    """What to change now of `sync` or of the names in force; None: nothing, or not by me, or not now."""
    if not _is_my_business(v):
        return _before_the_promotion(v)
    if v.sync is None or not v.i_am_the_holder:  # lost, or written by hand: whoever leads took the key and `sync` in one transaction
        return None if v.unreadable else SetElectors(quorum.NO_VOTERS)
    now, names = Electors(v.sync.voters, v.sync.quorum), v.postgres.synchronous_standby_names
    if v.sync_doubtful:
        return SetElectors(now)  # written anew: refuses what may still be on its way
    if not v.synchronous:
        return SetElectors(quorum.NO_VOTERS) if now.voters else None
    passed = v.memory.in_force is not None and v.memory.in_force.text == names and v.memory.in_force.passed
    goal = goal_of(v)
    step = quorum.next_step(now, Names.parse(names), goal, v.policy.synchronous_mode_strict, passed)
    if isinstance(step, SetElectors) and (strangers := step.electors.voters - now.voters - _streaming(v)):
        wait = Wait(f"{', '.join(sorted(strangers))} must stream from {v.me} first: what lies there may be another history")
        step = wait if goal is not None and strangers <= goal.members else SetElectors(quorum.NO_VOTERS)
    in_force = Names.parse(names)
    if in_force is not None and not v.postgres.names_confirmed and (isinstance(step, Wait) or (isinstance(step, SetNames) and now.voters)):
        return SetNames(in_force)  # an agent before me may have reloaded, and senders may go by a third setting: that one is seen off first
    return step


def _before_the_promotion(v: View) -> Step | None:
    """My Postgres may have stopped, and come back as a standby, in a leadership in which an agent here wrote `sync`."""
    waits = v.i_lead and v.running and v.postgres.role is Role.STANDBY and not v.busy
    return SetElectors(Electors(v.sync.voters, v.sync.quorum)) if waits and v.sync_doubtful and v.sync and v.i_am_the_holder else None


def _is_my_business(v: View) -> bool:
    """I lead, with a primary that runs and tells (one that refuses my password does not), and neither of us is on the way out."""
    p = v.postgres
    told = v.running and p.role is Role.PRIMARY and p.wal_lsn is not None
    return v.i_lead and told and not v.busy_with("stop", "handover", "restart")


def _streaming(v: View) -> frozenset[str]:
    return frozenset(r.application_name for r in v.postgres.replication if r.state == "streaming" and r.flush_lsn is not None)


def names_wanted(v: View) -> str | None:
    """The text to put in force now; None: what is in force stays. Mode off: the operator's, once `sync` has no voters (REFERENCE 1.8)."""
    step = next_step(v)
    if isinstance(step, SetNames):
        return step.names.text
    own = v.policy.own_standby_names
    settled = step is None and _is_my_business(v) and v.i_am_the_holder
    if v.synchronous or not settled or v.postgres.synchronous_standby_names == own:
        return None
    return own


def electors_wanted(v: View) -> Electors | None:
    """What `sync` is to say; None: it stays. Whoever asks for what it says already wants it written anew."""
    step = next_step(v)
    return step.electors if isinstance(step, SetElectors) else None


def names_to_promote_with(v: View) -> str:
    """A winner has no voters: nobody else may lead until these have flushed what it has (DESIGN 6.4), so whoever is about will do.

    Who leads again as the holder may have its voters of before; then what they require.
    """
    if v.i_am_the_holder and v.voters:
        return _names_of_the_voters(v)
    if not v.synchronous:
        return v.policy.own_standby_names
    members = v.cluster.members if v.cluster else ()
    names = frozenset(m.name for m in members if _may_vote(v, m) and m.state == "running" and m.role == "replica")
    if names:
        return Names(names, 1).text
    return (quorum.BLOCK if v.policy.synchronous_mode_strict else quorum.NOBODY).text


def _names_of_the_voters(v: View) -> str:
    assert v.sync is not None
    return Names(v.voters, len(v.voters) - v.sync.quorum).text


# ---- who is to hold the commits --------------------------------------------------------------------------------------------------


def goal_of(v: View) -> Goal | None:
    """None: nobody is left."""
    count = v.policy.synchronous_node_count
    if v.policy.synchronous_mode == "on":
        names = frozenset(_preferred(v)[:count])
        return Goal(names, len(names), True) if names else None
    able = _preferred(v)
    may_lead = [name for name in able if _may_take_over(v, name)]
    names = frozenset(may_lead if len(may_lead) >= count else able[:count])
    return Goal(names, min(count, len(names)), False) if names else None


def _preferred(v: View) -> list[str]:
    """Those who may lead first, then by sync_priority, then who is a voter already, then the most advanced (REFERENCE 1.8)."""
    rows = {row.application_name: row for row in v.postgres.replication}
    named = _named_now(v)

    def key(name: str) -> tuple[bool, int, bool, int, str]:
        member, row = _member(v, name), rows.get(name)
        return not _may_take_over(v, name), -_priority(member), name not in named, -(row.flush_lsn or 0) if row else 0, name

    return sorted((name for name in {*rows, *named} if _is_able(v, name, rows.get(name))), key=key)


def _named_now(v: View) -> frozenset[str]:
    names = Names.parse(v.postgres.synchronous_standby_names)
    return v.voters | (names.members if names else frozenset()) - {"*", quorum.PLACEHOLDER}


def _is_able(v: View, name: str, row: Replication | None) -> bool:
    """A strict cluster keeps a voter that is out of reach while nobody can replace it: commits wait either way, and it may elect yet.

    A voter whose agent has vanished still holds commits, and stays if nobody better is there; who never was one must be a member.
    """
    member, known = v.cluster.member(name) if v.cluster else None, name in _named_now(v)
    if v.policy.synchronous_mode_strict and name in v.voters and not (member and member.leaving) and not _others_stream(v, name):
        return True
    if not (known or member) or not _may_vote(v, member or Member(name)) or _lags(v, row) or is_lost(v, name):
        return False
    return known or (row is not None and row.state == "streaming" and row.flush_lsn is not None)


def _may_take_over(v: View, name: str) -> bool:
    member = v.cluster.member(name) if v.cluster else None
    return member is not None and not member.nofailover


def _others_stream(v: View, name: str) -> bool:
    """Members only: a clone under way and pg_receivewal stream, too, and replace nobody."""
    streaming = (r.application_name for r in v.postgres.replication if r.state == "streaming")
    return any(other != name and v.cluster and v.cluster.member(other) and not is_lost(v, other) for other in streaming)


def is_lost(v: View, name: str) -> bool:
    """It has shown no new reply for `degrade_after`; while its connection stands, replies are a second apart, and looks a beat."""
    reply = v.memory.replies.get(name)
    connected = any(row.application_name == name for row in v.postgres.replication)
    last = max(v.memory.primary_since or 0.0, (reply.changed_at or 0.0) if reply else 0.0)
    return v.now - last >= v.policy.degrade_after_s + (v.policy.loop_wait_s if connected else 0.0)


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What commits wait for: `number` of `asked`, of whom `heard` stream and have replied lately.

    `lost`: none of them has for degrade_after, or nobody is asked and commits are held back all the same.
    """

    asked: frozenset[str]
    heard: frozenset[str]
    number: int
    lost: bool


def confirmation(v: View) -> Confirmation | None:
    """By the eyes of a primary that runs, and by the names in force there. None: commits wait for nobody, or it is not known."""
    names = Names.parse(v.postgres.synchronous_standby_names)
    if not v.running or v.postgres.role is not Role.PRIMARY or names is None:
        return None
    asked = names.members - {quorum.PLACEHOLDER, "*"}
    heard = frozenset(name for name in _streaming(v) if is_named(name, names) and not is_lost(v, name))
    return Confirmation(asked, heard, names.number, "*" not in names.members and all(is_lost(v, name) for name in asked))


def _lags(v: View, row: Replication | None) -> bool:
    """maximum_lag_on_syncnode: a stuck voter gives way, if somebody else is there to take its place."""
    limit = v.policy.maximum_lag_on_syncnode
    if limit < 0 or row is None or row.flush_lsn is None or v.postgres.wal_lsn is None:
        return False
    return v.postgres.wal_lsn - row.flush_lsn > limit and _others_stream(v, row.application_name)


def _may_vote(v: View, member: Member) -> bool:
    return member.name != v.me and not member.tags.get("nosync") and not member.leaving


def _member(v: View, name: str) -> Member:
    return (v.cluster.member(name) if v.cluster else None) or Member(name)


def _priority(member: Member) -> int:
    priority = member.tags.get("sync_priority", 1)
    return priority if isinstance(priority, int) else 1


# ---- a voter that wants to go ----------------------------------------------------------------------------------------------------


def why_i_leave_the_voters(v: View) -> str | None:
    """A voter never gives up its data, and does not go, while `sync` counts on it: the leader takes it out first (DESIGN 10)."""
    if v.me not in v.voters or v.other_leader is None:
        return None
    return why_i_am_no_voter(v)


def why_i_am_no_voter(v: View) -> str | None:
    """What a standby says of itself for as long as it is so, lest it be made a voter again while it gives its data up."""
    if v.stopping and not v.policy.paused:
        return "the agent ends"
    if v.wish("reinitialize") is not None:
        return "an operator asked to clone this node anew"
    if not v.has_data:
        return f"its data directory is {v.postgres.data.value}"
    compared = v.memory.history if v.memory.compared_term == v.memory.last_term else ""
    if compared == "diverged":
        return "its WAL left the leader's history"
    # Only who is none yet: one that is stays, for the tenths of a second that an agent's restart costs.
    if v.me not in v.voters and v.streams_what_may_be_another_history and not compared:
        return "its history has not been compared with the leader's yet"
    return None
