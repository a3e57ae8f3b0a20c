"""What to do with Postgres when another node leads: be its standby, by the first of follow, rewind, clone that is possible (DESIGN 10)."""

from __future__ import annotations

from rivha.agent.brain import votes
from rivha.agent.brain.actions import Clone, Compare, Follow, Nothing, PostgresVerdict, Rewind, SetAside, Start, Stop, Verdict
from rivha.agent.brain.leading import (
    leave_foreign_data_alone,
    move_aside_an_unfinished_bootstrap,
    restart_on_request,
    stop_a_postgres_without_its_directory,
    stop_what_is_unfinished,
    wait_for_the_job,
)
from rivha.agent.brain.synchronous import why_i_leave_the_voters
from rivha.agent.brain.view import View
from rivha.model import Data, Role

COMPARE_AFTER_S = 3.0  # a standby that has not streamed for so long may stand on another history
COMPARE_AGAIN_S = 10.0
COMPARE_SELDOM_S = 300.0  # what streams all the same, and cannot be compared for hours: each try takes the job slot for seconds
REWINDS = 2  # failures, with a leader that answered and space on the disk, before the directory is cloned anew
STARTING_ELSEWHERE_S = 10.0  # a standby that was told to follow somebody else gets so long to start all the same
DEMOTE_FAST_S = 0.0  # somebody else may acknowledge already: no time for a polite stop


def step_down_for_the_leader(v: View) -> PostgresVerdict | None:
    """Another node leads, so nothing that I acknowledge would last: stop at once, whatever else is under way."""
    if v.is_primary:
        if v.busy_with("stop"):
            return Verdict(Nothing(), f"{v.other_leader} leads: stopping my primary")
        return Verdict(Stop(DEMOTE_FAST_S), f"{v.other_leader} leads: my primary must stop")
    return None


def stop_a_promotion_that_lost_its_right(v: View) -> PostgresVerdict | None:
    """Leadership was lost between winning and promoting."""
    if v.busy_with("promote") or (v.busy_with("start") and v.job is not None and v.job.subject == "primary"):
        return Verdict(Stop(DEMOTE_FAST_S), f"{v.other_leader} leads: my promotion must not go on")
    return None


def follow_rather_than_pledge(v: View) -> PostgresVerdict | None:
    """Freezing takes as long as replay does, an apply delay of hours included; with a leader in office there is nothing to stand for."""
    upstream = v.leader_upstream
    if not v.busy_with("pledge") or v.my_pledge is not None or upstream is None or not v.leader_is_writable or votes.decide(v):
        return None  # by votes, a pledge that may be under way is refused first
    if not (v.shares_the_leaders_past or _compared(v) == "same"):
        return _compare(v)
    return Verdict(Follow(upstream), f"{v.other_leader} leads: following instead of standing for election")


def start_again_with_the_leader(v: View) -> PostgresVerdict | None:
    """A standby that is not consistent yet waits for the WAL of whom it was told to follow: for ever, if that one is gone for good."""
    since, upstream = v.memory.starting_since, v.leader_upstream
    if since is None or upstream is None or v.is_primary or not v.leader_is_writable or v.now - since < STARTING_ELSEWHERE_S:
        return None
    if v.points_at_the_leader or (v.busy and not v.busy_with("start", "restart")):
        return None
    return Verdict(Stop(fast_s=10.0), f"Postgres has been starting for {v.now - since:.0f} s and waits for another than {upstream.name}")


def leave_the_voters_first(v: View) -> PostgresVerdict | None:
    """`sync` counts on what lies here: the leader takes me out before I give it up, or go (DESIGN 10). Ending does not wait for long."""
    why, since = why_i_leave_the_voters(v), v.memory.stopping_since
    if why is None or (v.stopping and since is not None and v.now - since > 2 * v.policy.loop_wait_s + v.policy.degrade_after_s):
        return None
    return Verdict(Nothing(), f"waiting until {v.other_leader} counts on me no more: {why}")


def stand_still_while_the_leader_is_lost(v: View) -> PostgresVerdict | None:
    """A voter that stands for election, or is about to, does not follow anybody."""
    if votes.is_open(v) and votes.is_voter(v) and v.running and v.postgres.role is Role.STANDBY:
        return Verdict(Nothing(), f"{v.other_leader} is lost: standing for election")
    return None


def stop_when_the_agent_ends(v: View) -> PostgresVerdict | None:
    """Like Patroni, ending the agent ends Postgres, unless the cluster is paused."""
    if not v.stopping or v.policy.paused:
        return None
    if v.down and not v.busy:
        return Verdict(Nothing(), "the agent ends; Postgres has stopped")
    if v.busy_with("stop"):
        return Verdict(Nothing(), "the agent ends: stopping Postgres")
    return Verdict(Stop(fast_s=30.0), "the agent ends: stopping Postgres")


def reinitialize_on_request(v: View) -> PostgresVerdict | None:
    """An operator's `rivhactl reinit`: the data is moved aside, and what follows is the clone of an empty node.

    Not before the leader accepts writes: what lies here may turn out to be the best copy that is left.
    """
    wish = v.wish("reinitialize")
    if wish is not None and v.leader_is_writable:
        return Verdict(SetAside("reinit", wish.number), "an operator asked to clone this node anew")
    return None


def wait_until_my_pledge_is_withdrawn(v: View) -> PostgresVerdict | None:
    """While my pledge exists, or may come into being, I stream from nobody (DESIGN 6.2)."""
    if v.my_pledge is not None or votes.a_late_pledge_must_be_refused(v):
        return Verdict(Nothing(), "my pledge is being taken back")
    return None


def wait_for_a_leader_that_can_be_reached(v: View) -> PostgresVerdict | None:
    """The leader has not published where its Postgres listens."""
    if v.leader_upstream is None:
        return Verdict(Nothing(), f"{v.other_leader} leads but has not published an address")
    return None


def clone_what_is_missing(v: View) -> PostgresVerdict | None:
    """An empty node, or what an interrupted clone left, is filled from the leader."""
    upstream = v.leader_upstream
    interrupted = v.postgres.data is Data.UNFINISHED and v.postgres.unfinished != "rewind"
    if upstream is None or not (v.postgres.data is Data.EMPTY or interrupted):
        return None
    if not v.leader_is_writable:
        return Verdict(Nothing(), f"waiting for {upstream.name} to accept writes before cloning from it")
    if not v.may_retry("clone"):
        return Verdict(Nothing(), f"waiting before cloning again ({v.failed('clone')} failures)")
    return Verdict(Clone(upstream), "no data here: cloning")


def mend_an_interrupted_rewind(v: View) -> PostgresVerdict | None:
    """A half-rewound directory is never started: rewound again, and cloned anew when that fails too."""
    upstream = v.leader_upstream
    if v.postgres.data is not Data.UNFINISHED or upstream is None:
        return None
    if not (v.leader_is_writable and _leader_finished_its_checkpoint(v)):
        return Verdict(Nothing(), f"waiting for {upstream.name} to accept writes and finish its checkpoint before rewinding again")
    if v.spoiled("rewind") < REWINDS and v.policy.use_pg_rewind and v.may_retry("rewind"):
        return Verdict(Rewind(upstream), "a rewind was interrupted: rewinding again")
    if v.spoiled("rewind") >= REWINDS or not v.policy.use_pg_rewind:
        if not v.may_retry("set_aside"):
            return Verdict(Nothing(), f"waiting before moving the directory aside again ({v.failed('set_aside')} failures)")
        return Verdict(SetAside("rewind-failed"), "the rewind does not succeed: moving the directory aside to clone anew")
    return Verdict(Nothing(), "waiting before rewinding again")


def leave_what_cannot_be_used(v: View) -> PostgresVerdict | None:
    """Unmounted, wrong owner or mode, damaged: a person must look; nothing is written there."""
    if v.postgres.data is Data.INACCESSIBLE:
        return Verdict(Nothing(), f"the data directory cannot be used: {v.postgres.problem}")
    return None


def compare_before_starting(v: View) -> PostgresVerdict | None:
    """A stopped directory may hold what the leader never had: look before following."""
    upstream = v.leader_upstream
    if not v.down or upstream is None or _compared(v) in ("same", "diverged"):
        return None
    if not v.leader_is_writable:
        return Verdict(Nothing(), f"waiting for {upstream.name} to accept writes before comparing histories")
    return _compare(v)


def rewind_what_diverged(v: View) -> PostgresVerdict | None:
    """My WAL left the leader's history: cut it back, or, when that cannot be, keep it aside and clone."""
    upstream = v.leader_upstream
    if not v.down or upstream is None or _compared(v) != "diverged":
        return None
    if v.policy.use_pg_rewind and v.postgres.rewindable and v.spoiled("rewind") < REWINDS:
        if not v.leader_is_writable:
            return Verdict(Nothing(), f"waiting for {upstream.name} to accept writes before rewinding")
        if not _leader_finished_its_checkpoint(v):
            return Verdict(Nothing(), f"waiting for {upstream.name}'s checkpoint before rewinding")
        if not v.may_retry("rewind"):
            return Verdict(Nothing(), "waiting before rewinding again")
        return Verdict(Rewind(upstream), "my WAL left the leader's history: rewinding")
    if not v.may_retry("set_aside"):
        return Verdict(Nothing(), f"waiting before moving the directory aside again ({v.failed('set_aside')} failures)")
    return Verdict(SetAside("diverged"), "my WAL left the leader's history and cannot be rewound: moving it aside to clone anew")


def start_as_a_standby(v: View) -> PostgresVerdict | None:
    """What lies here is a prefix of the leader's history: it may follow."""
    if v.down and v.has_data and _compared(v) == "same":
        if not v.may_retry("start"):
            return Verdict(Nothing(), f"waiting before starting again ({v.failed('start')} failures)")
        return Verdict(Start(False, v.leader_upstream), "starting as a standby")
    return None


def follow_the_leader(v: View) -> PostgresVerdict | None:
    """By reload, without a restart, as soon as the leader accepts writes.

    Histories are compared before, unless the leader went on from where I last streamed, which it publishes: that saves the time.
    """
    upstream = v.leader_upstream
    if not (v.running and v.postgres.role is Role.STANDBY) or upstream is None or v.points_at_the_leader:
        return None
    known = v.shares_the_leaders_past and v.postgres.receive_lsn is not None  # else an old primary, perhaps, that has not streamed since
    # It cannot be compared: a backlog or an apply delay of hours, no connection left, no right. Numbers are what is left then.
    known = known or (_compared(v) == "unknown" and v.postgres.receive_lsn is not None and v.mine_is_an_older_timeline)
    if not known and _compared(v) not in ("same", "diverged") and v.postgres.upstream is not None and v.may_retry("follow", 5.0):
        # Whom it points at may be rewound to the leader's history at any moment, and Postgres would stream on from there (decision 10).
        return Verdict(Follow(None), f"{v.other_leader} leads: streaming from nobody until histories are compared")
    if not v.leader_is_writable:
        return Verdict(Nothing(), f"waiting for {upstream.name} to accept writes")
    if not known and _compared(v) == "diverged":
        return None
    if not known and _compared(v) != "same":  # its timeline may only look like the leader's
        return _compare(v) or Verdict(Nothing(), "waiting before comparing histories again")
    if not v.may_retry("follow", 5.0):
        return Verdict(Nothing(), "waiting before pointing Postgres at the leader again")
    return Verdict(Follow(upstream), "another node leads now")


def compare_what_streams_already(v: View) -> PostgresVerdict | None:
    """Pointed at the leader by an agent before me, or in another life of that node: what streams may yet be another history."""
    if not v.streams_what_may_be_another_history or _compared(v) in ("same", "diverged"):
        return None
    return _compare(v) if v.may_retry("compare", COMPARE_SELDOM_S) else None


def compare_when_it_does_not_stream(v: View) -> PostgresVerdict | None:
    """A standby past the point where the leader's timeline began connects in vain for ever (HAZARDS D 56, 57)."""
    since = v.memory.not_streaming_since
    if since is None or v.now - since < COMPARE_AFTER_S or not v.leader_is_writable or _compared(v) == "diverged":
        return None
    return _compare(v)


def stop_a_standby_that_diverged(v: View) -> PostgresVerdict | None:
    """Only a stopped directory can be rewound."""
    streams = v.postgres.streaming and v.shares_the_leaders_past
    if v.running and v.postgres.role is Role.STANDBY and not streams and _compared(v) == "diverged":
        return Verdict(Stop(fast_s=10.0), "my WAL left the leader's history: stopping to rewind")
    return None


def restart_with_the_primarys_sizes(v: View) -> PostgresVerdict | None:
    """Replay has stopped for good, and with it any promotion, while the stream goes on; a start takes the sizes that the WAL wants."""
    if v.running and v.postgres.too_small:
        return Verdict(Stop(fast_s=10.0), f"{v.postgres.problem}: stopping, to start with as much")
    return None


def stay_standby(v: View) -> PostgresVerdict | None:
    """Streaming, or on its way there."""
    if v.postgres.streaming:
        return Verdict(Nothing(), f"following {v.other_leader}")
    return Verdict(Nothing(), f"following {v.other_leader}, not streaming: {v.problem or 'Postgres is ' + v.postgres.state.value}")


FOLLOWING = (
    leave_foreign_data_alone,
    step_down_for_the_leader,
    stop_a_promotion_that_lost_its_right,
    leave_the_voters_first,
    stop_when_the_agent_ends,
    start_again_with_the_leader,
    follow_rather_than_pledge,
    wait_for_the_job,
    wait_until_my_pledge_is_withdrawn,
    stand_still_while_the_leader_is_lost,
    stop_what_is_unfinished,
    leave_what_cannot_be_used,
    stop_a_postgres_without_its_directory,
    reinitialize_on_request,
    restart_on_request,
    wait_for_a_leader_that_can_be_reached,
    move_aside_an_unfinished_bootstrap,
    clone_what_is_missing,
    mend_an_interrupted_rewind,
    compare_before_starting,
    rewind_what_diverged,
    start_as_a_standby,
    follow_the_leader,
    stop_a_standby_that_diverged,
    compare_what_streams_already,
    compare_when_it_does_not_stream,
    restart_with_the_primarys_sizes,
    stay_standby,
)


def _compared(v: View) -> str:
    """The verdict on the leader in office; an older one does not count."""
    return v.memory.history if v.memory.compared_term == v.memory.last_term else ""


def _compare(v: View) -> PostgresVerdict | None:
    upstream, at = v.leader_upstream, v.memory.compared_at
    if upstream is None or (at is not None and _compared(v) and v.now - at < COMPARE_AGAIN_S):
        return None
    if not v.may_retry("compare", 10.0):
        return Verdict(Nothing(), "waiting before comparing histories again")
    return Verdict(Compare(upstream, v.memory.last_term), "comparing my history with the leader's")


def _leader_finished_its_checkpoint(v: View) -> bool:
    """pg_rewind reads the source's control file, which names the new timeline only after a checkpoint (HAZARDS B 32)."""
    member = v.leader_member
    return member is not None and member.checkpoint_after_promote is not False
