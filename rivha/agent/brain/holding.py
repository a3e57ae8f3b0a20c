"""The lease question: what about the leader key and the lease that carries it?

One table for all situations, so that "hands off while paused" can never stop a renewal. The first rule that answers decides.
"""

from __future__ import annotations

from rivha.agent.brain import votes
from rivha.agent.brain.actions import (
    AbandonBootstrap,
    Acquire,
    ClaimBootstrap,
    LeaseVerdict,
    MakePledge,
    Nothing,
    Rebind,
    Renew,
    Resign,
    Verdict,
    Win,
    Withdraw,
)
from rivha.agent.brain.election import (
    GRACE_S,
    history_forbids,
    leaderless_for_s,
    operator_named_me,
    why_i_hold_back,
    why_i_may_not_stand,
    why_i_was_not_elected,
)
from rivha.agent.brain.succession import another_can_lead, cannot_be_given_back, voters_take_over, why_restarting_is_hopeless
from rivha.agent.brain.view import View
from rivha.model import Data, Role


def ask_nothing_of_a_silent_etcd(v: View) -> LeaseVerdict | None:
    """Nothing can be written, and what was read before may be wrong by now."""
    if v.cluster is None:
        return Verdict(Nothing(), "etcd does not answer")
    return None


def give_the_key_back_after_a_hand_over(v: View) -> LeaseVerdict | None:
    """My Postgres has stopped for a switchover or for my own end: the candidate may take over at once. Unless etcd does not take it."""
    handed_over = v.memory.handed_over_term == v.term and not cannot_be_given_back(v)
    if v.key_is_mine and v.down and not v.busy and (handed_over or v.stopping):
        whole = v.postgres.clean and v.postgres.role is Role.PRIMARY  # a standby's control file knows its restartpoint, not its end
        lsn = (v.postgres.wal_lsn or 0) if whole else 0
        why = "the agent ends" if v.stopping else "switchover"
        return Verdict(Resign(_hand_over_to(v), lsn, why), "my Postgres has stopped to hand over")
    return None


def give_the_key_back_to_the_voters(v: View) -> LeaseVerdict | None:
    """My Postgres has died and they hold every commit: they are at work before it would have recovered (DESIGN 8)."""
    if v.key_is_mine and not v.busy and voters_take_over(v):
        return Verdict(Resign(reason="Postgres died"), "my Postgres has died, and the voters can take over")
    return None


def give_the_key_back_when_i_cannot_serve(v: View) -> LeaseVerdict | None:
    """A leader without usable data, or whose Postgres dies again and again, keeps others from leading."""
    if not v.key_is_mine or v.busy or not v.down:
        return None
    if v.postgres.data is not Data.VALID and not v.bootstrap_is_mine:
        return Verdict(Resign(reason="no data"), f"my data directory cannot be used: {v.postgres.problem or v.postgres.data.value}")
    if not v.data_is_of_this_cluster:
        return Verdict(Resign(reason="foreign data"), "my data directory belongs to another cluster")
    if why := why_restarting_is_hopeless(v):
        return Verdict(Resign(reason=why), f"{why}, and another node can lead")
    return None


def let_go_in_pause_when_no_primary_is_here(v: View) -> LeaseVerdict | None:
    """Paused, the key belongs to whoever runs the primary (REFERENCE 1.9)."""
    if not (v.policy.paused and v.key_is_mine) or v.busy or _won_by_request(v):
        return None
    if v.down or (v.running and v.postgres.role is Role.STANDBY):
        return Verdict(Resign(reason="paused and not primary"), "paused, and my Postgres is no primary")
    return None


def let_a_key_run_out_that_i_did_not_win(v: View) -> LeaseVerdict | None:
    """Who wins is frozen and follows nobody: etcd was restored from a backup, or somebody wrote the key by hand. Not given back: the
    voters of a backup may lack what was acknowledged since, and to resign would ask them to elect at once.
    """
    if not (v.key_is_mine and v.running and v.postgres.role is Role.STANDBY) or v.busy or v.policy.paused:
        return None
    if (how := why_i_was_not_elected(v)) is None:
        return None
    why = "etcd was restored from a backup, or somebody wrote the key: letting it run out"
    return Verdict(Nothing(), f"the leader key names me, and {how}; {why}")


def move_to_a_lease_of_the_new_ttl(v: View) -> LeaseVerdict | None:
    """The ttl was changed: a lease cannot be, so the key moves to another."""
    if v.i_lead and v.lease is not None and v.lease.ttl_s != v.policy.ttl_s and not v.busy_with("handover"):  # it is for this term
        return Verdict(Rebind(), f"ttl is {v.policy.ttl_s:g} s now")
    return None


def begin_a_new_term_when_in_doubt(v: View) -> LeaseVerdict | None:
    """Whether the key was moved or given back is not known, and it may happen yet: a new term refuses what is still under way.

    An agent before me may have given it back, too, and whoever takes over then counts on the end of my WAL as it was (docs/decisions/0012):
    nothing becomes a primary in that term. One that is a primary became it since.
    """
    if v.key_is_mine and v.lease is not None and v.lease.doubtful:
        return Verdict(Rebind(), "the key is mine, and what became of my last write of it is not known: writing it anew")
    if v.key_is_mine and v.lease is None and not v.is_primary:
        return Verdict(Rebind(), "the key is mine, and an agent before me may have given it back: writing it anew before Postgres starts")
    return None


def keep_the_key_that_is_mine(v: View) -> LeaseVerdict | None:
    """etcd says that I lead: renew, also after a restart of the agent, which finds its key and lease again."""
    if v.key_is_mine and v.cluster is not None and v.cluster.leader is not None:
        adopted = v.lease is None or v.lease.lease_id != v.cluster.leader.lease_id
        return Verdict(Renew(v.cluster.leader.lease_id), "the leader key is mine: adopting its lease" if adopted else "I lead")
    return None


def withdraw_my_pledge_for_the_leader_in_office(v: View) -> LeaseVerdict | None:
    """Somebody leads, and lives: my promise to stream from nobody has served its purpose."""
    pledge = v.my_pledge
    if v.other_leader is not None and v.my_pledge_cannot_be_read and not votes.is_open(v):
        return Verdict(Withdraw(), f"{v.other_leader} leads: writing over my pledge, which cannot be read and would stop the next election")
    if v.other_leader is None or pledge is None or v.busy_with("pledge") or (votes.is_open(v) and pledge.term == v.term):
        return None
    return Verdict(Withdraw(), f"{v.other_leader} leads: taking my pledge back to follow")


def refuse_a_pledge_that_may_land_yet(v: View) -> LeaseVerdict | None:
    """Its outcome was not known, or an agent before me sent it: it is refused once my key has another revision, and then I may stream."""
    lives = v.other_leader is not None and not (votes.is_open(v) and votes.is_voter(v))
    if lives and votes.a_late_pledge_must_be_refused(v):
        return Verdict(Withdraw(), f"{v.other_leader} leads: seeing to it that no pledge of mine is carried out late")
    return None


def leave_the_key_to_its_holder(v: View) -> LeaseVerdict | None:
    """Another node leads, and its lease's end, its resignation, or q + 1 voters who no longer hear of it change that."""
    if v.other_leader is not None and not (votes.is_open(v) and votes.is_voter(v)):
        return Verdict(Nothing(), f"{v.other_leader} leads")
    return None


def stand_aside_when_ending(v: View) -> LeaseVerdict | None:
    """An agent that ends stands for nothing and claims nothing."""
    if v.stopping:
        return Verdict(Nothing(), "the agent ends")
    return None


def stand_still_on_what_cannot_be_read(v: View) -> LeaseVerdict | None:
    """A record that does not parse is never read as "nothing": no promotion on a guess."""
    if v.unreadable:
        return Verdict(Nothing(), f"etcd holds what I cannot read: {v.unreadable}")
    return None


def take_my_claim_back_after_a_failed_bootstrap(v: View) -> LeaseVerdict | None:
    """Another node may try; this agent ends, so that its operator sees why."""
    if v.bootstrap_is_mine and v.job is not None and v.job.kind == "bootstrap" and v.job.outcome == "failed":
        return Verdict(AbandonBootstrap(), f"the bootstrap failed: {v.job.detail}")
    return None


def lead_what_i_bootstrapped(v: View) -> LeaseVerdict | None:
    """The primary that I made from nothing leads the new cluster."""
    if v.bootstrap_is_mine and v.is_primary and _i_bootstrapped(v):
        return Verdict(Acquire(), "bootstrapped a new cluster")
    return None


def claim_the_bootstrap_of_a_new_cluster(v: View) -> LeaseVerdict | None:
    """Only when nobody is known to have data: a wiped etcd must not give birth to a second cluster (HAZARDS A 16)."""
    if v.cluster is None or v.cluster.initialize is not None or v.postgres.data is not Data.EMPTY or v.busy or v.policy.paused:
        return None
    others = [m.name for m in v.cluster.members if m.name != v.me and m.role != "uninitialized"]
    if others or v.memory.initialized:
        who = ", ".join(others) or "I"
        return Verdict(Nothing(), f"etcd forgot this cluster, but {who} knew it: waiting for a primary that restores it")
    if v.cluster.sync is not None or v.cluster.history:
        who = (v.cluster.sync.leader if v.cluster.sync else None) or "somebody"
        return Verdict(Nothing(), f"etcd has lost `initialize`, but {who} has led here: waiting for a primary that restores it")
    if v.unfit:
        return Verdict(Nothing(), f"not bootstrapping: {v.unfit}")
    if not v.may_retry("bootstrap"):
        return Verdict(Nothing(), "waiting before another bootstrap")
    return Verdict(ClaimBootstrap(), "no cluster yet: claiming the bootstrap")


def wait_for_the_bootstrap(v: View) -> LeaseVerdict | None:
    """Somebody's claim stands; it hangs on a lease, so it ends if its maker dies."""
    if v.cluster is not None and v.cluster.initialize == "" and not v.is_primary:
        return Verdict(Nothing(), "bootstrapping" if v.busy_with("bootstrap") else "another node bootstraps the cluster")
    return None


def lead_again_with_my_own_primary(v: View) -> LeaseVerdict | None:
    """Nobody has won since I led (`sync` names me), or a primary is adopted: it needs no election, it holds everything."""
    if v.nobody_leads and v.postgres.role is Role.PRIMARY and not v.busy and v.has_data and why_my_primary_may_not_lead(v) is None:
        what = "running" if v.is_primary else "stopped"
        return Verdict(Acquire(), f"nobody has led since my own {what} primary")
    return None


def lead_again_as_i_was_elected(v: View) -> LeaseVerdict | None:
    """I won, and lost the key before I was promoted: `sync` still names me, and nobody else may lead (docs/model/takeover.py).

    Also where the mode was turned off meanwhile: votes decide until I have led and said otherwise, and nobody can be elected.
    A pledge of mine, from before the mode was turned on, goes in the same transaction.
    """
    standby = v.running and v.postgres.role is Role.STANDBY and v.postgres.upstream is None and not v.postgres.streaming
    if not (v.nobody_leads and votes.decide(v) and v.i_am_the_holder and standby) or v.busy or not v.has_data or v.policy.paused:
        return None
    if v.memory.cut_loose:  # a backup's `sync`: I have followed another since
        return None
    if v.data_is_of_this_cluster:
        return Verdict(Acquire(), "I was elected, and nobody has led since")
    return None


def wait_while_the_holder_may_live(v: View) -> LeaseVerdict | None:
    """Synchronous, and nobody leads: the holder goes on without its key if its voters hear it, so the lease's end alone convicts nobody."""
    if v.nobody_leads and not votes.is_open(v) and not v.policy.paused:
        return Verdict(Nothing(), f"nobody leads; {votes.why_closed(v)}")
    return None


def pledge_when_nobody_leads(v: View) -> LeaseVerdict | None:
    """The first half of standing for election: freeze, and publish where my WAL ends."""
    if not votes.is_open(v) or v.my_pledge is not None or (v.policy.paused and not operator_named_me(v)):
        return None
    if v.busy_with("pledge"):
        return Verdict(Nothing(), "freezing my WAL")
    free = not v.busy or v.busy_with("compare", "follow")  # what looked to the leader that is gone gives way
    if (why := why_i_may_not_stand(v)) is None and free and v.may_retry("pledge", 2.0):
        return Verdict(MakePledge(v.term or v.memory.last_term), f"{_whom_we_lost(v)}: standing for election")
    return Verdict(Nothing(), f"{_whom_we_lost(v)}; not standing: {why or 'a job is running'}")


def win_when_i_rank_first(v: View) -> LeaseVerdict | None:
    """The second half: everybody ranks the same frozen pledges; the best one acts, the others hold back a moment."""
    if not votes.is_open(v) or v.my_pledge is None or (v.policy.paused and not operator_named_me(v)):
        return None
    if why := why_i_may_not_stand(v):
        return Verdict(Nothing(), f"{_whom_we_lost(v)}; not standing: {why}")
    if why := why_i_hold_back(v):
        return Verdict(Nothing(), f"{_whom_we_lost(v)}; holding back: {why}")
    return Verdict(Win(), f"{_whom_we_lost(v)} and I rank first")


def do_nothing(v: View) -> LeaseVerdict | None:
    """Nobody leads, and there is nothing that this node could lead with."""
    if v.nobody_leads and v.policy.paused:
        return Verdict(Nothing(), f"nobody leads; the cluster is paused{_whose_postgres_is_down(v)}")
    return Verdict(Nothing(), "nobody leads" if v.nobody_leads else "nothing to do")


LEASE = (
    ask_nothing_of_a_silent_etcd,
    give_the_key_back_after_a_hand_over,
    give_the_key_back_to_the_voters,
    give_the_key_back_when_i_cannot_serve,
    let_go_in_pause_when_no_primary_is_here,
    let_a_key_run_out_that_i_did_not_win,
    move_to_a_lease_of_the_new_ttl,
    begin_a_new_term_when_in_doubt,
    keep_the_key_that_is_mine,
    withdraw_my_pledge_for_the_leader_in_office,
    refuse_a_pledge_that_may_land_yet,
    leave_the_key_to_its_holder,
    stand_aside_when_ending,
    stand_still_on_what_cannot_be_read,
    take_my_claim_back_after_a_failed_bootstrap,
    lead_what_i_bootstrapped,
    claim_the_bootstrap_of_a_new_cluster,
    wait_for_the_bootstrap,
    lead_again_with_my_own_primary,
    lead_again_as_i_was_elected,
    wait_while_the_holder_may_live,
    pledge_when_nobody_leads,
    win_when_i_rank_first,
    do_nothing,
)


# ---- facts that only the lease question asks for ----


def why_my_primary_may_not_lead(v: View) -> str | None:
    """Why a primary of mine, running or stopped, must not take the free key without an election; None when it may."""
    c, p = v.cluster, v.postgres
    if c is None:
        return "etcd does not answer"
    if not v.data_is_of_this_cluster:
        return "its data belongs to another cluster"
    if c.sync is not None and c.sync.leader not in (None, v.me):
        return f"{c.sync.leader} has led since"
    if v.my_pledge is not None:
        return "I have pledged to follow"
    if v.unfit:
        return v.unfit
    if forbidden := history_forbids(v, p.timeline) or _another_went_on(v):
        return forbidden
    if v.policy.paused and not v.is_primary:
        return "the cluster is paused"
    if not v.is_primary and c.sync is None:
        return "a stopped primary that never led here is not started as one"
    resigned = c.resigned is not None and c.resigned.leader == v.me
    if resigned and leaderless_for_s(v) <= GRACE_S and another_can_lead(v):
        return "I have just given the lead back"
    return None


def _another_went_on(v: View) -> str | None:
    """What `history` says, from the members' own mouths: it may be etcd that lost the history, and I that slept."""
    mine, members = v.postgres.timeline, v.cluster.members if v.cluster else ()
    ahead = next((m for m in members if m.name != v.me and mine and m.timeline and m.timeline > mine), None)
    return f"{ahead.name} is on timeline {ahead.timeline}, I am on {mine}" if ahead else None


def _whom_we_lost(v: View) -> str:
    return "nobody leads" if v.nobody_leads else f"{v.other_leader} is lost"


def _whose_postgres_is_down(v: View) -> str:
    """Of those who were a primary, by what they publish: for people, and with what they can do about it."""
    down = {m.name for m in v.cluster.members if m.role == "demoted"} if v.cluster else set()
    if v.down and v.postgres.role is Role.PRIMARY:
        down.add(v.me)
    if not down:
        return ": `rivhactl resume` lets a member take over"
    return f", and the Postgres of {', '.join(sorted(down))} is down: `rivhactl resume` lets it start or another take over"


def _hand_over_to(v: View) -> str | None:
    """The candidate for whom I stopped, whatever was asked since; at the agent's own end nobody is named, the best one takes over."""
    return v.memory.handed_over_to if v.memory.handed_over_term == v.term and not v.stopping else None


def _won_by_request(v: View) -> bool:
    failover = v.cluster.failover if v.cluster else None
    return failover is not None and failover.candidate == v.me


def _i_bootstrapped(v: View) -> bool:
    return v.job is not None and v.job.kind == "bootstrap" and v.job.outcome == "done"
