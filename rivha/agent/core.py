"""The agent without its machine: tick, fence, prober, job slot, leases, journal, desk, wired to a Dcs and a Postgres.

`agent.main` gives it the real ones, a clock, and adds the REST server and signals; the simulator gives it models and virtual time. So what
is simulated is what runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from rivha.agent.brain.view import View
from rivha.agent.callbacks import Callbacks, Herald
from rivha.agent.chores import Chores
from rivha.agent.desk import Desk
from rivha.agent.dynamic import Dynamic
from rivha.agent.fence import NOTHING, Fence, Safeguards
from rivha.agent.job import JobSlot
from rivha.agent.journal import Journal
from rivha.agent.lease import Leases
from rivha.agent.observe import Observer
from rivha.agent.perform import Performer
from rivha.agent.probe import Ask, Prober
from rivha.agent.tick import Tick, Waker, stirs
from rivha.dcs.base import Dcs, Txn
from rivha.model import Member, Outcome
from rivha.postgres.base import Postgres

log = structlog.get_logger(__name__)


class Core:
    """`clock`: seconds, monotonic; `wall`: seconds since 1970; `ask`: see `probe`. `run` returns when the agent was told to end and has."""

    def __init__(
        self,
        base: Member,
        dcs: Dcs,
        postgres: Postgres,
        dynamic: Dynamic,
        callbacks: Callbacks,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        reload_file: Callable[[], Awaitable[str]],
        ask: Ask,
        measured: Callable[[View, float], None] = lambda view, seconds: None,
        scheduled_restart: Callable[[], Mapping[str, object] | None] = lambda: None,
        safeguards: Safeguards = NOTHING,
    ) -> None:
        self.dcs, self.postgres, self.dynamic = dcs, postgres, dynamic
        self.waker = Waker()
        self.jobs = JobSlot(clock, self.waker.wake)
        self.leases = Leases(dcs, clock)
        self.fence = Fence(clock, self._fenced, safeguards, postgres.is_left)
        self.prober = Prober(ask, clock, self.waker.wake)
        self.journal = Journal()
        self.desk = Desk(clock, self.journal, self._commit, reload_file, self.waker.wake)
        self.performer = Performer(
            me=base.name,
            dcs=dcs,
            postgres=postgres,
            leases=self.leases,
            jobs=self.jobs,
            desk=self.desk,
            herald=Herald(callbacks),
            clock=clock,
            first_config=lambda: dynamic.shared,
            configure_first=dynamic.apply_first,
            arm=safeguards.arm,
        )
        self.tick = Tick(
            me=base.name,
            base=base,
            clock=clock,
            wall=wall,
            observer=Observer(dcs, postgres, clock),
            prober=self.prober,
            performer=self.performer,
            chores=Chores(base.name, dcs, postgres, self.leases, self.desk, wall, lambda v: dynamic.apply(), self.waker.wake),
            leases=self.leases,
            jobs=self.jobs,
            fence=self.fence,
            dynamic=dynamic,
            desk=self.desk,
            journal=self.journal,
            waker=self.waker,
            measured=measured,
            scheduled_restart=scheduled_restart,
            unfit=safeguards.unfit,
        )

    async def run(self) -> None:
        """Raises CannotRun when the agent must not go on."""
        self.postgres.on_death(self.waker.wake)
        beside = {"fence": self.fence.run(), "watch": self._watch(), "probe": self.prober.run()}
        background = [asyncio.create_task(work, name=name) for name, work in beside.items()]
        try:
            await self._until_one_ends(asyncio.create_task(self.tick.run(), name="tick"), background)
        finally:
            for task in background:
                task.cancel()
            await asyncio.wait(background)
            await self.jobs.cancel()
            await self.tick.chores.withdraw_member(self.dynamic.policy.retry_timeout_s / 2)

    def stop(self) -> bool:
        """Asks it to end: hand over, stop Postgres, leave. False when that was asked before."""
        if self.tick.stopping:
            return False
        self.tick.stopping = True
        self.performer.hurry()
        self.waker.wake()
        return True

    async def _until_one_ends(self, tick: asyncio.Task[None], background: list[asyncio.Task[None]]) -> None:
        """The tick ends when the agent may; a fence, a watch or a prober that ends is a bug, and the agent must not go on without it."""
        done, _ = await asyncio.wait({tick, *background}, return_when=asyncio.FIRST_COMPLETED)
        if tick not in done:
            tick.cancel()
            await asyncio.wait({tick})
        for task in done:
            task.result()

    async def _watch(self) -> None:
        await self.dcs.watch(lambda key: self.waker.wake() if stirs(key, self.desk.latest) else None)

    async def _fenced(self, quit_s: float) -> None:
        self.desk.out_of_routing = True
        await self.jobs.cancel(quit_s / 4)  # work that does not end in time, on a disk that hangs, must not save Postgres
        await self.postgres.stop(fast_s=0.0, quit_s=quit_s)
        self.performer.herald.stopped(primary=True)  # it was one, or was becoming one
        self.waker.wake()

    async def _commit(self, txn: Txn) -> Outcome:
        outcome = await self.dcs.commit(txn, self.dynamic.policy.retry_timeout_s)
        self.waker.wake()
        return outcome
