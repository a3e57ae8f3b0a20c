"""What cannot be observed again, as a value: `remember` folds each View into it once a tick, before the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rivha.agent.brain.evidence import InForce, Reply, remembered_names, remembered_replies
from rivha.model import Outcome, Role, State

if TYPE_CHECKING:
    from rivha.agent.brain.view import Job, View

HINDERED = "hindered"  # the result of a job that failed for a reason outside of the data: nobody answered, or the disk is full
CRASH_WINDOW_S = 120.0  # crashes are counted in a window: each restart may be quick while the disk is full (HAZARDS G 99)


@dataclass(frozen=True, slots=True)
class Failures:
    """Failures of one kind of job since its last success."""

    in_a_row: int
    last_at: float
    hindered: int = 0  # of these, how many say nothing about the data
    why: str = ""  # the last one, for people


@dataclass(frozen=True, slots=True)
class Memory:
    blind_since: float | None = None  # etcd has not answered since
    leaderless_since: float | None = None  # I first saw then that nobody leads; None while somebody does
    standing_since: float | None = None  # all can be read, and I have seen my own pledge since, for the leadership in office or the last
    pledge_ground: tuple[int, int, int] | None = None  # a pledge that may be carried out yet rests on this (View.ground)
    confirmed_at: float | None = None  # when etcd last said that I lead: the sending of that read
    stopping_since: float | None = None  # the agent was asked to end
    gave_back: bool = False  # nobody leads, and it was I who gave the key back
    took_back: bool = False  # I lead again after I gave the key back: nobody else could, until my Postgres has lasted for CRASH_WINDOW_S
    last_term: int = 0  # the newest leadership that I saw in etcd
    last_leader: str | None = None
    followed: int = 0  # the term in which the WAL that lies here was last streamed, or was to be; my own if I led; 0: not known
    cut_loose: bool = False  # my standby was told to stream from nobody without standing for election, and has not been frozen since
    adrift: bool = False  # the leader that I point at began another term, and has not said yet from which one it went on
    sync_revision: int = 0  # of `sync`, when somebody was last seen to lead
    succeeded: int = 0  # while I lead: the term whose leader I followed, if it was the one just before mine; else 0
    last_members: frozenset[str] = frozenset()  # published while somebody last led: leases may vanish together (HAZARDS A 17)
    initialized: bool = False  # I have seen the cluster's system identifier
    primary_alive: bool = False  # the last postmaster that I saw alive was a primary
    crashes: tuple[float, ...] = ()  # when a primary's postmaster was found dead, within the last CRASH_WINDOW_S
    dead_since: float | None = None  # I lead, and my primary is found stopped or dead, with no job at work
    silent_since: float | None = None  # Postgres has a postmaster and answers nothing
    starting_since: float | None = None
    start_took_too_long: bool = False  # it was given up after primary_start_timeout
    not_streaming_since: float | None = None
    job_seen_at: float | None = None  # the end of the last job that was folded in
    failures: Mapping[str, Failures] = field(default_factory=dict)  # by kind of job
    history: str = ""  # what the last comparison with `compared_term`'s leader said: same, diverged, unknown (it failed)
    compared_term: int = 0
    compared_at: float | None = None
    handed_over_term: int = 0  # I stopped my Postgres in this term to hand over
    handed_over_to: str | None = None  # to whom; who asks for another meanwhile comes too late
    strayed: bool = False  # my Postgres was a primary though another led, or had led last, and has not streamed since
    primary_since: float | None = None  # my Postgres has been seen running as a primary since
    replies: Mapping[str, Reply] = field(default_factory=dict)  # by standby
    in_force: InForce | None = None  # synchronous_standby_names of my primary
    tried_request: int | None = None  # the revision of the request that I did it for: should nobody take over, it is not tried again


def remember(v: View) -> Memory:
    """The memory after this look. Pure; the tick puts it into the View before it asks for a decision."""
    m = _updated(v.memory, pledge_ground=_ground_of_a_pledge(v))
    m = _of_whose_wal_it_is(v, m)
    m = _updated(m, cut_loose=_is_cut_loose(v))
    m = _of_the_cluster(v, m)
    m = _of_postgres(v, m)
    return _of_the_job(v, m)


def _updated(m: Memory, **changes: Any) -> Memory:
    """The same object where nothing changes, as at most ticks."""
    return m if all(getattr(m, name) == value for name, value in changes.items()) else replace(m, **changes)


def _ground_of_a_pledge(v: View) -> tuple[int, int, int] | None:
    """Until the first look an agent before this one may have sent one. What rests on another ground than etcd's now is refused there."""
    if v.job is not None and v.job.kind == "pledge":
        return v.job.ground if v.job.result != Outcome.REFUSED else v.memory.pledge_ground
    return v.ground if v.memory.pledge_ground is None else v.memory.pledge_ground


def _since(condition: bool, before: float | None, now: float) -> float | None:
    if not condition:
        return None
    return now if before is None else before


def _of_the_cluster(v: View, m: Memory) -> Memory:
    m = _updated(
        m,
        blind_since=_since(v.cluster is None, m.blind_since, v.now),
        stopping_since=_since(v.stopping, m.stopping_since, v.now),
        confirmed_at=v.cluster_seen_at if v.key_is_mine else m.confirmed_at,
    )
    c = v.cluster
    if c is None:
        return m
    m = _updated(m, initialized=m.initialized or bool(c.initialize), leaderless_since=_since(c.leader is None, m.leaderless_since, v.now))
    mine = c.pledge(v.me)
    standing = mine is not None and (c.leader is None or c.leader.term == mine.term) and not v.unreadable  # nobody pledges on that
    m = _updated(m, standing_since=_since(standing, m.standing_since, v.now))
    if c.leader is None:
        return _updated(m, gave_back=m.gave_back or (c.resigned is not None and c.resigned.leader == v.me))
    if c.leader.term != m.last_term:
        failures = {kind: f for kind, f in m.failures.items() if kind != "compare"}  # they were about another leader
        m = _updated(m, took_back=m.gave_back and c.leader.name == v.me, gave_back=False, failures=failures)
    names = frozenset(member.name for member in c.members)
    if c.leader.name == v.me and c.leader.term != m.last_term:  # what ended the term before is no reason to end this one
        failures = {kind: f for kind, f in m.failures.items() if kind not in ("start", "promote")}
        m = _updated(m, crashes=(), failures=failures, start_took_too_long=False)
    return _updated(m, last_term=c.leader.term, last_leader=c.leader.name, last_members=names)


def _of_whose_wal_it_is(v: View, m: Memory) -> Memory:
    """Whoever was told to follow one leader in one term has a part of one history (decision 10). What is not certain is forgotten, and
    compared.
    """
    j, c, followed, adrift = v.job, v.cluster, m.followed, m.adrift
    if j is not None and (j.ended_at is None or j.ended_at != m.job_seen_at):
        followed, adrift = _whom_the_job_follows(v, j, followed, adrift)
    if c is None:
        return _updated(m, followed=followed, adrift=adrift)
    revision = c.sync.revision if c.sync is not None else 0
    if c.leader is None:
        unseen = revision != m.sync_revision  # whoever takes the lead writes `sync`: somebody may have led and gone while I did not look
        return _updated(m, followed=0 if unseen or _writes(v) else followed, adrift=adrift)
    if v.key_is_mine:
        after = followed if followed == m.last_term and not adrift else 0
        succeeded = after if v.term != m.last_term else m.succeeded
        return _updated(m, followed=v.term, adrift=False, succeeded=succeeded, sync_revision=revision)
    if _writes(v):
        followed = 0
    elif followed != v.term and _may_point_at_the_leader(v):  # the same node in another term, or its next life
        proven = followed != 0 and followed == v.leader_went_on_from
        followed, adrift = (v.term, False) if proven else (followed, True)
    return _updated(m, followed=followed, adrift=adrift, sync_revision=revision)


def _whom_the_job_follows(v: View, j: Job, followed: int, adrift: bool) -> tuple[int, bool]:
    """From its beginning: it may stream before I look."""
    if j.kind in ("follow", "start") and j.term:
        return j.term, False
    if j.kind in ("clone", "rewind", "set_aside", "bootstrap"):
        return 0, False
    same = j.kind == "compare" and j.outcome == "done" and j.result == "same"
    return (j.term, False) if same and j.term == v.term and _may_point_at_the_leader(v) else (followed, adrift)


def _is_cut_loose(v: View) -> bool:
    """It looks like a winner, who streams from nobody either; but no key that names it is one that it won."""
    j = v.job
    if v.postgres.role is Role.PRIMARY:
        return False
    if j is None:
        return v.memory.cut_loose
    if j.kind == "follow":
        return j.term == 0
    frozen = j.kind == "pledge" and j.outcome == "done" and j.result != Outcome.REFUSED
    told = j.kind in ("start", "clone", "rewind", "bootstrap") and (j.kind != "start" or j.term != 0)
    return v.memory.cut_loose and not frozen and not told


def _writes(v: View) -> bool:
    """What a primary writes without the key is nobody's history."""
    return v.postgres.role is Role.PRIMARY and v.postgres.state is State.RUNNING


def _may_point_at_the_leader(v: View) -> bool:
    """Where the leader listens may not be published."""
    return v.points_at_the_leader or (v.postgres.role is Role.STANDBY and v.leader_upstream is None)


def _of_postgres(v: View, m: Memory) -> Memory:
    p = v.postgres
    alive = p.state not in (State.STOPPED, State.CRASHED)
    crashes = tuple(at for at in m.crashes if v.now - at < CRASH_WINDOW_S)
    if m.primary_alive and p.state is State.CRASHED and not v.busy:
        crashes = (*crashes, v.now)
    standby = p.state is State.RUNNING and p.role is Role.STANDBY
    given_up = m.starting_since is not None and not alive and v.now - m.starting_since > v.policy.primary_start_timeout_s
    lasted = m.primary_since is not None and alive and v.now - m.primary_since >= CRASH_WINDOW_S
    if alive and p.role is Role.PRIMARY:  # who has been one since, promoted by hand perhaps, may have left the history it was compared with
        m = _updated(m, history="", compared_term=0)
    return _updated(
        m,
        crashes=crashes,
        took_back=m.took_back and not lasted,
        primary_alive=(p.role is Role.PRIMARY) if alive else (m.primary_alive and v.busy),
        dead_since=_since(v.key_is_mine and not alive and p.role is Role.PRIMARY and not v.busy, m.dead_since, v.now),
        handed_over_term=0 if p.state is State.RUNNING and p.role is Role.PRIMARY and not v.busy else m.handed_over_term,
        silent_since=_since(p.state is State.SILENT, m.silent_since, v.postgres_seen_at),  # the look itself takes a second and more
        start_took_too_long=(m.start_took_too_long or given_up) and p.state is not State.RUNNING,
        starting_since=_since(p.state is State.STARTING, m.starting_since, v.now),
        strayed=(m.strayed or (alive and p.role is Role.PRIMARY and _another_is_the_last_leader(v))) and not (p.streaming or v.key_is_mine),
        primary_since=_since(p.role is Role.PRIMARY and alive and p.state is not State.STARTING, m.primary_since, v.now),
        replies=remembered_replies(v, m.replies),
        in_force=remembered_names(v, m.in_force),
        not_streaming_since=_since(standby and p.upstream is not None and not p.streaming, m.not_streaming_since, v.postgres_seen_at),
    )


def _another_is_the_last_leader(v: View) -> bool:
    if v.cluster is None:
        return v.memory.last_leader not in (None, v.me)
    return v.other_leader is not None or (v.nobody_leads and v.sync is not None and v.sync.leader not in (None, v.me))


def _of_the_job(v: View, m: Memory) -> Memory:
    """What a job that has just ended leaves behind: failures in a row, the verdict of a comparison, a hand-over."""
    j = v.job
    if j is None or j.ended_at is None or j.ended_at == m.job_seen_at:
        return m
    failures = dict(m.failures)
    before = failures.pop(j.kind, Failures(0, 0.0))
    if j.outcome == "failed":
        hindered = before.hindered + (j.result == HINDERED)
        failures[j.kind] = Failures(before.in_a_row + 1, j.ended_at, hindered, j.detail)
    elif j.kind in ("clone", "bootstrap") and j.outcome == "done":  # they were about a directory that lies here no more
        failures = {kind: f for kind, f in failures.items() if kind not in ("rewind", "set_aside")}
    m = _updated(m, job_seen_at=j.ended_at, failures=failures)
    if j.kind == "compare":
        return _updated(m, history=j.result if j.outcome == "done" else "unknown", compared_term=j.term, compared_at=j.ended_at)
    if j.kind == "handover" and j.outcome == "done":
        request = v.last_cluster.failover if v.last_cluster else None
        return _updated(m, handed_over_term=j.term, handed_over_to=j.subject or None, tried_request=request.revision if request else None)
    if j.kind in ("rewind", "clone", "promote", "bootstrap") and j.outcome == "done":
        return _updated(m, history="", compared_term=0)
    return m
