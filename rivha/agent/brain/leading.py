"""What to do with Postgres when I hold the leader key on a lease that lives."""

from __future__ import annotations

from datetime import datetime

from rivha.agent.brain import quorum, synchronous, votes
from rivha.agent.brain.actions import GiveUp, HandOver, Nothing, PostgresVerdict, Promote, SetAside, Start, Stop, Synchronize, Verdict
from rivha.agent.brain.actions import Restart as RestartAction
from rivha.agent.brain.election import why_i_was_not_elected
from rivha.agent.brain.succession import (
    FAILURES_TO_RESIGN,
    another_can_lead,
    cannot_be_given_back,
    others_can_elect,
    voters_take_over,
    why_restarting_is_hopeless,
)
from rivha.agent.brain.view import View
from rivha.model import Data, FailoverRequest, Member, Role, State

FAST_STOP_S = 30.0  # a hand-over's fast stop waits for walsenders; then it turns immediate
LINGER_S = 1.0  # a standby that lives has the shutdown checkpoint in milliseconds
PLANNED_STOP_S = 60.0  # how long a hand-over's or restart's own stop may take: it turns immediate by itself
HUNG_QUIT_S = 0.3  # a Postgres that still hears SIGQUIT is gone in tens of ms; one that hangs hears nothing
WRONG_CLUSTER = 4  # exit code, docs/operations.md


def stop_before_my_lease_runs_out(v: View) -> PostgresVerdict | None:
    """etcd could not be reached to renew, and no voters prove that I lead: what I acknowledge may be lost, what is read may be old.

    First in every table but the paused one.
    """
    if not (v.is_primary and v.step_down_at is not None and v.now >= v.step_down_at):
        return None
    if v.busy_with("stop", "handover"):
        return Verdict(Nothing(), "stopping Postgres before the lease runs out")
    left = max(v.lease.expires_at - v.now, 0.0) if v.lease is not None else 0.0
    unproven = ", and too few voters have replied for it to be proven that nobody else leads" if v.voters else ""
    return Verdict(Stop(fast_s=left / 2, quit_s=left / 4), f"the lease could not be renewed and runs out in {left:.1f} s{unproven}")


def leave_foreign_data_alone(v: View) -> PostgresVerdict | None:
    """Two clusters under one name: whatever is done here would hurt one of them."""
    if not v.data_is_of_this_cluster and not v.policy.paused and v.cluster is not None:
        known, mine = v.cluster.initialize, v.postgres.system_id
        reason = f"the data directory belongs to another cluster: system identifier {mine}, and etcd says {known}. " + (
            "Check scope and data_dir in the configuration, or move the directory away to clone this node anew"
        )
        return Verdict(GiveUp(WRONG_CLUSTER, reason), reason)
    return None


def stop_a_postgres_without_its_directory(v: View) -> PostgresVerdict | None:
    """Somebody removed or moved the directory under it: what it still writes is lost, and it would be in the way of a clone."""
    if v.down or v.postgres.data is not Data.EMPTY or v.busy:
        return None
    return Verdict(Stop(fast_s=0.0), "the data directory is gone, and a Postgres still runs without it")


def kill_a_postgres_that_hangs(v: View) -> PostgresVerdict | None:
    """A Postgres that answers nothing for hang_timeout serves nobody; it is treated as crashed (DESIGN 8).

    One that was elected and not promoted yet, too: nobody else can lead meanwhile. A planned stop is silent as well, and has its own limit.
    """
    since = v.memory.silent_since
    patience_s = v.policy.hang_timeout_s + (PLANNED_STOP_S if v.busy_with("handover", "restart") else 0.0)
    if since is not None and v.now - since >= patience_s and not v.busy_with("stop"):
        return Verdict(Stop(fast_s=0.0, quit_s=HUNG_QUIT_S), f"Postgres has answered nothing for {v.now - since:.0f} s")
    return None


def give_up_a_start_that_takes_too_long(v: View) -> PostgresVerdict | None:
    """primary_start_timeout, and only if somebody else can lead (REFERENCE 1.7)."""
    since = v.memory.starting_since
    if since is not None and v.now - since > v.policy.primary_start_timeout_s and others_can_elect(v) and not v.busy_with("stop"):
        return Verdict(Stop(fast_s=0.0), f"Postgres has been starting for {v.now - since:.0f} s and another node can lead")
    return None


def stop_what_cannot_be_promoted(v: View) -> PostgresVerdict | None:
    """The key is given back once no Postgres is left here: a promotion that failed may yet happen."""
    if v.running and v.postgres.role is Role.STANDBY and v.failed("promote") >= FAILURES_TO_RESIGN and others_can_elect(v) and not v.busy:
        return Verdict(Stop(fast_s=5.0), f"Postgres failed to promote {v.failed('promote')} times and another node can lead")
    return None


def wait_for_the_job(v: View) -> PostgresVerdict | None:
    """One long piece of work at a time; what may interrupt it stands above this rule."""
    if v.busy and v.job is not None:
        subject = f" {v.job.subject}" if v.job.subject else ""
        return Verdict(Nothing(), f"busy: {v.job.kind}{subject}")
    return None


def stop_what_is_unfinished(v: View) -> PostgresVerdict | None:
    """An agent that died during a bootstrap, clone or rewind left it running: nobody may write to it, elect it or stream with it."""
    if v.postgres.data is Data.UNFINISHED and not v.down and not v.bootstrap_is_mine:
        return Verdict(Stop(fast_s=10.0), f"Postgres runs on an unfinished {v.postgres.unfinished}")
    return None


def hand_over_on_request(v: View) -> PostgresVerdict | None:
    """An operator's switchover, or failover away from a leader that lives; and my own end."""
    if v.cluster is None or not (v.running and v.is_primary and v.key_is_mine):
        return None
    term = v.term
    if v.stopping and not v.policy.paused:
        return Verdict(HandOver(term, None, FAST_STOP_S, _linger_s(v, None)), "the agent ends: handing over")
    request = v.cluster.failover
    if request is None or why_not_switch_over(v, request) is not None:
        return None
    to = request.candidate
    return Verdict(HandOver(term, to, FAST_STOP_S, _linger_s(v, to)), f"switchover to {to or 'the best standby'} was asked for")


def _linger_s(v: View, candidate: str | None) -> float | None:
    """Nobody is waited for with nobody leading when every acknowledged commit is with the voters, whatever they and the names become
    while the hand-over lasts (DESIGN 5). Who is no voter, or succeeds an asynchronous leader, may lack some: it gets all the time there is.
    """
    return LINGER_S if v.voters and (candidate is None or candidate in v.voters) else None


def promote_the_elected(v: View) -> PostgresVerdict | None:
    """I lead and my Postgres is still a standby; the lease must outlive the promotion."""
    if not (v.running and v.postgres.role is Role.STANDBY and v.has_data and v.i_lead and v.may_retry("promote", 2.0)):
        return None
    if (why := why_i_was_not_elected(v)) is not None:
        return Verdict(Nothing(), f"{why}, so I was not elected")
    if v.sync_doubtful and v.i_am_the_holder:
        return Verdict(Nothing(), "who may elect is written anew before I am promoted: a record of mine may be carried out yet")
    assert v.step_down_at is not None
    surely = (v.i_am_the_holder and bool(v.voters)) or (v.synchronous and v.policy.synchronous_mode_strict)
    return Verdict(Promote(v.term, v.step_down_at, synchronous.names_to_promote_with(v), surely), "I was elected")


def start_what_is_down(v: View) -> PostgresVerdict | None:
    """A primary that died is started in place: no promotion, no new timeline (HAZARDS D 52). A standby is started to be promoted."""
    if not (v.down and v.has_data and v.may_retry("start", 10.0)) or v.stopping:
        return None
    handed_over = v.memory.handed_over_term == v.term and not cannot_be_given_back(v)
    if handed_over or why_restarting_is_hopeless(v) or voters_take_over(v):
        return None  # the lease question resigns now
    primary = v.postgres.role is Role.PRIMARY
    why = "starting Postgres in place" if primary else "starting Postgres to promote it"
    return Verdict(Start(primary, None, v.step_down_at), why)


def restart_on_request(v: View) -> PostgresVerdict | None:
    """An operator's `rivhactl restart`: stop and start in the same role."""
    wish = v.wish("restart")
    if wish is not None and v.running and not v.stopping:
        return Verdict(RestartAction(wish.number), "an operator asked for a restart")
    return None


def move_aside_an_unfinished_bootstrap(v: View) -> PostgresVerdict | None:
    """What an interrupted initdb left is nobody's data; it is kept for people to look at, and a new start is made."""
    interrupted = v.postgres.data is Data.UNFINISHED and v.postgres.unfinished == "bootstrap"
    if interrupted and v.down and not v.bootstrap_is_mine and v.may_retry("set_aside"):
        return Verdict(SetAside("failed"), "a bootstrap was interrupted: moving its data directory aside")
    return None


def name_the_standbys_that_commits_wait_for(v: View) -> PostgresVerdict | None:
    """synchronous_standby_names, one safe change at a time, taking turns with `sync` in etcd (DESIGN 5)."""
    names = synchronous.names_wanted(v)
    if names is None or v.stopping or not v.may_retry("synchronize", 2.0):
        return None
    if names == quorum.BLOCK.text:
        return Verdict(Synchronize(names), "commits are to wait until a standby comes: there is none, and synchronous_mode_strict is on")
    return Verdict(Synchronize(names), f"commits are to wait for {names or 'nobody'}")


def stay_primary(v: View) -> PostgresVerdict | None:
    """All is as it should be, or Postgres is on its way there."""
    words = {State.RUNNING: "primary", State.STARTING: "Postgres is starting", State.SILENT: "Postgres does not answer"}
    said = words.get(v.postgres.state, f"Postgres is {v.postgres.state.value}")
    return Verdict(Nothing(), f"I lead; {said if v.problem in ('', said) else v.problem}")


LEADING = (
    stop_before_my_lease_runs_out,
    leave_foreign_data_alone,
    stop_a_postgres_without_its_directory,
    kill_a_postgres_that_hangs,
    give_up_a_start_that_takes_too_long,
    wait_for_the_job,
    stop_what_is_unfinished,
    hand_over_on_request,
    stop_what_cannot_be_promoted,
    promote_the_elected,
    start_what_is_down,
    restart_on_request,
    name_the_standbys_that_commits_wait_for,
    stay_primary,
)


def why_not_switch_over(v: View, request: FailoverRequest) -> str | None:
    """What stands in the way of this request now, in words; None when the leader may begin. The API asks the same question."""
    c = v.cluster
    if c is None or c.leader is None:
        return "nobody leads"
    if request.revision == v.memory.tried_request:
        return "nobody took over when it was tried"
    if request.scheduled_at is not None and not _is_due(v, request.scheduled_at):
        return f"scheduled for {request.scheduled_at}"
    if request.leader is not None and request.leader != c.leader.name:
        return f"{request.leader} does not lead, {c.leader.name} does"
    if request.candidate == c.leader.name:
        return f"{request.candidate} leads already"
    if request.accept_loss and 0 < request.revision < c.leader.term:
        return f"{c.leader.name} has begun to lead since it was asked, and nothing need be lost any more; ask again if it is still wanted"
    if request.candidate is None:
        return None if another_can_lead(v) and _anybody_streams(v) else "no other member can take over"
    return _why_not_to(v, request)


def _why_not_to(v: View, request: FailoverRequest) -> str | None:
    c, name = v.cluster, request.candidate
    member = c.member(name) if c else None
    if c is None or member is None:
        return f"there is no member {name}"
    if member.nofailover:
        return f"{name} has the tag nofailover"
    if member.state != "running" or member.role != "replica":
        return f"{name} is no running replica"
    lag = _lag_of(v, member)
    if request.leader is not None and lag > v.policy.maximum_lag_on_failover:
        return f"{name} lags {lag} bytes, more than maximum_lag_on_failover"
    may_lack = votes.decide(v) and not request.accept_loss and name not in v.voters  # whom the resignation names wins alone
    if (request.leader is not None or may_lack) and not _anybody_streams(v, name):
        return f"{name} does not stream from {v.me}: what it lacks would be lost"
    return None


def _anybody_streams(v: View, name: str | None = None) -> bool:
    """Only the leader sees its walsenders; who asks elsewhere (an API) is not refused for it, the leader is the one to judge."""
    return not (v.i_lead and v.is_primary) or any(name in (None, r.application_name) for r in v.postgres.replication)


def _lag_of(v: View, member: Member) -> int:
    """In bytes: the leader sees its walsender, others what was published, which may be some seconds old."""
    row = next((r for r in v.postgres.replication if r.application_name == member.name and r.flush_lsn is not None), None)
    if row is not None and row.flush_lsn is not None and v.postgres.wal_lsn is not None:
        return max(v.postgres.wal_lsn - row.flush_lsn, 0)
    return max((v.cluster.optime if v.cluster else 0) - (member.xlog_location or 0), 0)


def _is_due(v: View, scheduled_at: str) -> bool:
    """ISO 8601 with a zone; what cannot be read is never due (upkeep removes it)."""
    try:
        return datetime.fromisoformat(scheduled_at).timestamp() <= v.wall
    except ValueError:
        return False
