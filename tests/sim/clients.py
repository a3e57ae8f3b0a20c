"""HAProxy and the clients behind it: who is routed, what was written, what was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rivha.api.health import Question, is_primary
from tests.sim.disk import Entry
from tests.sim.network import CLIENT
from tests.sim.syncrep import Answer

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World

CHECK_EVERY_S = 0.5
FALL = 2
DIRECT_EVERY_S = 0.1
PATIENCE_S = 8.0  # then a client cancels a commit that waits


@dataclass(frozen=True, slots=True)
class Acknowledged:
    ident: int  # of the WAL entry
    at: float
    host: str
    term: int  # the leadership in which the Postgres that took it became writable
    number: int


class Clients:
    def __init__(self, world: World) -> None:
        self.world = world
        self.failures: dict[str, int] = {}
        self.routed: set[str] = set()
        self.acknowledged: list[Acknowledged] = []
        self.refused = 0
        self.unknown = 0
        self.outages: list[tuple[float, float]] = []  # of writes: when it began, how long it lasted
        self._failing_since: float | None = None
        self._number = 0

    def longest_outage_s(self, since: float) -> float:
        """In which writes failed, or were answered late, to the end of the run; an answer at every write is none."""
        end = self.world.over_at or self.world.loop.now
        failed = max((seconds for began, seconds in self.outages if began > since), default=0.0)
        answered = [since, *(a.at for a in self.acknowledged if a.at > since), end]
        every_s = self.world.shape.write_every_s
        waited = max(b - a for a, b in pairwise(answered)) - every_s
        return max(failed, waited if waited > every_s else 0.0)

    async def check(self) -> None:
        """rise 1, fall 2."""
        while True:
            self.world.laws.lookout.look()
            for host in self.world.hosts.values():
                if self._answers(host):
                    self.failures[host.name] = 0
                    if host.name not in self.routed:
                        self.routed.add(host.name)
                        self.world.note("proxy", f"{host.name} is routed")
                else:
                    self.failures[host.name] = self.failures.get(host.name, 0) + 1
                    if self.failures[host.name] >= FALL and host.name in self.routed:
                        self.routed.discard(host.name)
                        self.world.note("proxy", f"{host.name} is routed no more")
            await asyncio.sleep(CHECK_EVERY_S)

    def _answers(self, host: Host) -> bool:
        core = host.core
        if core is None or host.frozen_agent or not host.on or not self.world.network.talk(CLIENT, host.name):
            return False
        view = core.desk.latest
        answer = view is not None and is_primary(Question(view, host.clock(), core.desk.out_of_routing, {}))
        if answer:
            self.world.laws.lookout.answered(host)
        return answer

    def begin(self) -> None:
        """Timers and not tasks: these are the most frequent events of the world."""
        self.world.later(self.world.shape.write_every_s, self._write)
        if self.world.shape.goes_past_the_proxy:
            self.world.later(DIRECT_EVERY_S, self._write_directly)

    def _write(self) -> None:
        self.world.later(self.world.shape.write_every_s, self._write)
        routed = sorted(self.routed)
        if routed:
            self._try(self.world.rng.choice(routed))
        else:
            self.refused += 1
            self._failed()

    def _write_directly(self) -> None:
        """A client that goes past HAProxy, to every primary that is not routed: else routing would hide what fence and names are for."""
        self.world.later(DIRECT_EVERY_S, self._write_directly)
        for name, instance in self.world.instances.items():
            if instance.writable and name not in self.routed and self.world.network.passes(CLIENT, name):
                self._commit(name, self._told_directly)

    def _told_directly(self, done: Acknowledged | None) -> None:
        """Nothing is an outage to it."""
        if done is None:
            self.unknown += 1

    def _failed(self) -> None:
        if self._failing_since is None:
            self._failing_since = self.world.loop.now
            self.world.note("client", "writes fail")

    def _worked(self, name: str) -> None:
        if self._failing_since is not None:
            lasted_s = self.world.loop.now - self._failing_since
            self.outages.append((self._failing_since, lasted_s))
            self._failing_since = None
            self.world.note("client", f"writes work again after {lasted_s:.2f} s, on {name}")

    def _try(self, name: str) -> None:
        """Where HAProxy sends it."""
        if not self.world.instances[name].writable or not self.world.network.passes(CLIENT, name):
            self.refused += 1
            self._failed()
            return
        self._commit(name, self._routed_told)

    def _routed_told(self, done: Acknowledged | None) -> None:
        if done is None:
            self.unknown += 1
            self._failed()
        else:
            self._worked(done.host)

    def _commit(self, name: str, then: Callable[[Acknowledged | None], None]) -> None:
        """One transaction. It counts as acknowledged only when Postgres says so, without a warning, and the client hears it."""
        instance = self.world.instances[name]
        self._number += 1
        number, term = self._number, instance.led_term
        patience: asyncio.TimerHandle | None = None

        def told(entry: Entry, answer: Answer) -> None:
            if patience is not None:
                patience.cancel()
            if answer is Answer.ACKNOWLEDGED and self.world.network.passes(name, CLIENT):
                done = Acknowledged(entry.ident, self.world.loop.now, name, term, number)
                self.acknowledged.append(done)
                self.world.laws.acknowledged(done)
                then(done)
            else:
                then(None)

        entry = instance.commit(f"row {number}", told)
        if entry.ident in instance.syncrep.waiting:
            patience = self.world.later(PATIENCE_S, instance.syncrep.cancel, entry)
