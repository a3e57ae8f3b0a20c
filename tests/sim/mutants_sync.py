"""Mutants of the synchronous modes: of elections by votes, of the order in which voters and names change, of what a primary may go by.

Among them the mistakes of docs/model/takeover.py, as somebody could make them in the agent. See mutants.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rivha.agent import perform, tick
from rivha.agent.brain import actions as do
from rivha.agent.brain import evidence, following, quorum, synchronous, votes
from rivha.agent.brain.quorum import NOBODY, Electors, Goal, Names, SetElectors, SetNames, Step
from rivha.agent.brain.view import View
from rivha.dcs import records, writes
from rivha.dcs.base import Put, Txn
from rivha.model import Cluster, Pledge
from tests.sim import postgres
from tests.sim.planting import Garden

# ---- elections -------------------------------------------------------------------------------------------------------------------


def wins_with_q(g: Garden) -> None:
    """As many pledges as the quorum says are enough, instead of one more."""

    def why_not_enough(v: View, pledge: Pledge) -> str | None:
        found = v.sync is not None and pledge.name in v.voters and len(votes.supporters(v, pledge)) >= max(v.sync.quorum, 1)
        return None if found or votes.holds_the_whole(v, pledge) else "planted"

    g.put(why_not_enough, "why_not_enough", votes)


def the_modes_end_is_taken_for_heard(g: Garden) -> None:
    """Mode off makes leaders as in asynchronous mode at once, though a holder that needs no lease may not have heard of it."""
    g.put(lambda v: v.synchronous or bool(v.voters), "decide", votes)


def any_pledges_elect_any_of_them(g: Garden) -> None:
    """Any q + 1 pledges elect any of their writers, also one that lacks what another holds."""
    g.put(lambda v, _: frozenset(p.name for p in v.cluster.pledges if p.name in v.voters), "supporters", votes)


def a_stranger_wins(g: Garden) -> None:
    """Whoever has pledged may win, with the voters' pledges: also who is no voter."""

    def why_not_enough(v: View, pledge: Pledge) -> str | None:
        enough = v.sync is not None and v.cluster is not None and len(v.cluster.pledges) > v.sync.quorum
        return None if enough and v.voters else "planted"

    g.put(why_not_enough, "why_not_enough", votes)
    g.put(lambda v: None, "why_i_have_none", votes)


def pledges_without_freezing(g: Garden) -> None:
    """What is received is published, and the receiver goes on."""

    async def pledge(self: perform.Performer, v: View, term: int) -> str:
        lsn = max(v.postgres.receive_lsn or 0, v.postgres.replay_lsn or 0)
        mine = Pledge(self.me, term, v.postgres.timeline or 0, lsn)
        return (await self._told(self._cluster(v), lambda c: writes.pledge(c, mine), v.policy.retry_timeout_s)).value

    g.put(pledge, "_pledge", perform.Performer)


def late_pledges_are_not_refused(g: Garden) -> None:
    """A pledge without an answer is forgotten, and its writer streams again."""
    g.put(lambda v: False, "a_late_pledge_must_be_refused", votes)


def one_witness_convicts(g: Garden) -> None:
    """A leader that does not answer this node is lost, though it renews."""
    g.put(property(lambda v: v.witness is not None and v.witness.silent_s >= v.policy.suspect_after_s), "leader_is_lost", View)


def hands_over_to_who_is_behind(g: Garden) -> None:
    """A voter takes over what was handed over, without the end of it."""

    def holds(v: View, pledge: Pledge) -> bool:
        r = v.cluster.resigned if v.cluster and v.nobody_leads else None
        return r is not None and bool(r.lsn) and pledge.name in v.voters

    g.put(holds, "holds_the_whole", votes)


def voters_before_the_barrier(g: Garden) -> None:
    """The winner's transaction makes the other pledged voters electors at once."""
    before = writes.win

    def win(c: Cluster, me: str, lease_id: int) -> Txn:
        others = frozenset(p.name for p in c.pledges if c.sync and p.name in c.sync.voters) - {me}
        txn = before(c, me, lease_id)
        text = records.sync_text(me, others, len(others) - 1 if others else 0)
        return replace(txn, then=tuple(Put(records.SYNC, text) if w.key == records.SYNC else w for w in txn.then))

    g.put(win, "win", writes)


# ---- voters and names ------------------------------------------------------------------------------------------------------------


def no_barrier(g: Garden) -> None:
    """Standbys elect as soon as they are named."""
    before = quorum.next_step
    g.put(lambda e, n, goal, strict, passed: before(e, n, goal, strict, True), "next_step", quorum)


def electors_first(g: Garden) -> None:
    """Who may elect is written before the names are in force."""
    before = quorum.next_step

    def step(e: Electors, n: Names | None, goal: Goal | None, strict: bool, passed: bool) -> Step | None:
        return SetElectors(goal.electors) if goal is not None and e != goal.electors else before(e, n, goal, strict, passed)

    g.put(step, "next_step", quorum)


def names_first(g: Garden) -> None:
    """The names come into force before those who may elect are made stricter."""
    before = quorum.next_step

    def step(e: Electors, n: Names | None, goal: Goal | None, strict: bool, passed: bool) -> Step | None:
        return SetNames(goal.names) if goal is not None and n != goal.names else before(e, n, goal, strict, passed)

    g.put(step, "next_step", quorum)


def alone_before_etcd_says_so(g: Garden) -> None:
    """A primary without standbys goes on alone, and then takes its voters out."""
    before = quorum.next_step

    def step(e: Electors, n: Names | None, goal: Goal | None, strict: bool, passed: bool) -> Step | None:
        return SetNames(NOBODY) if goal is None and not strict and n != NOBODY else before(e, n, goal, strict, passed)

    g.put(step, "next_step", quorum)


def reloads_are_taken_at_once(g: Garden) -> None:
    """As if all WAL senders read new names at the same moment."""
    g.put(lambda before, after: after, "meanwhile", quorum)


def names_count_when_they_are_written(g: Garden) -> None:
    """Nobody waits until every process goes by the names."""

    async def synchronize(self: postgres.SimPostgres, names: str, **_: object) -> None:
        i = self._i
        self._reachable()
        i.reload(names)
        i.names = names
        self._confirmed = (i.generation, names)

    g.put(synchronize, "synchronize", postgres.SimPostgres)
    g.put(lambda row, names: True, "_agrees", evidence)


def late_records_are_not_refused(g: Garden) -> None:
    """A write of `sync` without an answer is forgotten."""
    before = synchronous.next_step
    g.put(lambda v: before(replace(v, sync_doubtful=False)), "next_step", synchronous, tick)


def records_are_written_unguarded(g: Garden) -> None:
    """`sync` is written by who led when it was decided."""
    before = writes.record_voters
    g.put(lambda c, me, voters, q: replace(before(c, me, voters, q), when=()), "record_voters", writes)


def configure_changes_the_names(g: Garden) -> None:
    """Another configuration brings the operator's own names with it."""
    before = postgres.SimPostgres.configure

    async def configure(self: postgres.SimPostgres, dynamic: Mapping[str, object], *, reload: bool) -> None:
        await before(self, dynamic, reload=reload)
        self._i.reload("")

    g.put(configure, "configure", postgres.SimPostgres)


def leaving_voters_are_kept(g: Garden) -> None:
    """Who asks to be taken out of the voters is not heard."""
    g.put(lambda v, member: member.name != v.me and not member.tags.get("nosync"), "_may_vote", synchronous)


def voters_give_up_their_data(g: Garden) -> None:
    """Nobody asks the leader before a voter's data is moved aside or rewound."""
    g.without(following.leave_the_voters_first)


# ---- what a primary goes by ------------------------------------------------------------------------------------------------------


def promotes_before_the_names(g: Garden) -> None:
    """The new primary takes writes, and then learns whom to wait for."""

    async def promote(self: perform.Performer, action: do.Promote) -> None:
        await self.postgres.promote()
        await self.postgres.synchronize(action.names)

    g.put(promote, "_promote", perform.Performer)


def promotes_with_any_names(g: Garden) -> None:
    """Who is promoted again in its own leadership forgets what its voters require."""
    before = synchronous.names_to_promote_with
    g.put(lambda v: before(replace(v, cluster=_without_voters(v.cluster))), "names_to_promote_with", synchronous)


def _without_voters(c: Cluster | None) -> Cluster | None:
    return replace(c, sync=replace(c.sync, voters=frozenset(), quorum=0)) if c is not None and c.sync is not None else c


def names_lost_at_a_restart(g: Garden) -> None:
    """A primary that is started in place waits for nobody."""
    before = postgres.SimPostgres.start

    async def start(self: postgres.SimPostgres, **how: Any) -> None:
        self._i.disk.names = ""
        await before(self, **how)

    g.put(start, "start", postgres.SimPostgres)


def proof_of_stale_replies(g: Garden) -> None:
    """A connection that stands is taken for a voter that lives."""
    before = View.proven_until.fget  # type: ignore[attr-defined]

    def proven_until(v: View) -> float | None:
        fresh = {name: replace(reply, changed_at=v.now) for name, reply in v.memory.replies.items()}
        until: float | None = before(replace(v, memory=replace(v.memory, replies=fresh)))
        return until

    g.put(property(proven_until), "proven_until", View)
