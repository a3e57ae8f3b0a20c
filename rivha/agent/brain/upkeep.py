"""The third, quiet question: which chores are due? Each is a value; doing one twice is harmless, and leaving one out costs a tick.

Publishing, restoring what etcd lost, clearing requests, slots, configuration. Nothing here changes who leads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias

from rivha.agent.brain import synchronous
from rivha.agent.brain.election import why_i_do_not_take_over
from rivha.agent.brain.leading import why_not_switch_over
from rivha.agent.brain.quorum import Electors
from rivha.agent.brain.view import View
from rivha.model import Data, FailoverRequest, Lsn, Member, Role, State

LSN_EVERY_S = 2.0  # a member's moving positions alone are published no more often: at most 3 requests a second and agent
CHECKPOINT_AGAIN_S = 10.0  # one that failed: Postgres' own comes within checkpoint_timeout, mostly minutes
STALE_REQUEST_S = 10.0  # a scheduled request later than this past its time is dropped


@dataclass(frozen=True, slots=True)
class Publish:
    """My member key and, when I lead, the leader's position, in one transaction."""

    member: Member | None
    status: bool
    optime: Lsn = 0
    slots: Mapping[str, Lsn] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restore:
    """Write `initialize` and `config` again after etcd lost them; the running leader only (HAZARDS A 16)."""

    initialize: str | None
    config: bool


@dataclass(frozen=True, slots=True)
class RecordVoters:
    """Who may elect from now on. The one chore that the promise hangs on: guarded by the term and by `sync` as read."""

    electors: Electors


@dataclass(frozen=True, slots=True)
class HoldSynchronously:
    """Says, or takes back, that I go by a synchronous mode."""

    on: bool


@dataclass(frozen=True, slots=True)
class ClearFailover:
    why: str


@dataclass(frozen=True, slots=True)
class WriteHistory:
    """The timelines that ended before mine, from the local history file."""

    timeline: int


@dataclass(frozen=True, slots=True)
class Configure:
    """The dynamic configuration in etcd is another than the one in force here."""

    revision: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Whoever must rewind waits until the control file here names this timeline (HAZARDS B 32)."""

    timeline: int


@dataclass(frozen=True, slots=True)
class KeepSlots:
    wanted: frozenset[str]  # member names
    advance: Mapping[str, Lsn]


@dataclass(frozen=True, slots=True)
class RefuseWish:
    number: int
    why: str


Chore: TypeAlias = (
    Publish | Restore | RecordVoters | HoldSynchronously | ClearFailover | WriteHistory | Configure | Checkpoint | KeepSlots | RefuseWish
)


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """What the performer did so far, so that chores are not repeated each tick."""

    my_slot: str = ""  # the name of the slot that I would have on another leader
    published: Member | None = None
    published_at: float = float("-inf")
    held_term: int = 0  # the leadership in which `rivha/synchronous` was written by me, and nothing of unknown outcome since
    history_term: int = 0  # the leadership in which the history was last written
    recorded_on: int = -1  # the reading on which the last such write of mine rests: it is not in it
    sync_settled: bool = False  # no write of `sync` of mine can be carried out yet: the last one was, or I have been seen not to lead since
    optime: Lsn = 0
    slots: Mapping[str, Lsn] = field(default_factory=dict)
    configured_revision: int = 0
    checkpoint: Checkpoint | None = None  # the last one that was asked for
    checkpoint_at: float = float("-inf")  # when it was
    slots_kept: KeepSlots | None = None
    slots_kept_at: float = float("-inf")
    slots_seen: Mapping[str, float] = field(default_factory=dict)  # member -> when it was last published, for member_slots_ttl


def upkeep(v: View, me: Member, h: Housekeeping) -> tuple[Chore, ...]:
    """`me`: this node as it would be published now, its addresses filled in by the agent."""
    if v.cluster is None:
        return ()
    return tuple(chore for group in (_voters(v, h), _publishing(v, me, h), _leaders(v, h), _slots(v, h), _wishes(v)) for chore in group)


def describe(v: View, base: Member, scheduled_restart: Mapping[str, object] | None = None) -> Member:
    """My member key: `base` has the name, addresses, version and tags; the rest is what the View shows."""
    p = v.postgres
    standby = p.role is Role.STANDBY
    end = max(p.receive_lsn or 0, p.replay_lsn or 0) if standby else p.wal_lsn
    streaming = "streaming" if p.streaming else ("in archive recovery" if p.archive_recovery else None)
    return replace(
        base,
        role=_role_word(v),
        state=state_word(v),
        timeline=p.timeline,
        xlog_location=end,
        receive_lsn=p.receive_lsn if standby else None,
        replay_lsn=p.replay_lsn if standby else None,
        replication_state=streaming if standby and p.state is State.RUNNING else None,
        pending_restart=p.pending_restart,
        scheduled_restart=scheduled_restart,
        paused=v.policy.paused,
        problem=why_i_do_not_take_over(v) or ("" if v.busy or p.state is State.STARTING else v.problem),
        leaving=(v.synchronous or bool(v.voters)) and not v.key_is_mine and synchronous.why_i_am_no_voter(v) is not None,
        succeeded=(v.term, v.memory.succeeded) if v.key_is_mine else None,
        checkpoint_after_promote=False if p.checkpoint_due else None,
    )


def _role_word(v: View) -> str:
    if v.postgres.data in (Data.EMPTY, Data.UNFINISHED):
        return "uninitialized"
    if v.postgres.role is Role.PRIMARY:
        return "primary" if v.key_is_mine or v.running else "demoted"
    return "replica"


JOB_WORDS = {
    "bootstrap": "initializing new cluster",
    "clone": "creating replica",
    "rewind": "running pg_rewind",
    "restart": "restarting",
    "handover": "stopping",
}


def state_word(v: View) -> str:
    """Patroni's words (REFERENCE 1.15); a job under way says more than what it does to Postgres meanwhile."""
    if v.busy and v.job is not None and v.job.kind in JOB_WORDS:
        return JOB_WORDS[v.job.kind]
    if v.down and v.has_data and v.failed("start"):
        return "start failed"
    return (
        "unresponsive" if v.postgres.state is State.SILENT else v.postgres.state.value
    )  # Patroni would say running: nobody may count on it


def _voters(v: View, h: Housekeeping) -> Iterator[Chore]:
    """One change at a time, and none while the names are on their way."""
    electors = synchronous.electors_wanted(v) if not v.busy_with("synchronize") else None
    if electors is not None:
        yield RecordVoters(electors)
    elif _leads_otherwise_than_it_says(v, h):
        yield HoldSynchronously(v.synchronous)


def _leads_otherwise_than_it_says(v: View, h: Housekeeping) -> bool:
    """Once a term, too: what an agent before me sent may be carried out yet, and is refused by the new revision. Off: without voters."""
    leads = v.i_lead and v.i_am_the_holder and v.running and v.postgres.role is Role.PRIMARY and not v.unreadable
    if v.synchronous:
        return leads and (not v.is_held_synchronously or h.held_term != v.term)
    return leads and v.is_held_synchronously and not v.voters


def _publishing(v: View, me: Member, h: Housekeeping) -> Iterator[Chore]:
    """Changes at once; positions that only move, every LSN_EVERY_S."""
    vanished = v.my_member is None or v.my_member.lease_id != v.member_lease_id
    due = v.now - h.published_at >= LSN_EVERY_S
    changed = h.published is None or _with_positions_of(h.published, me) != h.published
    member = me if changed or vanished or (due and me != h.published) else None
    i_lead = v.i_lead and v.postgres.role is Role.PRIMARY and v.running
    optime = v.postgres.wal_lsn or h.optime  # a Postgres that refuses us does not tell
    slots = {**v.postgres.slots, **({h.my_slot: optime} if h.my_slot else {})}  # REFERENCE 1.18: the own member's too
    status = bool(i_lead and optime) and (due or member is not None) and (optime != h.optime or slots != h.slots)
    if member is not None or status:
        yield Publish(member, status, optime, slots)


def _with_positions_of(other: Member, m: Member) -> Member:
    return replace(m, xlog_location=other.xlog_location, receive_lsn=other.receive_lsn, replay_lsn=other.replay_lsn)


def _leaders(v: View, h: Housekeeping) -> Iterator[Chore]:
    """Only who leads with a running primary keeps the cluster's records."""
    c, p = v.cluster, v.postgres
    if c is None or not (v.i_lead and v.running and p.role is Role.PRIMARY) or v.busy_with("stop", "handover"):
        return
    if (c.initialize is None and p.system_id) or (c.config is None and c.config_revision == 0):
        yield Restore(p.system_id if c.initialize is None else None, c.config is None)
    # Once a term, since twins of a timeline differ in where it began; and again when etcd has lost it or I was promoted twice in one term.
    if p.timeline is not None and p.timeline > 1 and (h.history_term != v.term or not c.history or c.history[-1].timeline < p.timeline - 1):
        yield WriteHistory(p.timeline)
    if p.checkpoint_due and p.timeline is not None:  # an agent before this one may have promoted, and died before it was done
        checkpoint = Checkpoint(p.timeline)
        if h.checkpoint != checkpoint or v.now - h.checkpoint_at >= CHECKPOINT_AGAIN_S:
            yield checkpoint
    if c.failover is not None and (why := _why_the_request_is_over(v, c.failover)):
        yield ClearFailover(why)


def _why_the_request_is_over(v: View, request: FailoverRequest) -> str | None:
    """Done, or never to be done. A request that merely has to wait for its time stays."""
    assert v.cluster is not None
    if request.candidate == v.me or (request.candidate is None and request.leader not in (None, v.me)):
        return "done"
    if request.scheduled_at is not None:
        try:
            late = v.wall - datetime.fromisoformat(request.scheduled_at).timestamp()
        except (ValueError, OverflowError):
            return f"scheduled_at {request.scheduled_at!r} is no date with a time zone"
        if late < 0:
            return None
        if late > max(STALE_REQUEST_S, 1.5 * v.policy.loop_wait_s):
            return f"its time passed {late:.0f} s ago"
    return why_not_switch_over(v, request)


def settings(v: View, h: Housekeeping) -> tuple[Chore, ...]:
    """Due before anything is done to Postgres, so that it starts with the configuration of today.

    A config key that is gone changes nothing: the last known configuration stays in force (HAZARDS A 16). A directory of another cluster
    is not written to.
    """
    c = v.cluster
    if not v.data_is_of_this_cluster:
        return ()
    if c is not None and c.config is not None and c.config_revision != h.configured_revision and not v.busy:
        return (Configure(c.config_revision),)
    return ()


def _slots(v: View, h: Housekeeping) -> Iterator[Chore]:
    """A slot per member on the leader and on each standby, kept for member_slots_ttl after the member was last seen (REFERENCE 1.12)."""
    c = v.cluster
    if c is None or not v.policy.use_slots or not v.running or v.policy.paused or v.busy or v.nobody_leads:
        return
    seen = h.slots_seen
    names = {m.name for m in c.members} | {n for n, at in seen.items() if v.now - at < v.policy.member_slots_ttl_s}
    wanted = frozenset(names - {v.me})  # on a standby the leader's too: should it come back, its WAL must still be here (HAZARDS F 92)
    chore = KeepSlots(wanted, dict(c.slots) if v.postgres.role is Role.STANDBY else {})
    changed = h.slots_kept is None or h.slots_kept.wanted != wanted
    if changed or v.now - h.slots_kept_at >= 10.0:
        yield chore


def _wishes(v: View) -> Iterator[Chore]:
    """Wishes that cannot be carried out now are refused with a reason rather than kept waiting."""
    for wish in v.wishes:
        if wish.kind == "reinitialize" and v.key_is_mine:
            yield RefuseWish(wish.number, "I am the leader, can not reinitialize")
        elif wish.kind == "reinitialize" and v.other_leader is None and not v.policy.paused:
            yield RefuseWish(wish.number, "Cluster has no leader, can not reinitialize")
        elif wish.kind == "restart" and v.down and not v.busy:
            yield RefuseWish(wish.number, "Postgres is not running, can not restart")
