"""The agent on its machine: etcd, PostgreSQL, REST server, signals around the core. Called by `rivha.__main__`.

The process stays in the foreground. Whatever of it fails ends it: Postgres goes on, and the lease's end takes the fence's place.
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
from rivha.agent.brain.view import View
from rivha.agent.core import Core
from rivha.agent.dynamic import Cache, Dynamic
from rivha.agent.safeguards import Machine
from rivha.api.app import Api
from rivha.api.ask import HttpAsk
from rivha.config import Config
from rivha.dcs import records
from rivha.dcs.etcd import Etcd
from rivha.errors import CannotRun, DcsUnavailable, RivhaError
from rivha.log import Logging
from rivha.metrics import Metrics
from rivha.model import Cluster, Member
from rivha.postgres.callbacks import LAST_WORD_S
from rivha.postgres.server import Server

log = structlog.get_logger(__name__)

NAME_TAKEN = 5  # exit code, docs/operations.md
ASK_NAMESAKE_S = 2.0


def boottime() -> float:
    """Seconds since boot, a suspended machine's sleep included: a lease must not survive a suspend (HAZARDS H 8)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Agent:
    """One node's agent on its machine."""

    def __init__(self, config: Config, logging: Logging, reread: Callable[[], Config]) -> None:
        self.config, self.logging, self.reread = config, logging, reread
        self.dcs = Etcd(config.etcd, config.prefix, boottime)
        self.postgres = Server(config.postgres, boottime)
        self.ask = HttpAsk(config.restapi, config.ctl)
        self.metrics = Metrics(config.scope, config.name)
        cache = Cache(config.postgres.data_dir)
        self.dynamic = Dynamic(config.local, config.bootstrap_dcs, self.postgres, cache.read(), cache.keep)
        self.safeguards = Machine(
            config.postgres.data_dir,
            lambda: self.dynamic.policy,
            boottime,
            guard=config.watchdog.guard,
            mode=config.watchdog.mode,
            device=config.watchdog.device,
            margin_s=config.watchdog.safety_margin_s,
        )
        self.core = Core(
            _published(config),
            self.dcs,
            self.postgres,
            self.dynamic,
            self.postgres.callbacks,
            clock=boottime,
            wall=time.time,
            reload_file=self._reload,
            ask=self.ask,
            measured=self._ticked,
            scheduled_restart=lambda: self.api.scheduled_restart,
            safeguards=self.safeguards,
        )
        self.api = Api(config.restapi, self.core.desk, self.metrics, config.scope)

    async def run(self) -> None:
        """Until a signal ends it. Raises CannotRun."""
        log.info("rivha starts", version=__version__, name=self.config.name, scope=self.config.scope, pid=os.getpid())
        for warning in self.config.warnings:
            log.warning(warning)
        try:
            await self.postgres.check_binaries()
            await self._refuse_a_taken_name()
            await self.api.start()
            self._listen_to_signals()
            systemd.notify("READY=1")
            await self._govern()
        finally:
            await self.api.stop()
            await self.ask.close()
            await self.postgres.callbacks.close(LAST_WORD_S)
            await self.postgres.close()
            await self.dcs.close()
        log.info("rivha has ended")

    async def _govern(self) -> None:
        """An agent that ends on purpose leaves on purpose what it leaves; of one that fails the last word stands, and the guard with it."""
        on_purpose = False
        try:
            await self.core.run()
            on_purpose = True
        except CannotRun:
            on_purpose = True
            raise
        finally:
            await self.safeguards.close(release=on_purpose)

    def _ticked(self, view: View, seconds: float) -> None:
        self.metrics.tick(view, seconds)
        self.safeguards.ticked(view)

    # ---- what wakes and stops the agent

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _stop(self, number: int) -> None:
        """The first signal counts; a second one changes nothing (HAZARDS C 50)."""
        if self.core.stop():
            log.info("asked to end", signal=signal.Signals(number).name)
            systemd.notify("STOPPING=1")

    def _hang_up(self) -> None:
        self._reloading = asyncio.create_task(self._reload_and_tell(), name="reload")

    async def _reload_and_tell(self) -> None:
        systemd.reloading()
        try:
            log.info("configuration read again", changed=await self._reload())
        except RivhaError as error:
            log.error("the configuration was not taken over", error=str(error))
        systemd.notify("READY=1")

    # ---- what others ask of the agent

    async def _reload(self) -> str:
        """The file again. Raises ConfigError and changes nothing when it has a mistake."""
        new = await asyncio.to_thread(self.reread)
        changed = configuration.changed(self.config, new)
        self.logging.apply(new.log)
        await self.api.reload(new.restapi)
        await self.ask.reload(new.restapi, new.ctl)
        self.config = new
        self.postgres.reload_settings(new.postgres)
        self.core.tick.base = replace(self.core.tick.base, tags=new.tags)
        self.dynamic.local, self.dynamic.bootstrap = new.local, new.bootstrap_dcs
        self.dynamic.recompute()
        await self.dynamic.apply()
        view = self.core.desk.latest
        self.postgres.callbacks.call("on_reload", "primary" if view and view.i_lead else "replica")
        self.core.waker.wake()
        return "; ".join(changed) or "nothing"

    async def _refuse_a_taken_name(self) -> None:
        """Two agents of one name would share a member key, a slot and a pledge (HAZARDS B 82)."""
        try:
            reading = await self.dcs.read(self.dynamic.policy.retry_timeout_s)
        except DcsUnavailable as error:
            log.warning("etcd does not answer yet: whether the name is taken is asked when it does", error=str(error))
            self.core.tick.admit = self._refuse_a_namesake
            return
        await self._refuse_a_namesake(records.cluster(reading))

    async def _refuse_a_namesake(self, cluster: Cluster) -> None:
        """Once, by the first reading of etcd. Our own API answers by then when etcd was late."""
        member = cluster.member(self.config.name)
        if member is None or not member.api_url or (self.api.serving and member.api_url == self.core.tick.base.api_url):
            return
        if await _answers(member.api_url, self.config):
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
