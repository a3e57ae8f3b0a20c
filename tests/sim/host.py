"""One model host: its Postgres, its agent (the real `Core`), its clock. The agent is a process that can be killed, frozen, started."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from rivha.agent.core import Core
from rivha.agent.dynamic import Dynamic
from rivha.errors import CannotRun
from rivha.model import Member, Policy
from tests.sim import probing
from tests.sim.etcd import SimDcs
from tests.sim.postgres import SimPostgres
from tests.sim.server import Instance

if TYPE_CHECKING:
    from tests.sim.world import World

RESTART_S = 1.0  # systemd


class Told:
    """The operator's scripts: what they were told, by every agent that ran here."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def call(self, action: str, role: str) -> None:
        self.lines.append(f"{action} {role}")

    @property
    def role(self) -> str:
        """What they believe this node to be: primary (a virtual address is here), replica, demoted, or "" when it has stopped."""
        action, _, role = (self.lines[-1] if self.lines else "").partition(" ")
        return "" if action == "on_stop" else role


class Host:
    def __init__(self, world: World, name: str, number: int) -> None:
        self.world, self.name = world, name
        self.instance = Instance(name, world, world.rng)
        self.address = (f"10.0.0.{number}", 5432)
        self.rate, self.offset = 1.0, world.rng.uniform(10, 10_000)  # of its monotonic clock
        self.wall_step = 0.0
        self.cached: Mapping[str, object] | None = None  # patroni.dynamic.json
        self.core: Core | None = None
        self.dcs: SimDcs | None = None
        self.process = ""
        self.starts = 0
        self.on = True
        self.frozen_agent = False
        self.well_since = 0.0  # its agent began or thawed then
        self.exits: list[str] = []
        self.told = Told()

    def clock(self) -> float:
        return self.offset + self.world.loop.now * self.rate

    def wall(self) -> float:
        return self.world.wall() + self.wall_step

    # ---- the agent

    def start_agent(self) -> None:
        if not self.on or self.agent_runs:
            return
        self.starts += 1
        self.world.transcript.begins(self.name)
        self.well_since = self.world.loop.now
        self.process = f"{self.name}#{self.starts}"
        self.world.loop.spawn(self.process, self._run())

    @property
    def agent_runs(self) -> bool:
        return self.core is not None

    @property
    def policy(self) -> Policy:
        """As its agent knows it."""
        return self.core.dynamic.policy if self.core is not None else Policy()

    @property
    def tags(self) -> Mapping[str, object]:
        return self.core.tick.base.tags if self.core is not None else {}

    @property
    def job(self) -> str:
        """The kind of the job that runs, or ""."""
        jobs = self.core.jobs if self.core is not None else None
        return jobs.job.kind if jobs is not None and jobs.busy and jobs.job is not None else ""

    @property
    def work_for(self) -> str:
        """Whom the job is about that runs, or ""."""
        jobs = self.core.jobs if self.core is not None else None
        return jobs.job.subject if jobs is not None and jobs.busy and jobs.job is not None else ""

    async def _run(self) -> None:
        self.dcs = SimDcs(self.world.store, self.world.network, self.name)
        postgres = SimPostgres(self.instance)
        dynamic = Dynamic({}, self.world.settings, postgres, self.cached, self._keep)
        host, port = self.address
        base = Member(self.name, conn_url=f"postgres://{host}:{port}/postgres", api_url=f"http://{host}:8008/patroni", version="sim")
        base = replace(base, tags=self.world.shape.tags.get(self.name, {}))
        self.core = Core(
            base,
            self.dcs,
            postgres,
            dynamic,
            self.told,
            clock=self.clock,
            wall=self.wall,
            reload_file=self._reload,
            ask=functools.partial(probing.ask, self),
        )
        ended = "asked to end"
        try:
            await self.core.run()
        except CannotRun as error:
            ended = f"exit {error.exit_code}: {error}"
        except Exception as error:
            self._agent_ended(f"of an error that nobody caught: {error!r}")
            raise  # to the loop, which tells the laws
        self._agent_ended(ended)

    def _agent_ended(self, how: str) -> None:
        """The process is gone, and whatever it still had under way."""
        self.exits.append(how)
        self.world.note(self.name, f"agent ended: {how}")
        self.kill_agent()

    async def _keep(self, text: str) -> None:
        if self.instance.disk.system_id:
            self.cached = json.loads(text)

    @staticmethod
    async def _reload() -> str:
        return "nothing"

    def tell_rules(self) -> None:
        """Which rules decided: kept beyond this agent's life."""
        journal = self.core.journal if self.core is not None else ()
        self.world.rules.update(rule for e in journal for rule in (e.decision.lease.rule, e.decision.postgres.rule))

    def kill_agent(self) -> None:
        self.tell_rules()
        self.world.loop.kill(self.process)
        self.core, self.frozen_agent = None, False
        self.instance.on_death = []

    def freeze_agent(self) -> None:
        self.frozen_agent = True
        self.world.loop.freeze(self.process)

    def thaw_agent(self) -> None:
        self.frozen_agent = False
        self.well_since = self.world.loop.now
        self.world.loop.thaw(self.process)

    # ---- the machine

    def power_off(self) -> None:
        self.kill_agent()
        self.told.lines.clear()  # and with the power goes a virtual address
        self.instance.die(power=True)
        self.instance.trouble.hung = False
        self.world.ends.pop((self.name, "hung"), None)
        self.on = False

    def power_on(self) -> None:
        self.on = True
        self.start_agent()

    async def babysit(self) -> None:
        """systemd: an agent that was killed or has failed is started again; one that was told to end is not, until somebody starts it."""
        while True:
            await asyncio.sleep(RESTART_S)
            told_to_end = bool(self.exits) and self.exits[-1] == "asked to end"
            if self.on and not self.agent_runs and (self.world.healed or not told_to_end):
                self.start_agent()
