"""The loop: wake, observe, remember, decide, record, perform. One tick a beat, and one at once when something happens.

The tick itself renews the lease: if it stops, the lease ends and the fence fires. It must never wait for anything longer than its budget.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from rivha.agent.alarms import Alarms
from rivha.agent.brain.actions import Promote, Stop
from rivha.agent.brain.decide import decide
from rivha.agent.brain.memory import Memory, remember
from rivha.agent.brain.synchronous import next_step
from rivha.agent.brain.upkeep import describe, settings, upkeep
from rivha.agent.brain.view import Situation, View, Witness
from rivha.agent.chores import Chores
from rivha.agent.desk import Desk
from rivha.agent.dynamic import Dynamic
from rivha.agent.fence import FENCE_SHARE, Fence
from rivha.agent.job import JobSlot
from rivha.agent.journal import Entry, Journal
from rivha.agent.lease import Leases
from rivha.agent.observe import Observer
from rivha.agent.perform import Performer
from rivha.agent.probe import Prober
from rivha.model import Cluster, Member, Outcome, Policy

log = structlog.get_logger(__name__)

LEAST_LOOK_S = 0.3  # however near the lease's end is: etcd and Postgres get a chance to answer
RESTLESS_BEAT_S = 0.2  # while nobody leads or something must be waited for: short, but kind to etcd
CONNECTING_S = 5.0  # a standby that was told whom to follow streams within milliseconds; people shall see it soon
BURST = 25  # ticks in quick succession before a pause is forced: a quarrel with etcd must not become a storm
BURST_GAP_S = 0.25


@dataclass(slots=True)
class Waker:
    """Many wishes for a tick become one."""

    event: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.event.set()

    async def sleep(self, seconds: float) -> bool:
        """True when woken before `seconds` had passed."""
        over = False

        def rest_is_over() -> None:
            nonlocal over
            over = not self.event.is_set()
            self.event.set()

        alarm = asyncio.get_running_loop().call_later(max(seconds, 0.0), rest_is_over)
        try:
            await self.event.wait()
        finally:
            alarm.cancel()
            self.event.clear()
        return not over


@dataclass(slots=True)
class Tick:
    me: str
    base: Member  # my member key's constant part: name, addresses, version, tags
    clock: Callable[[], float]
    wall: Callable[[], float]
    observer: Observer
    prober: Prober
    performer: Performer
    chores: Chores
    leases: Leases
    jobs: JobSlot
    fence: Fence
    dynamic: Dynamic
    desk: Desk
    journal: Journal
    waker: Waker
    measured: Callable[[View, float], None]  # metrics: a view and what its tick cost in seconds
    alarms: Alarms = field(default_factory=Alarms)
    memory: Memory = field(default_factory=Memory)
    stopping: bool = False
    # Set when etcd was silent as the agent began: raises CannotRun if another agent of my name runs, within some seconds.
    admit: Callable[[Cluster], Awaitable[None]] | None = None
    unfit: Callable[[], str] = lambda: ""  # why this machine must not lead
    scheduled_restart: Callable[[], Mapping[str, object] | None] = lambda: None
    _quick: int = 0
    _step_down_at: float | None = None  # as the last look found it; or when a Postgres that is silent is to be killed

    async def run(self) -> None:
        """Until the agent is to end and nothing is left to hand over; raises CannotRun when it must not go on."""
        while True:
            began = self.clock()
            view, moved = await self.once()
            if self.stopping and _is_over(view):
                return
            if moved:
                self.waker.wake()
            await self._rest(view, began)

    async def _rest(self, view: View, began: float) -> None:
        woken = await self.waker.sleep(min(began + beat_s(view), _steps_down_at(view)) - self.clock())
        self._quick = self._quick + 1 if woken else 0
        if self._quick > BURST:
            await asyncio.sleep(BURST_GAP_S)

    async def once(self) -> tuple[View, bool]:
        """One tick. The second value: something was done whose effect the next look will show, so look at once."""
        began = self.clock()
        view = await self._look()
        if self.admit is not None and view.cluster is not None:
            await self.admit(view.cluster)
            self.admit = None
            view = await self._look()
        decision = decide(view)
        self._tell(Entry(began, self.wall(), view, decision, self.clock() - began))
        leaving = view.busy_with("handover") and self.desk.out_of_routing  # not yet: it serves during its checkpoint
        self.desk.out_of_routing = view.busy_with("stop") or leaving or self.fence.firing
        self.desk.publish(view)

        # A primary that must stop does not wait for etcd's answer about anything.
        urgent = view.is_primary and isinstance(decision.postgres.action, Stop)
        postgres_outcome = await self.performer.on_postgres(view, decision.postgres.action) if urgent else Outcome.REFUSED
        if view.policy.paused:
            self._vouch(view)  # before etcd is waited for: nothing is fenced in a pause
        lease_outcome = await self.performer.lease(view, decision.lease.action)
        self._vouch(view)
        await self.chores.perform(view, settings(view, self.chores.done))
        # An answer that did not come took its time: another may lead by now, and the next look will tell.
        late = lease_outcome is Outcome.UNKNOWN and isinstance(decision.postgres.action, Promote)
        if not (urgent or late):
            postgres_outcome = await self.performer.on_postgres(view, decision.postgres.action)
        if view.lease is not self.leases.leader or view.job is not self.jobs.job:
            view = replace(view, lease=self.leases.leader, job=self.jobs.job)
        self._vouch(view)  # again: a promotion may have begun
        self.chores.saw(view)
        self.desk.publish(view)
        member = describe(view, self.base, self.scheduled_restart())
        self.chores.moved = False
        await self.chores.perform(view, upkeep(view, member, self.chores.done))
        await self.chores.keep_member_alive(view)
        self.journal.took(began, self.clock() - began)
        self.measured(view, self.clock() - began)
        renewed = type(decision.lease.action).__name__ in ("Renew", "Nothing")
        moved = (lease_outcome is Outcome.DONE and not renewed) or postgres_outcome is Outcome.DONE or self.chores.moved
        return view, moved or _adopted(view, self.leases)

    async def _look(self) -> View:
        """Observe, then remember."""
        # Before the look: a job that ends during it has changed what the look may have missed. Seen as running, it is looked at again.
        job = self.jobs.job
        watched, lease_id = self._watch()
        seen = await self.observer.look(self._budget_s(self.dynamic.policy), lease_id)
        self.dynamic.heard(seen.cluster.config if seen.cluster else None)
        view = View(
            now=self.clock(),
            wall=self.wall(),
            me=self.me,
            tags=self.base.tags,
            policy=self.dynamic.policy,
            postgres=seen.postgres,
            postgres_seen_at=seen.at,
            cluster=seen.cluster,
            cluster_seen_at=self.observer.last_cluster_at,
            last_cluster=self.observer.last_cluster,
            lease=self.leases.leader,
            job=job,
            wishes=tuple(self.desk.wishes.values()),
            memory=self.memory,
            stopping=self.stopping,
            member_lease_id=self.leases.member.lease_id if self.leases.member else 0,
            unfit=self.unfit(),
            witness=Witness(watched, self.prober.silent_for_s(watched), seen.unrenewed_s) if watched is not None else None,
        )
        self.memory = remember(view)
        view = replace(view, memory=self.memory, sync_doubtful=self._sync_is_doubtful(view))
        self._step_down_at = min((at for at in (view.step_down_at, _hangs_too_long_at(view)) if at is not None), default=None)
        return view

    def _sync_is_doubtful(self, v: View) -> bool:
        """A record of mine may be carried out yet, or was and has not been read back: the proof would rest on voters of before.

        Etcd's silence settles no doubt.
        """
        done, read = self.chores.done, self.observer.last_cluster
        unread = read is None or read.revision <= done.recorded_on
        return (v.key_is_mine or v.cluster is None) and (unread or not done.sync_settled)

    def _watch(self) -> tuple[str | None, int | None]:
        """Whom I watch as a voter, and, once it does not answer, the lease to ask about: the two witnesses of DESIGN 6.1."""
        policy, c = self.dynamic.policy, self.observer.last_cluster
        holder = (c.leader.name if c.leader else c.sync.leader if c.sync else None) if c else None
        if c is None or c.sync is None or policy.paused or self.me not in c.sync.voters or holder == self.me:
            holder = None
        member = c.member(holder) if c else None
        self.prober.aim(holder, member.api_url if member else "", policy.suspect_after_s)
        silent = holder is not None and self.prober.silent_for_s(holder) >= policy.suspect_after_s
        return holder, c.leader.lease_id if silent and c is not None and c.leader is not None else None

    def _budget_s(self, policy: Policy) -> float:
        """For one look; cut short when the end of a primary's patience is near, so that a silent etcd or Postgres does not make it late."""
        if self._step_down_at is None:
            return policy.retry_timeout_s / 2
        return min(policy.retry_timeout_s / 2, max(self._step_down_at - self.clock(), LEAST_LOOK_S))

    def _tell(self, entry: Entry) -> None:
        """Changes, not beats; that a job runs is told by the job."""
        if self.journal.record(entry) and entry.decision.postgres.rule != "wait_for_the_job":
            lease, postgres = entry.decision.lease, entry.decision.postgres
            facts = {"lease": lease.reason, "postgres": postgres.reason, "rules": f"{lease.rule}/{postgres.rule}"}
            log.info("decision", situation=entry.view.situation.value, **facts)
        self.alarms.look(entry.view, entry.decision, self.fence.fired)

    def _vouch(self, v: View) -> None:
        """Moves the fence's deadline: to the end of the lease or of the voters' proof while I lead, away when there is nothing to fence."""
        lease, proven = self.leases.leader, v.proven_until
        by_lease = None if lease is None else lease.expires_at - lease.ttl_s * FENCE_SHARE
        by_proof = None if proven is None else proven + v.policy.retry_timeout_s + v.policy.loop_wait_s  # the rules come first
        until = max((at for at in (by_lease, by_proof) if at is not None), default=None)
        if v.policy.paused or until == math.inf:
            self.fence.vouch(None)
        elif until is not None and (v.is_primary or _becomes_primary(v)):
            self.fence.vouch(until, quit_s=v.policy.ttl_s * FENCE_SHARE / 2)
        elif not v.is_primary or v.busy_with("bootstrap") or v.bootstrap_is_mine:
            self.fence.vouch(None)
        elif self.fence.deadline is None:
            # A primary without a lease: adopted, or just deprived. The rules stop it; the fence sees to it that they do.
            self.fence.vouch(self.clock() + v.policy.retry_timeout_s + v.policy.loop_wait_s, earned=False)


def _becomes_primary(v: View) -> bool:
    job = v.job
    return v.busy and job is not None and (job.kind in ("promote", "restart") or (job.kind, job.subject) == ("start", "primary"))


def _steps_down_at(v: View) -> float:
    """A look is due then, lest the fence be the first to notice."""
    at = v.step_down_at
    return at if v.is_primary and at is not None and v.now < at else float("inf")


def _hangs_too_long_at(v: View) -> float | None:
    """When a Postgres that answers nothing has done so for hang_timeout; None: it answers, or that is past."""
    since = v.memory.silent_since
    at = None if since is None else since + v.policy.hang_timeout_s
    return at if at is not None and v.now < at else None


def _adopted(v: View, leases: Leases) -> bool:
    """The leader key's lease was just adopted: the next look finds me leading."""
    return v.situation is Situation.LEADERLESS and v.key_is_mine and leases.leader is not None


def _is_over(v: View) -> bool:
    """Paused, Postgres is left alone; else it has stopped and the key is somebody else's or nobody's."""
    if v.policy.paused:
        return True
    return v.down and not v.busy and (not v.key_is_mine or v.cluster is None)


def beat_s(v: View) -> float:
    """How long until the next look, if nothing wakes the tick before."""
    since = v.memory.not_streaming_since
    connecting = since is not None and v.now - since < CONNECTING_S
    restless = v.situation is Situation.LEADERLESS or (v.situation is Situation.LEADING and not v.running) or v.stopping or connecting
    suspicious = v.witness is not None and v.witness.silent_s >= v.policy.suspect_after_s
    unsettled = v.i_lead and next_step(v) is not None
    if restless or suspicious or unsettled:
        return min(RESTLESS_BEAT_S, v.policy.loop_wait_s)
    if v.i_lead and v.voters:  # each beat renews: a longer one would be taken for silence, and leave one witness of two (DESIGN 6.1)
        return min(v.policy.loop_wait_s, v.policy.suspect_after_s / 2)
    return v.policy.loop_wait_s


def stirs(key: str, v: View | None) -> bool:
    """Whether a change of this key is worth a tick: positions that merely move are not."""
    if key.startswith("members/"):
        follows = v is not None and v.postgres.streaming and v.points_at_the_leader
        return v is None or (v.other_leader == key.removeprefix("members/") and not follows)
    return key != "status"
