"""Mutants of the lease and of what etcd says. See mutants.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rivha.agent import fence, lease, observe, perform, tick
from rivha.agent.brain import actions as do
from rivha.agent.brain import following, holding, leading, waiting
from rivha.agent.brain.view import Lease, View
from rivha.dcs import writes
from rivha.dcs.base import Delete, Txn
from rivha.errors import DcsUnavailable
from rivha.model import LeaderKey, Outcome, Role
from tests.sim.planting import Garden

# ---- time and the lease ----------------------------------------------------------------------------------------------------------


def expiry_counted_from_the_reply(g: Garden) -> None:
    """The lease's end is reckoned from when the renewal was answered, not from when it was sent."""

    async def renew(self: lease.Leases, lease_id: int, wanted_ttl_s: float, budget_s: float) -> bool:
        granted_s = await self._dcs.renew(lease_id, budget_s)
        self.leader = Lease(lease_id, self._clock() + granted_s, granted_s) if granted_s else None
        return bool(granted_s)

    g.put(renew, "renew", lease.Leases)


def no_fence(g: Garden) -> None:
    """Nothing beside the loop stops Postgres when the tick hangs."""

    async def run(self: fence.Fence) -> None:
        await asyncio.Event().wait()

    g.put(run, "run", fence.Fence)


def fence_trusts_the_brain(g: Garden) -> None:
    """The fence's deadline follows the tick, not the lease."""

    def vouch(self: tick.Tick, v: View) -> None:
        self.fence.vouch(self.clock() + 2 * v.policy.ttl_s if v.is_primary else None)

    g.put(vouch, "_vouch", tick.Tick)


def neither_fence_nor_step_down(g: Garden) -> None:
    """A primary that cannot renew goes on for ever."""
    no_fence(g)
    g.without(leading.stop_before_my_lease_runs_out)


def blind_primary_restarts_without_its_lease(g: Garden) -> None:
    """etcd is silent and Postgres crashed: it is started in place although the lease is over."""

    def restart(v: View) -> do.PostgresVerdict | None:
        if v.down and v.has_data and v.postgres.role is Role.PRIMARY and not v.stopping and v.may_retry("start"):
            return do.Verdict(do.Start(True, None, None), "planted")
        return None

    async def start_anyway(self: perform.Performer, v: View, action: do.Start) -> Outcome:
        self._begin("start", lambda: self.postgres.start(primary=action.primary, upstream=action.upstream), subject="primary")
        return Outcome.DONE

    before = perform.Performer.on_postgres

    async def on_postgres(self: perform.Performer, v: View, action: do.PostgresAction) -> Outcome:
        planted = isinstance(action, do.Start) and action.primary and action.start_before is None
        return await (start_anyway(self, v, action) if planted else before(self, v, action))  # type: ignore[arg-type]

    g.instead(waiting.restart_in_place_while_my_lease_lives, restart)
    g.put(on_postgres, "on_postgres", perform.Performer)


def promotes_without_a_last_look(g: Garden) -> None:
    """`start_before` is not compared with the clock when the promotion begins."""
    before = perform.Performer.on_postgres

    async def on_postgres(self: perform.Performer, v: View, action: do.PostgresAction) -> Outcome:
        late = replace(action, start_before=float("inf")) if isinstance(action, do.Promote) else action
        return await before(self, v, late)

    g.put(on_postgres, "on_postgres", perform.Performer)


def lease_never_rebound(g: Garden) -> None:
    """A changed ttl never reaches the leader key's lease."""
    g.without(holding.move_to_a_lease_of_the_new_ttl)


def rebound_lease_taken_for_granted(g: Garden) -> None:
    """The key's move to another lease is of unknown outcome, and the leader counts on the old lease."""
    g.put(perform.Performer._take, "_take", perform.Performer)

    async def rebind(self: perform.Performer, v: View) -> Outcome:
        return (await self._move(v, lambda c, new: writes.rebind(c, self.me, new.lease_id)))[0]

    g.put(rebind, "_rebind", perform.Performer)


def a_live_lease_is_leadership(g: Garden) -> None:
    """Who renews a lease believes that the key still hangs on it (HAZARDS A 5)."""
    before = tick.Tick._look

    async def look(self: tick.Tick) -> View:
        v = await before(self)
        if v.cluster is None or v.lease is None or not v.lease_is_live or v.key_is_mine:
            return v
        mine = LeaderKey(v.me, v.lease.lease_id, v.memory.last_term)
        return replace(v, cluster=replace(v.cluster, leader=mine))

    g.put(look, "_look", tick.Tick)


# ---- what etcd says --------------------------------------------------------------------------------------------------------------


def unknown_taken_for_done(g: Garden) -> None:
    """A winning transaction without an answer counts as won: the promotion begins without another look."""
    before = perform.Performer._move

    async def move(self: perform.Performer, v: View, build: Callable[..., Txn]) -> tuple[Outcome, Lease]:
        outcome, new = await before(self, v, build)
        if outcome is Outcome.UNKNOWN and v.my_pledge is not None:
            self.leases.leader = new
            self._begin("promote", lambda: self._promote(do.Promote(v.term, new.expires_at)))
        return outcome, new

    g.put(move, "_move", perform.Performer)


def unknown_resignation_forgotten(g: Garden) -> None:
    """The key may have been given back, and Postgres is started in place all the same."""
    before = perform.Performer._resign

    async def resign(self: perform.Performer, v: View, action: do.Resign, budget_s: float) -> Outcome:
        held = self.leases.leader
        outcome = await before(self, v, action, budget_s)
        if outcome is Outcome.UNKNOWN:
            self.leases.leader = held
        return outcome

    g.put(resign, "_resign", perform.Performer)


def stale_read_taken_for_truth(g: Garden) -> None:
    """A leader that could not renew reads again whether it still leads, and an old answer will do (HAZARDS A 7)."""
    before = observe.Observer._read

    async def read(self: observe.Observer, budget_s: float) -> Any:
        cluster, error = await before(self, budget_s)
        return (cluster or self.last_cluster), error

    async def lease_of(self: perform.Performer, v: View, action: do.LeaseAction) -> Outcome:
        try:
            return await self._lease(v, action)
        except DcsUnavailable:
            if isinstance(action, do.Renew) and v.key_is_mine:
                self.leases.leader = Lease(action.lease_id, self.clock() + v.policy.ttl_s, v.policy.ttl_s)
            return Outcome.UNKNOWN

    g.put(read, "_read", observe.Observer)
    g.put(lease_of, "lease", perform.Performer)


def leader_ignores_a_foreign_key(g: Garden) -> None:
    """A primary that finds another name in the key goes on."""
    g.without(following.step_down_for_the_leader)


def wins_without_comparing(g: Garden) -> None:
    """The winning transaction compares nothing: who was elected long ago still takes the key."""
    before = writes.win
    g.put(lambda c, me, lease_id: replace(before(c, me, lease_id), when=()), "win", writes)


def takes_the_key_from_its_holder(g: Garden) -> None:
    """A primary that wants the lead again does not compare whether somebody else took it."""
    before = writes.acquire
    g.put(lambda c, me, lease_id: replace(before(c, me, lease_id), when=()), "acquire", writes)


def withdraws_blindly(g: Garden) -> None:
    """A pledge is taken back although the leadership has changed meanwhile."""
    g.put(lambda c, me: Txn((), (Delete(f"rivha/pledges/{me}"),)), "withdraw", writes)


def claims_without_comparing(g: Garden) -> None:
    """Two nodes make a cluster at once."""
    before = writes.claim_bootstrap
    g.put(lambda lease_id: replace(before(lease_id), when=()), "claim_bootstrap", writes)


def resigns_another_leadership(g: Garden) -> None:
    """A resignation deletes the key, whoever holds it by now."""
    before = writes.resign
    g.put(lambda c, me, r, optime: replace(before(c, me, r, optime), when=()), "resign", writes)
