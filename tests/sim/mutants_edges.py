"""Mutants of margins and of the moments in between: clocks, a pause, a hand-over's last steps. See mutants.py."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

from rivha.agent import core, perform, tick
from rivha.agent.brain import actions as do
from rivha.agent.brain import election, holding, view, votes
from rivha.agent.brain.view import Situation, View
from rivha.dcs import writes
from rivha.model import Cluster, Data, Lsn, Pledge, Resignation
from tests.sim import postgres
from tests.sim.planting import Garden

# ---- clocks ----------------------------------------------------------------------------------------------------------------------


def no_margin_for_clocks(g: Garden) -> None:
    """Step-down and fence come at the very end of the lease, by a clock that may be slower than etcd's."""
    g.put(0.0, "FENCE_SHARE", tick)
    g.put(0.0, "STEP_DOWN_SHARE", view)


def leases_go_by_the_wall_clock(g: Garden) -> None:
    """An agent counts its lease by a clock that somebody may set back (HAZARDS A 1)."""
    before = core.Core.__init__

    def init(self: core.Core, *args: Any, **how: Any) -> None:
        before(self, *args, **{**how, "clock": how["wall"]})

    g.put(init, "__init__", core.Core)


# ---- a pause ---------------------------------------------------------------------------------------------------------------------


def fence_does_not_hear_of_a_pause(g: Garden) -> None:
    """The rules keep their hands off, and the fence stops the primary when its lease is over."""
    before = tick.Tick._vouch

    def vouch(self: tick.Tick, v: View) -> None:
        deadline = self.fence.deadline
        before(self, v)
        if v.policy.paused:
            self.fence.vouch(deadline)

    g.put(vouch, "_vouch", tick.Tick)


def pause_holds_only_for_what_runs(g: Garden) -> None:
    """A paused node whose Postgres is down goes on: it is compared, rewound and cloned."""
    before = View.situation.fget  # type: ignore[attr-defined]

    def situation(v: View) -> Situation:
        return before(replace(v, policy=replace(v.policy, paused=v.policy.paused and not v.down)))  # type: ignore[no-any-return]

    g.put(property(situation), "situation", View)


# ---- a hand-over -----------------------------------------------------------------------------------------------------------------


def routed_until_postgres_has_stopped(g: Garden) -> None:
    """A hand-over leaves /primary at 200 while clients are turned away already (HAZARDS C 42)."""
    before = perform.Performer._hand_over

    async def hand_over(self: perform.Performer, v: View, action: do.HandOver) -> None:
        real = self.desk

        class Desk:
            """Deaf to out_of_routing."""

            out_of_routing = False

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        self.desk = Desk()  # type: ignore[assignment]
        try:
            await before(self, v, action)
        finally:
            self.desk = real

    g.put(hand_over, "_hand_over", perform.Performer)


def end_of_the_wal_is_not_published(g: Garden) -> None:
    """A resignation leaves the last published position as it was (HAZARDS C 40)."""
    before = writes.resign

    def resign(c: Cluster, me: str, r: Resignation, optime: Lsn) -> Any:
        return before(c, me, r, 0)

    g.put(resign, "resign", writes)


# ---- elections -------------------------------------------------------------------------------------------------------------------


def preferred_voters_are_not_waited_for(g: Garden) -> None:
    """Whoever is first wins, also where another is to lead rather than it (HAZARDS B 28)."""
    g.put(0.0, "PREFERRED_S", election)


def priority_ranks_nobody(g: Garden) -> None:
    """Of two candidates with the same WAL the first by name wins, whatever failover_priority says."""
    before = election.ranking
    g.put(lambda v: tuple(sorted(before(v), key=lambda p: (-p.timeline, -p.lsn, p.name))), "ranking", election)


def an_empty_voter_pledges(g: Garden) -> None:
    """A voter whose disk was replaced gives its vote: nothing, up to LSN 0."""
    rule, before = holding.pledge_when_nobody_leads, perform.Performer._pledge

    def stand(v: View) -> do.LeaseVerdict | None:
        empty = v.postgres.data is Data.EMPTY and not v.busy and not v.policy.paused
        votes_now = votes.is_voter(v) and votes.is_open(v) and v.my_pledge is None
        return do.Verdict(do.MakePledge(v.term or v.memory.last_term), "planted") if empty and votes_now else rule(v)

    async def pledge(self: perform.Performer, v: View, term: int) -> str:
        if v.postgres.data is not Data.EMPTY:
            return await before(self, v, term)
        nothing = Pledge(self.me, term, 0, 0)
        return (await self._told(self._cluster(v), lambda c: writes.pledge(c, nothing), v.policy.retry_timeout_s)).value

    g.instead(rule, stand)
    g.put(pledge, "_pledge", perform.Performer)


# ---- slots -----------------------------------------------------------------------------------------------------------------------


def slots_are_never_made(g: Garden) -> None:
    """A primary keeps no WAL for its standbys."""

    async def keep_slots(self: postgres.SimPostgres, wanted: Set[str], advance: Mapping[str, int]) -> None:
        return

    g.put(keep_slots, "keep_slots", postgres.SimPostgres)
