"""What to do with Postgres when nobody leads, when etcd is silent, and when the cluster is paused: fence, otherwise hands off."""

from __future__ import annotations

from rivha.agent.brain.actions import Follow, Nothing, PostgresVerdict, Start, Stop, Verdict
from rivha.agent.brain.following import (
    compare_what_streams_already,
    leave_the_voters_first,
    leave_what_cannot_be_used,
    reinitialize_on_request,
    stop_when_the_agent_ends,
)
from rivha.agent.brain.holding import why_my_primary_may_not_lead
from rivha.agent.brain.leading import (
    hand_over_on_request,
    leave_foreign_data_alone,
    move_aside_an_unfinished_bootstrap,
    name_the_standbys_that_commits_wait_for,
    promote_the_elected,
    restart_on_request,
    stop_a_postgres_without_its_directory,
    stop_before_my_lease_runs_out,
    stop_what_is_unfinished,
    wait_for_the_job,
)
from rivha.agent.brain.view import View
from rivha.model import Data, Role

RECONNECTS_S = 2.0  # a stream that broke while etcd is silent may go on so long: then its upstream is still there, and the same


def stop_a_primary_that_may_not_lead(v: View) -> PostgresVerdict | None:
    """Nobody leads and my primary must not take the key: it acknowledges writes for nobody."""
    if not v.is_primary or v.key_is_mine or v.busy_with("stop", "handover", "bootstrap") or v.bootstrap_is_mine:
        return None
    if why := why_my_primary_may_not_lead(v):
        return Verdict(Stop(fast_s=1.0), f"nobody leads, and my primary may not: {why}")
    return None


def leave_a_stopped_primary_for_the_lease(v: View) -> PostgresVerdict | None:
    """The holder takes the free key first; then it starts in place, without a new timeline."""
    if v.down and v.has_data and v.postgres.role is Role.PRIMARY and why_my_primary_may_not_lead(v) is None:
        return Verdict(Nothing(), "taking the lead before starting my primary")
    return None


def wait_for_somebody_to_clone_from(v: View) -> PostgresVerdict | None:
    """No data here, and nobody leads who could give it."""
    if v.postgres.data in (Data.EMPTY, Data.UNFINISHED):
        return Verdict(Nothing(), "no usable data here: waiting for a leader to clone from")
    return None


def wait_for_the_candidate(v: View) -> PostgresVerdict | None:
    """I have just given the lead back: starting now would only be in the way of following."""
    c = v.cluster
    since = v.memory.leaderless_since
    if v.down and c is not None and c.resigned is not None and c.resigned.leader == v.me and since is not None and v.now - since < 5.0:
        return Verdict(Nothing(), "waiting for another node to take over")
    return None


def leave_a_voter_that_somebody_promoted(v: View) -> PostgresVerdict | None:
    """A voter is a standby: a primary's directory was promoted behind my back, and its new timeline would outrank the voters' own.

    Only a leader in office can tell what is in it (`compare`).
    """
    promoted = v.down and v.has_data and v.postgres.role is Role.PRIMARY and not v.i_am_the_holder
    if promoted and v.me in v.voters:
        return Verdict(Nothing(), "somebody promoted the Postgres of a voter: it stays down until there is a leader to compare it with")
    return None


def start_as_a_standby_of_nobody(v: View) -> PostgresVerdict | None:
    """Serves reads, and can be elected or told whom to follow."""
    if v.down and v.has_data and v.may_retry("start"):
        return Verdict(Start(False, None), "nobody leads: starting as a standby")
    return None


def hands_off(v: View) -> PostgresVerdict | None:
    """Nobody leads; what runs, runs on."""
    problem = f": {v.problem}" if v.problem else ""
    return Verdict(Nothing(), f"nobody leads; Postgres is {v.postgres.state.value}{problem}")


LEADERLESS = (
    stop_before_my_lease_runs_out,
    leave_foreign_data_alone,
    stop_a_primary_that_may_not_lead,
    stop_when_the_agent_ends,
    wait_for_the_job,
    stop_a_postgres_without_its_directory,
    stop_what_is_unfinished,
    leave_what_cannot_be_used,
    move_aside_an_unfinished_bootstrap,
    wait_for_somebody_to_clone_from,
    leave_a_stopped_primary_for_the_lease,
    wait_for_the_candidate,
    leave_a_voter_that_somebody_promoted,
    start_as_a_standby_of_nobody,
    hands_off,
)


def stop_a_primary_of_unknown_right(v: View) -> PostgresVerdict | None:
    """Neither a lease nor voters say whether this primary still leads (the agent came back), and etcd is silent: it gets retry_timeout."""
    since = v.memory.blind_since
    if not v.is_primary or v.step_down_at is not None or v.busy_with("stop"):
        return None
    if since is not None and v.now - since >= v.policy.retry_timeout_s:
        return Verdict(Stop(fast_s=1.0), f"etcd has been silent for {v.now - since:.0f} s and I do not know whether I lead")
    return None


def restart_in_place_while_my_lease_lives(v: View) -> PostgresVerdict | None:
    """A crash during an etcd outage: while my lease lives, or my voters have just shown that nobody was elected, nobody else can lead.

    Later than that the fence would stop it again at once; it is a standby until etcd answers. So it is while a resignation of mine may
    be carried out yet: whoever takes over then counts on it that nothing runs here.
    """
    if not (v.down and v.has_data and v.postgres.role is Role.PRIMARY) or v.stopping:
        return None
    if (
        v.lease is None
        or v.lease.doubtful
        or v.step_down_at is None
        or not v.may_retry("start")
        or v.memory.handed_over_term == v.memory.last_term
    ):
        return None
    if v.now < v.step_down_at:
        return Verdict(Start(True, None, v.step_down_at), "etcd is silent but nobody else can lead yet: starting Postgres in place")
    return None


def serve_reads_while_etcd_is_silent(v: View) -> PostgresVerdict | None:
    """As a standby of nobody: whether a pledge of mine stands cannot be read, so nothing may stream."""
    since = v.memory.blind_since
    if v.down and v.has_data and since is not None and v.now - since >= v.policy.retry_timeout_s and v.may_retry("start"):
        return Verdict(Start(False, None), "etcd is silent: starting as a standby to serve reads")
    return None


def stream_from_nobody_who_may_be_another_by_now(v: View) -> PostgresVerdict | None:
    """Postgres connects again by itself. Whom it streamed from may have been copied from a twin of my timeline meanwhile (decision 10)."""
    since, standby = v.memory.not_streaming_since, v.running and v.postgres.role is Role.STANDBY
    if not standby or since is None or v.now - since < RECONNECTS_S or not v.may_retry("follow", 5.0):
        return None
    return Verdict(
        Follow(None), f"etcd is silent, and nothing has streamed for {RECONNECTS_S:.0f} s: streaming from nobody until etcd answers"
    )


def hands_off_while_etcd_is_silent(v: View) -> PostgresVerdict | None:
    """What runs, runs on: a standby for ever, and what it streams, too; a primary as long as its lease lives."""
    if v.is_primary and v.step_down_at is not None:
        return Verdict(Nothing(), f"etcd does not answer; my lease lets me go on for {v.step_down_at - v.now:.0f} s")
    if v.running and v.postgres.role is Role.STANDBY and v.postgres.upstream is None:
        return Verdict(Nothing(), "etcd does not answer; streaming from nobody until it does")
    return Verdict(Nothing(), "etcd does not answer; hands off")


BLIND = (
    stop_before_my_lease_runs_out,
    stop_a_primary_of_unknown_right,
    stop_when_the_agent_ends,
    wait_for_the_job,
    leave_what_cannot_be_used,
    restart_in_place_while_my_lease_lives,
    serve_reads_while_etcd_is_silent,
    stream_from_nobody_who_may_be_another_by_now,
    hands_off_while_etcd_is_silent,
)


def promote_whom_the_operator_named(v: View) -> PostgresVerdict | None:
    """Paused, nobody is promoted on the agent's own account; a named candidate of a manual failover is."""
    failover = v.cluster.failover if v.cluster else None
    return promote_the_elected(v) if failover is not None and failover.candidate == v.me else None


def hands_off_while_paused(v: View) -> PostgresVerdict | None:
    """Paused: the operator is at work. The lease is kept all the same."""
    return Verdict(Nothing(), "paused: no action on Postgres")


PAUSED = (
    wait_for_the_job,
    hand_over_on_request,
    promote_whom_the_operator_named,
    restart_on_request,
    leave_the_voters_first,
    reinitialize_on_request,
    name_the_standbys_that_commits_wait_for,
    compare_what_streams_already,  # reads only; without it a standby whose agent began anew is no voter until the pause ends
    hands_off_while_paused,
)
