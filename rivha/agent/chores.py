"""Carries out the chores that `brain.upkeep` found due, and remembers which were done. None of them changes who leads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from rivha.agent.brain.quorum import Electors
from rivha.agent.brain.upkeep import (
    Checkpoint,
    Chore,
    ClearFailover,
    Configure,
    HoldSynchronously,
    Housekeeping,
    KeepSlots,
    Publish,
    RecordVoters,
    RefuseWish,
    Restore,
    WriteHistory,
)
from rivha.agent.brain.view import View
from rivha.agent.desk import Desk
from rivha.agent.lease import Leases
from rivha.dcs import writes
from rivha.dcs.base import Dcs, Txn
from rivha.errors import CommandFailed, DcsUnavailable, PostgresUnavailable
from rivha.model import Outcome
from rivha.postgres.base import Postgres
from rivha.postgres.settings import slot_name

log = structlog.get_logger(__name__)


class Chores:
    """`done` is what `upkeep` compares with. Failures are told once per change and tried again at the next tick."""

    def __init__(
        self,
        me: str,
        dcs: Dcs,
        postgres: Postgres,
        leases: Leases,
        desk: Desk,
        wall: Callable[[], float],
        configure: Callable[[View], Awaitable[Mapping[str, object]]],  # puts a new dynamic configuration in force; answers it whole
        wake: Callable[[], None],  # a look is due: something is to be published
    ) -> None:
        self._me, self._dcs, self._postgres, self._leases, self._desk = me, dcs, postgres, leases, desk
        self._wall, self._configure, self._wake = wall, configure, wake
        self.done = Housekeeping(my_slot=slot_name(me))
        self.moved = False  # `sync` was written: the next change may be due at once
        self._complaint = ""
        self._slots_task: asyncio.Task[None] | None = None
        self._checkpoint_task: asyncio.Task[None] | None = None

    def saw(self, v: View) -> None:
        """Keeps who was seen when, for member_slots_ttl, and that I did not lead."""
        if v.cluster is not None:
            seen = {**self.done.slots_seen, **{m.name: v.now for m in v.cluster.members}}
            kept = {n: at for n, at in seen.items() if v.now - at < v.policy.member_slots_ttl_s}
            # What is guarded by a leadership that is over is refused for ever, also what an agent before this one sent.
            self.done = replace(self.done, slots_seen=kept, sync_settled=self.done.sync_settled or not v.key_is_mine)

    async def perform(self, v: View, chores: tuple[Chore, ...]) -> None:
        for chore in chores:
            try:
                await self._perform(v, chore)
            except (DcsUnavailable, CommandFailed, PostgresUnavailable, OSError) as error:
                self._tell(f"{type(chore).__name__}: {error}")
                return
        self._tell("")

    def _tell(self, complaint: str) -> None:
        if complaint and complaint != self._complaint:
            log.warning("a chore failed, trying again", chore=complaint)
        self._complaint = complaint

    async def _perform(self, v: View, chore: Chore) -> None:
        budget_s = v.policy.retry_timeout_s / 2
        match chore:
            case Publish():
                await self._publish(v, chore, budget_s)
            case RecordVoters(electors):
                await self._record_voters(v, electors, budget_s)
            case HoldSynchronously(on):
                assert v.cluster is not None
                outcome = await self._dcs.commit(writes.hold_synchronously(v.cluster, self._me, on), budget_s)
                self.done = replace(self.done, held_term=v.term if outcome is Outcome.DONE else 0)
            case Restore(initialize, config):
                await self._restore(v, initialize, config, budget_s)
            case ClearFailover(why):
                assert v.cluster is not None
                log.info("the request in `failover` is over", why=why)
                await self._dcs.commit(writes.clear_failover(v.cluster), budget_s)
            case WriteHistory():
                await self._write_history(v, budget_s)
            case Configure(revision):
                await self._configure(v)
                self.done = replace(self.done, configured_revision=revision)
            case Checkpoint():
                self._checkpoint(v, chore)
            case KeepSlots():
                self._keep_slots(v, chore)
            case RefuseWish(number, why):
                self._desk.settle(number, False, why)

    async def _publish(self, v: View, chore: Publish, budget_s: float) -> None:
        assert v.cluster is not None
        lease_id = await self._leases.keep_member(v.policy.ttl_s, budget_s)
        txns: list[Txn] = []
        if chore.member is not None:
            txns.append(writes.publish_member(chore.member, lease_id))
        if chore.status:
            txns.append(writes.publish_status(v.cluster, chore.optime, chore.slots, v.cluster.retain_slots))
        if await self._dcs.commit(writes.merge(*txns), budget_s) is not Outcome.DONE:
            return
        d = self.done
        self.done = replace(
            d,
            published=chore.member or d.published,
            published_at=v.now,
            optime=chore.optime if chore.status else d.optime,
            slots=chore.slots if chore.status else d.slots,
        )

    async def _record_voters(self, v: View, electors: Electors, budget_s: float) -> None:
        """Unknown: it may be carried out at any time yet, and the next write takes its ground away before anything else is changed."""
        assert v.cluster is not None
        outcome = await self._dcs.commit(writes.record_voters(v.cluster, self._me, electors.voters, electors.quorum), budget_s)
        self.done = replace(self.done, sync_settled=outcome is Outcome.DONE, recorded_on=v.cluster.revision)
        self.moved = outcome is Outcome.DONE
        changed = v.sync is None or (v.sync.voters, v.sync.quorum) != (electors.voters, electors.quorum)
        if changed:
            names, needed = ", ".join(sorted(electors.voters)), electors.quorum + 1
            log.info("who may elect", voters=names or "nobody: only I may lead", needed=needed if names else 0, outcome=outcome.value)

    async def keep_member_alive(self, v: View) -> None:
        """Once a tick: cheap unless the lease is due."""
        if v.cluster is not None and self.done.published is not None:
            try:
                await self._leases.keep_member(v.policy.ttl_s, v.policy.retry_timeout_s / 2)
            except DcsUnavailable as error:
                self._tell(f"member lease: {error}")

    async def _restore(self, v: View, initialize: str | None, config: bool, budget_s: float) -> None:
        assert v.cluster is not None
        known = await self._configure(v) if config else None
        log.warning("etcd lost records of this cluster: restoring them", initialize=initialize, config=config)
        await self._dcs.commit(writes.restore(v.cluster, initialize, known), budget_s)

    async def _write_history(self, v: View, budget_s: float) -> None:
        assert v.cluster is not None
        known = {(line.timeline, line.lsn): line for line in v.cluster.history}
        now = datetime.fromtimestamp(self._wall(), UTC).isoformat()
        lines = await self._postgres.timelines()
        if not lines:
            self.done = replace(self.done, history_term=v.term)
            return
        mine = replace(lines[-1], at=now, new_leader=self._me)
        fresh = tuple(known.get((x.timeline, x.lsn)) or (mine if x is lines[-1] else x) for x in lines)
        kept = fresh[-v.policy.max_timelines_history :] if v.policy.max_timelines_history else fresh
        if kept == v.cluster.history or await self._dcs.commit(writes.put_history(v.cluster, kept), budget_s) is Outcome.DONE:
            self.done = replace(self.done, history_term=v.term)

    def _checkpoint(self, v: View, chore: Checkpoint) -> None:
        """Beside the tick: it takes as long as much was written."""
        if self._checkpoint_task is not None and not self._checkpoint_task.done():
            return
        self._checkpoint_task = asyncio.create_task(self._postgres.checkpoint(), name="checkpoint")
        self._checkpoint_task.add_done_callback(self._checkpointed)
        self.done = replace(self.done, checkpoint=chore, checkpoint_at=v.now)

    def _checkpointed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the checkpoint after the promotion failed; it is asked for again", error=str(error))
        self._wake()

    def _keep_slots(self, v: View, chore: KeepSlots) -> None:
        """Beside the tick: advancing a slot can take minutes (HAZARDS F 90)."""
        if self._slots_task is not None and not self._slots_task.done():
            return
        wanted = {slot_name(name) for name in chore.wanted}
        self._slots_task = asyncio.create_task(self._postgres.keep_slots(wanted, chore.advance), name="slots")
        self._slots_task.add_done_callback(self._slots_done)
        self.done = replace(self.done, slots_kept=chore, slots_kept_at=v.now)

    def _slots_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell(f"slots: {error}")

    async def withdraw_member(self, budget_s: float) -> None:
        """At the agent's end: the member key goes with its lease."""
        if self._slots_task is not None:
            self._slots_task.cancel()
        if self._leases.member is not None:
            try:
                await self._dcs.revoke(self._leases.member.lease_id, budget_s)
            except DcsUnavailable as error:
                log.warning("the member key could not be removed; it goes with its lease", error=str(error))
