"""Action -> I/O: checks the guard, one short handler per action, the lease before Postgres.

Refusing is normal and no error: the next tick looks again. Long work goes to the job slot; what is awaited here keeps within `budget_s`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace

import structlog

from rivha.agent.brain import actions as do
from rivha.agent.brain.view import Job, Lease, View
from rivha.agent.callbacks import Herald
from rivha.agent.desk import Desk
from rivha.agent.job import JobSlot
from rivha.agent.lease import Leases
from rivha.dcs import writes
from rivha.dcs.base import Dcs, Txn
from rivha.errors import CannotRun, CommandFailed, DcsUnavailable, PostgresUnavailable
from rivha.model import Cluster, History, Outcome, Pledge, PostgresStatus, Resignation, Role, State
from rivha.postgres.base import Postgres

log = structlog.get_logger(__name__)


CHECKPOINT_WHEN_ENDING_S = 20.0  # a hand-over's, once the agent is to end: systemd's patience has an end (docs/rivha.service)


@dataclass(slots=True)
class Performer:
    me: str
    dcs: Dcs
    postgres: Postgres
    leases: Leases
    jobs: JobSlot
    desk: Desk
    herald: Herald
    clock: Callable[[], float]
    first_config: Callable[[], dict[str, object]]  # bootstrap.dcs: what a new cluster's `config` becomes
    configure_first: Callable[[], Awaitable[object]]  # the same, put in force before initdb
    arm: Callable[[], Awaitable[None]]  # the watchdog, before Postgres becomes a primary (HAZARDS C 46)
    _checkpointing: asyncio.Timeout | None = field(default=None, init=False)  # the limit of the one that a stop waits for
    _checkpoint_until: float | None = field(default=None, init=False)  # by the loop's clock, once the agent is to end

    # ---- the lease ----

    async def lease(self, v: View, action: do.LeaseAction) -> Outcome:
        """Carries out a lease verdict. UNKNOWN: whether etcd did it is not known, the next View tells."""
        self.herald.saw(v)
        try:
            outcome = await self._lease(v, action)
        except DcsUnavailable as error:
            log.warning("etcd did not answer", action=type(action).__name__, error=str(error))
            outcome = Outcome.UNKNOWN
        lease = self.leases.leader
        self.herald.deposed_if_dead(v, leads=v.other_leader is None and lease is not None and self.clock() < lease.expires_at)
        return outcome

    async def _lease(self, v: View, action: do.LeaseAction) -> Outcome:
        budget_s = v.policy.retry_timeout_s / 2
        if v.cluster is not None and not v.key_is_mine:
            self.leases.leader = None  # etcd says that I lead nothing: believing in the lease would only keep the fence armed
        match action:
            case do.Nothing():
                return Outcome.REFUSED
            case do.Renew(lease_id):
                return Outcome.DONE if await self.leases.renew(lease_id, v.policy.ttl_s, budget_s) else Outcome.REFUSED
            case do.MakePledge(term):
                await self.jobs.cancel()
                return _begun(self.jobs.begin("pledge", lambda: self._pledge(v, term), term=term, ground=v.ground))
            case do.Rebind():
                return await self._rebind(v)
            case do.Win():
                return await self._take(v, lambda c, lease: writes.win(c, self.me, lease.lease_id))
            case do.Acquire():
                return await self._take(v, self._acquire_txn(v))
            case do.ClaimBootstrap():
                return await self._claim_bootstrap(v, budget_s)
            case do.AbandonBootstrap():
                await self._told(self._cluster(v), writes.abandon_bootstrap, budget_s)
                raise CannotRun(f"the bootstrap of the cluster failed: {v.job.detail if v.job else ''}", 7)
            case do.Withdraw():
                if v.busy_with("pledge"):
                    await self.jobs.cancel()
                return await self._told(self._cluster(v), lambda c: writes.withdraw(c, self.me), budget_s)
            case do.Resign():
                return await self._resign(v, action, budget_s)

    @staticmethod
    def _cluster(v: View) -> Cluster:
        assert v.cluster is not None, "no write to etcd is decided on without a reading of it"
        return v.cluster

    async def _told(self, c: Cluster, build: Callable[[Cluster], Txn], budget_s: float) -> Outcome:
        txn = build(c)
        outcome = await self.dcs.commit(txn, budget_s)
        log.info("etcd", write=build_name(txn), outcome=outcome.value)
        return outcome

    async def _take(self, v: View, build: Callable[[Cluster, Lease], Txn]) -> Outcome:
        """Puts the leader key on a new lease. Refused: the lease is given back. Unknown: it is kept until the next View tells."""
        return (await self._move(v, build))[0]

    async def _move(self, v: View, build: Callable[[Cluster, Lease], Txn]) -> tuple[Outcome, Lease]:
        budget_s = v.policy.retry_timeout_s / 3
        lease = await self.leases.grant(v.policy.ttl_s, budget_s)
        outcome = await self._told(self._cluster(v), lambda c: build(c, lease), budget_s)
        if outcome is Outcome.DONE:
            self.leases.leader = lease
        elif outcome is Outcome.REFUSED:
            await self.dcs.revoke(lease.lease_id, budget_s)
        return outcome, lease

    async def _rebind(self, v: View) -> Outcome:
        """Unknown: the key may hang, or hang later, on the new lease, which nobody renews. What ends first is what I may count on."""
        before = self.leases.leader
        outcome, lease = await self._move(v, lambda c, new: writes.rebind(c, self.me, new.lease_id))
        if outcome is Outcome.UNKNOWN and before is not None:
            self.leases.leader = replace(before, expires_at=min(before.expires_at, lease.expires_at), doubtful=True)
        return outcome

    def _acquire_txn(self, v: View) -> Callable[[Cluster, Lease], Txn]:
        system_id = v.postgres.system_id
        if self._cluster(v).initialize or system_id is None:
            return lambda c, lease: writes.acquire(c, self.me, lease.lease_id)
        return lambda c, lease: writes.finish_bootstrap(c, self.me, lease.lease_id, system_id, self.first_config())

    async def _claim_bootstrap(self, v: View, budget_s: float) -> Outcome:
        member_lease = await self.leases.keep_member(v.policy.ttl_s, budget_s)
        outcome = await self._told(self._cluster(v), lambda _: writes.claim_bootstrap(member_lease), budget_s)
        if outcome is Outcome.DONE:
            self._begin("bootstrap", self._bootstrap, at_end=_if_done(lambda: self.herald.started(v, primary=True)))
        return outcome

    async def _bootstrap(self) -> None:
        await self.configure_first()
        await self.postgres.bootstrap()

    async def _pledge(self, v: View, term: int) -> str:
        """Freeze first, publish after: the pledge must be true before anybody can read it."""
        end = await self.postgres.freeze()
        pledge = Pledge(self.me, term, end.timeline, end.lsn)
        return (await self._told(self._cluster(v), lambda c: writes.pledge(c, pledge), v.policy.retry_timeout_s)).value

    async def _resign(self, v: View, action: do.Resign, budget_s: float) -> Outcome:
        if v.down:  # what a dead postmaster left behind goes first: nothing of it may write or send any more
            await self.postgres.stop(fast_s=0.0)
        timeline = (v.postgres.timeline or 0) if action.lsn else 0
        resignation = Resignation(v.term, self.me, action.candidate, action.lsn, action.reason, timeline=timeline)
        outcome = await self._told(self._cluster(v), lambda c: writes.resign(c, self.me, resignation, action.lsn), budget_s)
        if outcome is Outcome.DONE:
            self.leases.leader = None
        elif outcome is Outcome.UNKNOWN and v.cluster is not None and v.cluster.leader is not None:
            # The key may be gone, or go yet: nothing starts here on this lease, and should I go on leading, then in a new term.
            self.leases.leader = Lease(v.cluster.leader.lease_id, self.clock(), v.policy.ttl_s, doubtful=True)
        return outcome

    # ---- Postgres ----

    async def on_postgres(self, v: View, action: do.PostgresAction) -> Outcome:
        """Begins what was decided; a stale or untimely action is refused."""
        match action:
            case do.Nothing():
                return Outcome.REFUSED
            case do.GiveUp(exit_code, why):
                raise CannotRun(why, exit_code)
            case do.Stop(fast_s, quit_s):
                return await self._stop(v, fast_s, quit_s)
            case do.HandOver(term, candidate):
                return self._begin("handover", lambda: self._hand_over(v, action), subject=candidate or "", term=term)
            case do.Start():
                return self._start(v, action)
            case do.Promote(term, start_before):
                if self.clock() >= start_before or self.leases.leader is None:
                    return Outcome.REFUSED
                return self._begin("promote", lambda: self._promote(action), term=term)
            case do.Synchronize(names):
                return self._begin("synchronize", lambda: self.postgres.synchronize(names), subject=names or "nobody")
            case do.Clone(source):
                return self._begin("clone", lambda: self.postgres.clone(source), subject=source.name)
            case do.Rewind(source):
                return self._begin("rewind", lambda: self.postgres.rewind(source), subject=source.name)
            case do.Follow(upstream):
                if v.busy_with("pledge"):
                    await self.jobs.cancel()
                subject, term = (upstream.name, v.term) if upstream is not None else ("nobody", 0)
                return self._begin("follow", lambda: self.postgres.follow(upstream), subject=subject, term=term)
            case do.Compare(leader, term):
                if v.busy_with("pledge"):
                    await self.jobs.cancel()
                return self._begin("compare", lambda: self._compare(v, action), subject=leader.name, term=term)
            case do.SetAside(why, wish):
                return self._begin("set_aside", lambda: self._set_aside(v, why), at_end=self._settles(wish))
            case do.Restart(wish):
                return self._begin("restart", lambda: self._restart(v), at_end=self._settles(wish))

    def _begin(
        self,
        kind: str,
        work: Callable[[], Coroutine[object, object, object]],
        *,
        subject: str = "",
        term: int = 0,
        at_end: Callable[[Job], None] | None = None,
    ) -> Outcome:
        return _begun(self.jobs.begin(kind, work, subject=subject, term=term, at_end=at_end))

    async def _stop(self, v: View, fast_s: float, quit_s: float) -> Outcome:
        """Out of routing first; whatever job runs gives way."""
        self.desk.out_of_routing = True
        await self.jobs.cancel()
        told = _if_done(lambda: self.herald.stopped(primary=v.is_primary))
        return self._begin("stop", lambda: self.postgres.stop(fast_s=fast_s, quit_s=quit_s), at_end=told)

    async def _hand_over(self, v: View, action: do.HandOver) -> None:
        """The checkpoint comes while clients are served, so that the shutdown's own is short (HAZARDS C 37); it is no condition."""
        try:
            await self._checkpoint()
        except (CommandFailed, PostgresUnavailable) as error:
            log.warning("no checkpoint before the hand-over: the stop may take longer", error=str(error))
        await self._still_streams(v, action.candidate)
        self.desk.out_of_routing = True
        limit_s = v.policy.primary_stop_timeout_s or action.fast_s
        await self.postgres.stop(fast_s=min(limit_s, action.fast_s), linger_s=action.linger_s)
        self.herald.stopped(primary=True)

    def hurry(self) -> None:
        """The agent is to end: a checkpoint that is waited for, or will be, gets no more than so many seconds from now."""
        self._checkpoint_until = asyncio.get_running_loop().time() + CHECKPOINT_WHEN_ENDING_S
        if self._checkpointing is not None:
            self._checkpointing.reschedule(self._checkpoint_until)

    async def _checkpoint(self) -> None:
        """Before a stop: as long as it takes, unless the agent is to end. Raises CommandFailed, PostgresUnavailable."""
        try:
            async with asyncio.timeout_at(self._checkpoint_until) as self._checkpointing:
                await self.postgres.checkpoint()
        except TimeoutError as error:
            raise CommandFailed(f"the checkpoint had not ended {CHECKPOINT_WHEN_ENDING_S:g} s after the agent was asked to end") from error
        finally:
            self._checkpointing = None

    async def _still_streams(self, v: View, candidate: str | None) -> None:
        """The checkpoint may have taken minutes: a candidate that streamed before it and has gone since lacks what came in the meantime."""
        if candidate is None or not _streams(v.postgres, candidate):
            return
        seen = await self.postgres.status(v.policy.retry_timeout_s / 2)
        if seen.state is State.RUNNING and not _streams(seen, candidate):
            raise CommandFailed(f"{candidate} stopped streaming during the checkpoint before the hand-over; Postgres stays the primary")

    def _start(self, v: View, action: do.Start) -> Outcome:
        if action.start_before is not None and self.clock() >= action.start_before:
            return Outcome.REFUSED
        if action.primary and self.leases.leader is None:
            return Outcome.REFUSED  # given up in this very tick
        upstream = action.upstream
        subject = "primary" if action.primary else (upstream.name if upstream else "standby of nobody")

        async def start() -> None:
            if action.primary:
                await self.arm()
            self._in_time(action.start_before)
            await self.postgres.start(primary=action.primary, upstream=upstream)  # names: as they lie, which keep the rule

        told = _if_done(lambda: self.herald.started(v, primary=action.primary))
        return self._begin("start", start, subject=subject, term=v.term if upstream else 0, at_end=told)

    def _in_time(self, start_before: float | None) -> None:
        """Once more, as the last thing before Postgres may write: the whole machine may have stood still since the decision."""
        if start_before is not None and self.clock() >= start_before:
            raise CommandFailed("the lease has become too short since this was decided; the next tick decides anew")

    async def _promote(self, action: do.Promote) -> None:
        """The names come first: not one commit of the new primary is to be acknowledged without them."""
        await self.arm()
        await self.postgres.synchronize(action.names, surely=action.surely)
        self._in_time(action.start_before)
        await self.postgres.promote()
        self.herald.promoted()

    async def _compare(self, v: View, action: do.Compare) -> str:
        history, text = await self.postgres.compare(action.leader)
        if history is History.UNKNOWN:
            raise CommandFailed(f"my history cannot be compared with that of {action.leader.name}", text)
        log.info("compared histories", leader=action.leader.name, result=history.value, why=text)
        return history.value

    async def _set_aside(self, v: View, why: str) -> None:
        if not v.down:
            await self.postgres.stop(fast_s=10.0)
            self.herald.stopped(primary=v.is_primary)
        log.warning("the data directory was moved aside, nothing was deleted", to=await self.postgres.set_aside(why))

    async def _restart(self, v: View) -> None:
        primary = v.postgres.role is Role.PRIMARY
        if primary:
            await self._checkpoint()
        await self.postgres.restart()
        self.herald.restarted(primary=primary)

    def _settles(self, wish: int) -> Callable[[Job], None] | None:
        if not wish:
            return None
        return lambda job: self.desk.settle(wish, job.outcome == "done", job.detail or job.outcome)


def _streams(p: PostgresStatus, name: str) -> bool:
    return any(row.application_name == name for row in p.replication)


def _if_done(tell: Callable[[], None]) -> Callable[[Job], None]:
    return lambda job: tell() if job.outcome == "done" else None


def _begun(yes: bool) -> Outcome:
    return Outcome.DONE if yes else Outcome.REFUSED


def build_name(txn: Txn) -> str:
    """The keys that a transaction writes, for the log."""
    return " ".join(sorted(write.key for write in txn.then))
