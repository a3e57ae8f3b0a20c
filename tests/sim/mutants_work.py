"""Mutants of elections, of what is done to Postgres, and of what operators ask. See mutants.py."""

from __future__ import annotations

from dataclasses import replace

from rivha.agent import perform, tick
from rivha.agent.brain import actions as do
from rivha.agent.brain import election, following, holding, leading, upkeep, waiting
from rivha.agent.brain.upkeep import ClearFailover, RefuseWish, WriteHistory
from rivha.agent.brain.view import Situation, View
from rivha.api import health
from rivha.dcs import writes
from rivha.model import Data, Member, Pledge, Upstream, WalEnd
from tests.sim import clients
from tests.sim.planting import Garden, Rule

# ---- pledges and elections -------------------------------------------------------------------------------------------------------


def ranks_by_priority_and_name_alone(g: Garden) -> None:
    """Of those who have pledged, the preferred one wins, or the first by name, though another holds more."""

    def ranking(v: View) -> tuple[Pledge, ...]:
        c = v.cluster
        members = {p.name: c.member(p.name) if p.name != v.me else Member(v.me, tags=v.tags) for p in c.pledges} if c else {}
        mine_or_able = [p for p in (c.pledges if c else ()) if p.name == v.me or election.may_stand(v, p)]
        return tuple(sorted(mine_or_able, key=lambda p: (-(m.failover_priority if (m := members[p.name]) else 1), p.name)))

    g.put(ranking, "ranking", election)


def pledges_before_it_froze(g: Garden) -> None:
    """The pledge is published while the receiver still runs."""

    async def pledge(self: perform.Performer, v: View, term: int) -> str:
        end = WalEnd(v.postgres.timeline or 0, v.postgres.receive_lsn or v.postgres.replay_lsn or 0)
        mine = Pledge(self.me, term, end.timeline, end.lsn)
        outcome = await self._told(self._cluster(v), lambda c: writes.pledge(c, mine), v.policy.retry_timeout_s)
        await self.postgres.freeze()
        return outcome.value

    g.put(pledge, "_pledge", perform.Performer)


def streams_while_it_is_pledged(g: Garden) -> None:
    """The pledge is forgotten as soon as somebody leads, before it is withdrawn."""
    g.without(following.wait_until_my_pledge_is_withdrawn, holding.withdraw_my_pledge_for_the_leader_in_office)


def pledge_lost_at_a_restart(g: Garden) -> None:
    """A node that starts while it does not know who leads streams from whom it streamed before."""
    before: dict[str, Upstream] = {}  # by node

    def stay(v: View) -> do.PostgresVerdict | None:
        if v.leader_upstream is not None:
            before[v.me] = v.leader_upstream
        return following.stay_standby(v)

    def start(rule: Rule) -> Rule:
        def again(v: View) -> do.PostgresVerdict | None:
            verdict = rule(v)
            started = verdict is not None and isinstance(verdict.action, do.Start) and v.me in before
            return do.Verdict(do.Start(False, before[v.me]), "planted") if started else verdict

        return again

    g.instead(following.stay_standby, stay)
    for rule in (waiting.start_as_a_standby_of_nobody, waiting.serve_reads_while_etcd_is_silent):
        g.instead(rule, start(rule))


def worst_candidate_wins(g: Garden) -> None:
    """The ranking is upside down."""
    before = election.ranking
    g.put(lambda v: tuple(reversed(before(v))), "ranking", election)


def impatient_candidate(g: Garden) -> None:
    """Nobody waits for the pledges of others."""
    g.put(lambda v: (), "awaited", election)


def patience_counted_from_the_key(g: Garden) -> None:
    """After a pause the first to pledge wins, since the key has been gone for long."""
    g.put(election.leaderless_for_s, "standing_for_s", election)


def lag_limit_ignored(g: Garden) -> None:
    """maximum_lag_on_failover is not asked for, nor what the old leader's hand-over promised."""
    g.put(lambda v: 0, "least_lsn", election)


def old_primarys_tail_may_stand(g: Garden) -> None:
    """A WAL that goes on beyond the point where the cluster left its timeline is a candidate."""
    g.put(lambda v, timeline: None, "timeline_ended_at", election)


def nofailover_ignored(g: Garden) -> None:
    """The tag says nothing."""
    g.put(property(lambda m: False), "nofailover", Member)


def candidates_name_ignored(g: Garden) -> None:
    """A switchover goes to whoever ranks first."""
    g.put(lambda v: None, "named_candidate", election)


def sleeper_leads_again(g: Garden) -> None:
    """An old primary takes the free key although others have led since."""
    g.put(lambda v: None, "why_my_primary_may_not_lead", holding, waiting)


# ---- Postgres --------------------------------------------------------------------------------------------------------------------


def marker_not_honoured(g: Garden) -> None:
    """A half-rewound directory is started."""
    g.put(property(lambda v: v.postgres.data in (Data.VALID, Data.UNFINISHED)), "has_data", View)
    g.without(following.mend_an_interrupted_rewind)
    for rule in (following.clone_what_is_missing, waiting.wait_for_somebody_to_clone_from):
        g.instead(rule, _of_empty_directories(rule))


def _of_empty_directories(rule: Rule) -> Rule:
    return lambda v: rule(v) if v.postgres.data is Data.EMPTY else None


def resigns_while_postgres_runs(g: Garden) -> None:
    """The key is given back when the hand-over begins, not when Postgres has stopped."""

    def resign(v: View) -> do.LeaseVerdict | None:
        early = v.key_is_mine and v.busy_with("handover")
        request = v.cluster.failover if v.cluster else None
        return do.Verdict(do.Resign(request.candidate if request else None, 0, "planted"), "planted") if early else None

    g.tables(lambda table: (resign, *table) if table[0] is holding.ask_nothing_of_a_silent_etcd else table)
    g.instead(resign, lambda v: resign(v) if v.cluster is not None else None)


def leads_with_nothing(g: Garden) -> None:
    """A leader keeps the key although its data directory is gone or in pieces."""
    g.without(holding.give_the_key_back_when_i_cannot_serve)


def crash_loop_never_given_up(g: Garden) -> None:
    """A primary that dies again and again is restarted for ever."""
    g.put(lambda v: None, "why_restarting_is_hopeless", holding, leading)


def compare_skipped(g: Garden) -> None:
    """What lies here is taken for a prefix of the leader's history."""
    g.put(lambda v: "same", "_compared", following)


def diverged_is_started(g: Garden) -> None:
    """The comparison is made, and its verdict not heeded."""
    g.without(following.rewind_what_diverged, following.stop_a_standby_that_diverged)
    before = following._compared
    g.put(lambda v: "same" if before(v) == "diverged" else before(v), "_compared", following)


def always_moved_aside(g: Garden) -> None:
    """A directory that has not streamed for a while is thrown away rather than compared."""

    def move(v: View) -> do.PostgresVerdict | None:
        lost = v.down and v.has_data and v.leader_is_writable and not v.busy
        return do.Verdict(do.SetAside("diverged"), "planted") if lost else None

    g.instead(following.compare_before_starting, move)


def postgres_that_hangs_is_left_alone(g: Garden) -> None:
    """A leader whose Postgres answers nothing keeps the key for ever."""
    g.without(leading.kill_a_postgres_that_hangs)


# ---- operators -------------------------------------------------------------------------------------------------------------------


def pause_not_honoured(g: Garden) -> None:
    """Paused, the agent goes on as if it were not."""
    before = View.situation.fget  # type: ignore[attr-defined]

    def situation(v: View) -> Situation:
        return before(replace(v, policy=replace(v.policy, paused=False)))  # type: ignore[no-any-return]

    g.put(property(situation), "situation", View)


def request_never_cleared(g: Garden) -> None:
    """A switchover that is done, or impossible, stays in etcd."""
    _without_chore(g, ClearFailover)


def hands_over_to_whoever_does_not_stream(g: Garden) -> None:
    """A switchover begins although the candidate is cut off from the leader."""
    g.put(lambda v, name=None: True, "_anybody_streams", leading)


def wish_never_refused(g: Garden) -> None:
    """What cannot be carried out waits for ever."""
    _without_chore(g, RefuseWish)


def history_never_written(g: Garden) -> None:
    """etcd does not learn which timelines ended where."""
    _without_chore(g, WriteHistory)


def _without_chore(g: Garden, kind: type) -> None:
    before = upkeep.upkeep
    g.put(lambda v, me, h: tuple(c for c in before(v, me, h) if not isinstance(c, kind)), "upkeep", tick)


def lost_config_means_defaults(g: Garden) -> None:
    """A config key that is gone counts as an empty one: what was paused wakes up (HAZARDS A 16)."""
    before = tick.Tick._look

    async def look(self: tick.Tick) -> View:
        v = await before(self)
        if v.cluster is not None and v.cluster.config is None:
            self.dynamic.heard({})
        return v

    g.put(look, "_look", tick.Tick)


# ---- three more of HAZARDS B ---------------------------------------------------------------------------------------------------------


def primary_answered_before_it_is_writable(g: Garden) -> None:
    """/primary says 200 from the moment that the key is won (HAZARDS B 21)."""

    def is_primary(q: health.Question) -> bool:
        return not q.out_of_routing and health.is_fresh(q) and health.leads_at(q.view, q.now)

    g.put(is_primary, "is_primary", health, clients)


def judged_before_the_leader_is_writable(g: Garden) -> None:
    """The others compare, copy and follow while the new leader is still in recovery (HAZARDS B 33)."""
    g.put(property(lambda v: v.leader_member is not None), "leader_is_writable", View)


def rewound_before_the_checkpoint(g: Garden) -> None:
    """A rewind does not wait until the new leader's control file names its timeline (HAZARDS B 32)."""
    g.put(lambda v: True, "_leader_finished_its_checkpoint", following)
