"""Builds the agent and runs it: the only place that knows every class. Called by `rivha.__main__`.

One TaskGroup holds the tick, the watch, the fence and the signals; whichever of them fails ends the agent, Postgres goes on and the fence's
place is taken by the lease's end. The process stays in the foreground.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import aiohttp
import structlog

from rivha import __version__
from rivha import config as configuration
from rivha.agent import systemd
from rivha.agent.chores import Chores
from rivha.agent.desk import Desk
from rivha.agent.dynamic import Dynamic
from rivha.agent.fence import Fence
from rivha.agent.job import JobSlot
from rivha.agent.journal import Journal
from rivha.agent.lease import Leases
from rivha.agent.observe import Observer
from rivha.agent.perform import Performer
from rivha.agent.tick import Tick, Waker, stirs
from rivha.api.app import Api
from rivha.config import Config
from rivha.dcs import records
from rivha.dcs.base import Txn
from rivha.dcs.etcd import Etcd
from rivha.errors import CannotRun, DcsUnavailable, RivhaError
from rivha.log import Logging
from rivha.metrics import Metrics
from rivha.model import Member, Outcome
from rivha.postgres.server import Server

log = structlog.get_logger(__name__)

NAME_TAKEN = 5  # exit code, docs/operations.md
ASK_NAMESAKE_S = 2.0


def boottime() -> float:
    """Seconds since boot, a suspended machine's sleep included: a lease must not survive a suspend (HAZARDS H 8)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Agent:
    """One node's agent, wired."""

    def __init__(self, config: Config, logging: Logging, reread: Callable[[], Config]) -> None:
        self.config, self.logging, self.reread = config, logging, reread
        self.dcs = Etcd(config.etcd, config.prefix, boottime)
        self.postgres = Server(config.postgres, boottime)
        self.dynamic = Dynamic(config, self.postgres)
        self.waker = Waker()
        self.jobs = JobSlot(boottime, self.waker.wake)
        self.leases = Leases(self.dcs, boottime)
        self.fence = Fence(boottime, lambda quit_s: self._fenced(quit_s))
        self.journal = Journal()
        self.desk = Desk(boottime, self.journal, self._commit, self._reload, self.waker.wake)
        self.metrics = Metrics(config.scope, config.name)
        self.api = Api(config.restapi, self.desk, self.metrics, config.scope)
        self.checkpoint: asyncio.Task[None] | None = None
        self.tick = self._tick()

    def _tick(self) -> Tick:
        performer = Performer(
            me=self.config.name,
            dcs=self.dcs,
            postgres=self.postgres,
            leases=self.leases,
            jobs=self.jobs,
            desk=self.desk,
            callbacks=self.postgres.callbacks,
            clock=boottime,
            first_config=lambda: self.dynamic.shared,
            configure_first=lambda: self.dynamic.apply(reload=False),
            after_promotion=self._checkpoint,
        )
        chores = Chores(self.config.name, self.dcs, self.postgres, self.leases, self.desk, time.time, lambda v: self.dynamic.apply())
        return Tick(
            me=self.config.name,
            base=_published(self.config),
            clock=boottime,
            wall=time.time,
            observer=Observer(self.dcs, self.postgres, boottime),
            performer=performer,
            chores=chores,
            leases=self.leases,
            jobs=self.jobs,
            fence=self.fence,
            dynamic=self.dynamic,
            desk=self.desk,
            journal=self.journal,
            waker=self.waker,
            measured=self.metrics.tick,
            scheduled_restart=lambda: self.api.scheduled_restart,
            checkpoint_pending=lambda: self.checkpoint is not None and not self.checkpoint.done(),
        )

    async def run(self) -> None:
        """Until a signal ends it. Raises CannotRun."""
        log.info("rivha starts", version=__version__, name=self.config.name, scope=self.config.scope, pid=os.getpid())
        for warning in self.config.warnings:
            log.warning(warning)
        await self.postgres.check_binaries()
        await self._refuse_a_taken_name()
        await self.api.start()
        self.postgres.on_death(self.waker.wake)
        self._listen_to_signals()
        systemd.notify("READY=1")
        background = [asyncio.create_task(self.fence.run(), name="fence"), asyncio.create_task(self._watch(), name="watch")]
        try:
            await self._until_one_ends(asyncio.create_task(self.tick.run(), name="tick"), background)
        finally:
            await self._close(background)

    async def _until_one_ends(self, tick: asyncio.Task[None], background: list[asyncio.Task[None]]) -> None:
        """The tick ends when the agent may; a fence or a watch that ends is a bug, and the agent must not go on without it."""
        done, _ = await asyncio.wait({tick, *background}, return_when=asyncio.FIRST_COMPLETED)
        if tick not in done:
            tick.cancel()
            await asyncio.wait({tick})
        for task in done:
            task.result()

    async def _close(self, background: list[asyncio.Task[None]]) -> None:
        """Whatever is still open; the member key goes at once unless Postgres runs on (paused)."""
        for task in background:
            task.cancel()
        await asyncio.wait(background)
        await self.jobs.cancel()
        await self.tick.chores.withdraw_member(self.dynamic.policy.retry_timeout_s / 2)
        await self.api.stop()
        await self.postgres.close()
        await self.dcs.close()
        log.info("rivha has ended")

    # ---- what wakes and stops the agent

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _stop(self, number: int) -> None:
        """The first signal counts; a second one changes nothing (HAZARDS C 50)."""
        if not self.tick.stopping:
            log.info("asked to end", signal=signal.Signals(number).name)
            systemd.notify("STOPPING=1")
            self.tick.stopping = True
            self.waker.wake()

    def _hang_up(self) -> None:
        self._reloading = asyncio.create_task(self._reload_and_tell(), name="reload")

    async def _reload_and_tell(self) -> None:
        systemd.reloading()
        try:
            log.info("configuration read again", changed=await self._reload())
        except RivhaError as error:
            log.error("the configuration was not taken over", error=str(error))
        systemd.notify("READY=1")

    async def _watch(self) -> None:
        await self.dcs.watch(lambda key: self.waker.wake() if stirs(key, self.desk.latest) else None)

    # ---- what others ask of the agent

    async def _fenced(self, quit_s: float) -> None:
        self.desk.out_of_routing = True
        await self.jobs.cancel()
        await self.postgres.stop(fast_s=0.0, quit_s=quit_s)
        self.waker.wake()

    async def _commit(self, txn: Txn) -> Outcome:
        outcome = await self.dcs.commit(txn, self.dynamic.policy.retry_timeout_s)
        self.waker.wake()
        return outcome

    def _checkpoint(self, term: int) -> None:
        """In the background: pg_rewind of others reads the control file, which names the new timeline only afterwards (HAZARDS B 32)."""
        self.checkpoint = asyncio.create_task(self.postgres.checkpoint(), name="checkpoint")
        self.checkpoint.add_done_callback(lambda task: self._checkpointed(task, term))

    def _checkpointed(self, task: asyncio.Task[None], term: int) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the checkpoint after the promotion failed; the next one will do", error=str(error), term=term)
        self.waker.wake()

    async def _reload(self) -> str:
        """The file again. Raises ConfigError and changes nothing when it has a mistake."""
        new = await asyncio.to_thread(self.reread)
        changed = configuration.changed(self.config, new)
        self.logging.apply(new.log)
        await self.api.reload(new.restapi)
        self.config = self.dynamic.config = new
        self.postgres.reload_settings(new.postgres)
        self.tick.base = replace(self.tick.base, tags=new.tags)
        self.dynamic.recompute()
        await self.dynamic.apply()
        self.postgres.callbacks.call("on_reload", "primary" if self.desk.latest and self.desk.latest.i_lead else "replica")
        self.waker.wake()
        return "; ".join(changed) or "nothing"

    async def _refuse_a_taken_name(self) -> None:
        """Two agents of one name would share a member key, a slot and a pledge (HAZARDS B 82)."""
        try:
            reading = await self.dcs.read(self.dynamic.policy.retry_timeout_s)
        except DcsUnavailable as error:
            log.warning("etcd does not answer yet: whether the name is taken cannot be told", error=str(error))
            return
        member = records.cluster(reading).member(self.config.name)
        if member is not None and member.api_url and await _answers(member.api_url, self.config):
            text = f"Can't start; there is already a node named '{self.config.name}' running"
            raise CannotRun(f"{text} at {member.api_url}: stop it, or choose another name in the configuration", NAME_TAKEN)


async def _answers(api_url: str, config: Config) -> bool:
    """Whether an agent of our name and cluster answers there."""
    timeout = aiohttp.ClientTimeout(total=ASK_NAMESAKE_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(api_url, ssl=False) as response:
            found = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
    told = found.get("patroni", {}) if isinstance(found, dict) else {}
    return (told.get("name"), told.get("scope")) == (config.name, config.scope)


def _published(config: Config) -> Member:
    """The constant part of the member key, in Patroni's words (REFERENCE 1.1)."""
    return Member(
        name=config.name,
        conn_url=f"postgres://{config.postgres.connect_address}/postgres",
        api_url=f"{config.restapi.base_url}/patroni",
        version=__version__,
        tags=dict(config.tags),
    )


def run(config: Config, logging: Logging, reread: Callable[[], Config]) -> None:
    """Runs the agent until it is told to end. `reread` loads the configuration again, for SIGHUP. Raises CannotRun."""
    asyncio.run(Agent(config, logging, reread).run())  # built before the loop runs: it reads files
