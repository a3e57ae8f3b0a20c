"""The world: hosts, network, etcd, clients, laws, one seed for everything, virtual time."""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import random
from collections import Counter
from collections.abc import Callable, Hashable
from contextvars import copy_context

import structlog

from rivha.model import Role
from tests.sim import faults, traps, verdict
from tests.sim.clients import Clients
from tests.sim.disk import Entry
from tests.sim.etcd import Store
from tests.sim.host import Host
from tests.sim.laws import Laws
from tests.sim.laws_sync import SyncLaws
from tests.sim.loop import PROCESS, VirtualLoop
from tests.sim.network import Network
from tests.sim.server import Instance
from tests.sim.shape import Shape
from tests.sim.transcript import Transcript

WALL = 1_760_000_000.0  # what the wall clocks show at the beginning

APART_S = 0.3  # without jitter nothing else keeps the agents from ticking at the same instants


class World:
    def __init__(
        self,
        seed: int,
        shape: Shape | None = None,
        *,
        chaos_s: float = 90.0,
        transcript: bool = False,
        script: faults.Script | None = None,
    ) -> None:
        self.seed, self.chaos_s = seed, chaos_s
        self.shape = shape or Shape()
        self.rng = random.Random(seed)
        self.loop = VirtualLoop()
        self.network = Network(self.rng)
        self.store = Store(self.loop.time)
        self.settings = dict(self.shape.settings)
        self.hosts = {name: Host(self, name, n) for n, name in enumerate(self.shape.names, 1)}
        self.instances: dict[str, Instance] = {name: host.instance for name, host in self.hosts.items()}
        self.clients = Clients(self)
        self.laws: Laws = SyncLaws(self) if self.shape.synchronous else Laws(self)
        # From a generator of its own: the same faults given as a script, or some of them, then meet the same world (shrink.py).
        shares = faults.SYNC_SHARES if self.shape.synchronous else faults.SHARES
        own = faults.random_script(random.Random(f"faults of {seed}"), list(self.hosts), chaos_s, self.shape.beyond, shares)
        self.script = own if script is None else script
        self.whole_at = 0.0  # when the cluster first was, and faults began
        self.over_at = 0.0  # when it was judged: what ends after that is no part of the run
        self.lasts_s = 0.0  # a story's length: so long after it began, at the earliest, all is healed
        self.healed = False
        self.traps: list[traps.Trap] = []
        self.ends: dict[Hashable, float] = {}  # of faults that last: when the last of those that overlap does
        self.context = copy_context()  # nobody's: what the world does itself goes on when agents freeze and die
        self.transcript = Transcript(keep=transcript, time=self.loop.time)
        self.note = self.transcript.note
        self.store.say = self.note
        self.rules: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self._ident = 0
        self._systems = 7_300_000_000_000_000_000

    @property
    def lines(self) -> list[str]:
        return self.transcript.lines

    # ---- running

    def run(self) -> list[str]:
        """Chaos, healing, judgement. The laws that were broken, each with its instant; empty is good."""
        self.transcript.listen()
        asyncio.set_event_loop(None)
        gc_was_on = gc.isenabled()
        gc.disable()  # a collection would run `finally` of killed processes at some moment that no seed decides
        try:
            self.loop.on_mishap = functools.partial(self.broken, "nobody caught an error")
            try:
                self.loop.run_until_complete(self._live())
            finally:
                self.loop.on_mishap = void
                self.loop.run_until_complete(self._tear_down())
                self.loop.close()
        finally:
            structlog.reset_defaults()
            if gc_was_on:
                gc.enable()
        return self.laws.broken

    async def _live(self) -> None:
        self.store.on_write.append(self.laws.wrote)
        self.store.on_renewal = self._renewed
        self.store.on_request, self.store.on_answer = self.laws.asked, self.laws.lookout.read
        for work in (self.store.run(), self.clients.check(), *(h.babysit() for h in self.hosts.values())):
            self.loop.spawn("", work)
        self.clients.begin()
        for host in self.hosts.values():
            host.start_agent()
            if not self.network.jitter:
                await asyncio.sleep(APART_S)
        await self._until_whole(60.0)
        began = self.whole_at = self.loop.now
        self.transcript.cluster_is_whole()
        await faults.play(self, self.script)
        await asyncio.sleep(max(0.0, began + self.lasts_s - self.loop.now))
        faults.heal(self)
        await self._until_whole(self.shape.settle_s)
        await asyncio.sleep(3.0)  # clients write to what has healed
        await self._until_whole(30.0)  # a request from before may only now have been carried out
        for host in self.hosts.values():
            host.tell_rules()
        verdict.judge(self.laws)
        self.over_at = self.loop.now

    async def _tear_down(self) -> None:
        """Ends every task in an orderly way, of dead and frozen processes too; nothing that happens now counts."""
        self.loop.dead.clear()
        for process in tuple(self.loop.frozen):
            self.loop.thaw(process)
        for _ in range(20):
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1.0)

    async def _until_whole(self, limit_s: float) -> None:
        end = self.loop.now + limit_s
        while self.loop.now < end and not self.whole():
            await asyncio.sleep(0.5)

    def whole(self) -> bool:
        c = self.laws.cluster()
        leader = self.instances.get(c.leader.name) if c.leader else None
        if leader is None or not leader.writable or c.pledges or c.failover or not verdict.ttl_is_in_force(self.laws):
            return False
        if not verdict.history_is_written(self.laws, leader):
            return False
        if any(h.core is not None and h.core.desk.wishes for h in self.hosts.values()):
            return False
        others = [i for i in self.instances.values() if i is not leader]
        return (
            not self.laws.unsettled()
            and leader.host in self.clients.routed
            and all(i.role is Role.STANDBY and i.receiving == leader.host for i in others)
        )

    def later(self, seconds: float, callback: Callable[..., None], *args: object) -> asyncio.TimerHandle:
        """The world's own doing: it happens although the agent that set it off freezes or dies."""
        return self.loop.call_at(self.loop.now + seconds, callback, *args, context=self.context)

    def for_a_while(self, what: Hashable, seconds: float, undo: Callable[[], object]) -> None:
        """Undoes what a fault did to `what`, when the last of those that overlap has ended. math.inf: only healing does."""
        ends = self.ends[what] = max(self.ends.get(what, 0.0), self.loop.now + seconds)
        if ends < math.inf:
            self.later(seconds, lambda: undo() if self.loop.now >= self.ends.get(what, 0.0) else None)

    def wall(self) -> float:
        """Of a clock that is right."""
        return WALL + self.loop.now

    # ---- what the models tell and ask

    def doing(self, host: str, work: str) -> None:
        """That host begins a piece of work: the moment of traps."""
        self.laws.working(host, work)
        if self.traps:
            traps.spring(self, host, work)

    def next_ident(self) -> int:
        self._ident += 1
        return self._ident

    def new_system_id(self) -> str:
        self._systems += 1
        return str(self._systems)

    def address_of(self, name: str) -> str:
        host, port = self.hosts[name].address
        return f"{host}:{port}"

    def as_agent(self, name: str, callback: Callable[[], None]) -> Callable[[], None]:
        """A callback that runs as that host's agent of now: not while it is frozen, and never after its death."""
        context = copy_context()
        context.run(PROCESS.set, self.hosts[name].process)
        return lambda: void(self.loop.call_soon(callback, context=context))

    def receivers_of(self, upstream: str) -> list[Instance]:
        return [i for i in self.instances.values() if i.receiving == upstream]

    def upstream_gone(self, upstream: str) -> None:
        for standby in self.receivers_of(upstream):
            standby.lose_upstream()

    def became_primary(self, instance: Instance) -> None:
        instance.led_term = self.laws.won.get(instance.host, 0)
        self.laws.became_primary(instance)

    def _renewed(self, lease_id: int) -> None:
        leader = self.store.keys.get("leader")
        if leader is not None and leader.lease_id == lease_id:
            self.laws.lives(leader.value, "")
        if self.traps and leader is not None and leader.lease_id == lease_id:
            traps.spring(self, leader.value, "renew")

    def starting(self, instance: Instance, *, primary: bool) -> None:
        self.doing(instance.host, "start")
        self.laws.starting(instance, primary=primary)

    def stopping(self, instance: Instance) -> None:
        self.happened["stop"] += 1
        self.doing(instance.host, "stop")
        self.laws.stopping(instance)

    def promoting(self, instance: Instance) -> None:
        self.happened["promote"] += 1
        self.doing(instance.host, "promote")
        self.laws.promoting(instance)

    def received(self, instance: Instance, entries: list[Entry]) -> None:
        self.laws.received(instance, entries)

    def broken(self, law: str, detail: str) -> None:
        self.laws.break_(law, detail)


def void(_: object) -> None:
    return
