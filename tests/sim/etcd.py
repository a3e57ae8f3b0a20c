"""The model of etcd, and the `Dcs` that an agent has on it.

Held to tests/contract/test_dcs*.py, which run on real etcd too. It knows revisions, guarded transactions, leases that expire by etcd's own
clock every half second, leader changes that extend every lease, replies that are lost after the write took effect, requests that are
carried out after their sender has given up, members without a quorum, and watches that come late or are behind a compaction.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from typing import TypeVar

from rivha.dcs.base import Delete, KeyValue, Put, Reading, Txn
from rivha.errors import DcsUnavailable
from rivha.model import Outcome
from tests.sim.network import ETCD, Network

T = TypeVar("T")

EXPIRY_EVERY_S = 0.5  # etcd scans for expired leases so often (HAZARDS I 1)
LOOK_S = 0.1  # how often what waits for a member's quorum looks again
ELECTION_S = 1.0  # etcd's election timeout
LEAST_TTL_S = 2.0  # ceil(1.5 election timeouts) at its defaults
SERVER_PATIENCE_S = 7.0  # how long a server without a leader keeps a request that has come in


@dataclass(slots=True)
class StoredLease:
    ttl_s: float
    expires_at: float


@dataclass(slots=True)
class Lessor:
    """Who counts down the leases: etcd's leader, or a server that takes itself for it. No quorum is asked for what it answers."""

    time: Callable[[], float]
    leases: dict[int, StoredLease] = field(default_factory=dict)

    def renew(self, lease_id: int) -> float:
        lease = self.leases.get(lease_id)
        if lease is None or lease.expires_at <= self.time():
            return 0.0
        lease.expires_at = self.time() + lease.ttl_s
        return lease.ttl_s

    def left_s(self, lease_id: int) -> float | None:
        lease = self.leases.get(lease_id)
        return None if lease is None else max(math.floor(lease.expires_at - self.time()), 0)

    def unrenewed_s(self, lease_id: int) -> float:
        lease, left_s = self.leases.get(lease_id), self.left_s(lease_id)
        return math.inf if lease is None or left_s is None else lease.ttl_s - left_s - 1.0


@dataclass(frozen=True, slots=True)
class LoneMember:
    """The server that a host asks, when it reaches no other: nothing is answered that needs a quorum, and its watches are silent."""

    until: float
    reading: Reading  # what it held when it was cut off: a serializable read would show it
    memory: Lessor | None  # it still takes itself for the leader: renewals are answered, and count nowhere


@dataclass(slots=True)
class Store(Lessor):
    """What the cluster of etcd servers holds, as one: reads are linearizable."""

    revision: int = 1
    compacted: int = 0  # changes up to this revision are forgotten: a watch that has not told of them begins anew
    keys: dict[str, KeyValue] = field(default_factory=dict)
    up: bool = True  # has a quorum
    full: bool = False  # its quota is used up: nothing is put and no lease granted; all else goes on
    alone: dict[str, LoneMember] = field(default_factory=dict)  # by the host that asks it
    tells_late_s: dict[str, float] = field(default_factory=dict)  # by host: the watches of its member, which lags
    say: Callable[[str, str], None] = lambda who, text: None  # the transcript
    _next_lease: int = 1000
    on_renewal: Callable[[int], None] = lambda lease_id: None
    on_request: Callable[[str, Txn], None] = lambda host, txn: None  # a transaction leaves its sender; it may take effect late, or never
    on_answer: Callable[[str, Reading], None] = lambda host, reading: None  # what was read has come to its reader
    on_write: list[Callable[[str, KeyValue | None], None]] = field(default_factory=list)  # the world's laws, and the watches
    context: Context = field(default_factory=copy_context)  # nobody's: what is under way goes on when its sender freezes or dies

    def isolate(self, host: str, seconds: float, *, leads: bool = False) -> None:
        """For so long. `leads`: it was the leader, hangs, and does not know that the others have elected another."""
        before = self.lone_member(host)
        until = max(self.time() + seconds, before.until if before else 0.0)
        memory = Lessor(self.time, {i: replace(lease) for i, lease in self.leases.items()}) if leads else None
        known = before or LoneMember(until, self.reading(), None)
        self.alone[host] = LoneMember(until, known.reading, memory or known.memory)

    def lone_member(self, host: str) -> LoneMember | None:
        found = self.alone.get(host)
        if found is not None and found.until <= self.time():
            del self.alone[host]
            return None
        return found

    @property
    def well(self) -> bool:
        """It answers everybody, and takes what is written."""
        return self.up and not self.full and not any(self.lone_member(host) for host in tuple(self.alone))

    def heal(self) -> None:
        self.up, self.full = True, False
        self.alone.clear()
        self.tells_late_s.clear()

    def compact(self) -> None:
        self.compacted = self.revision

    def reading(self) -> Reading:
        return Reading(self.revision, tuple(self.keys[key] for key in sorted(self.keys)))

    def value(self, key: str) -> str | None:
        found = self.keys.get(key)
        return found.value if found else None

    def commit(self, txn: Txn) -> Outcome:
        for compare in txn.when:
            found = self.keys.get(compare.key)
            if (found.mod_revision if found else 0) != compare.mod_revision:
                return Outcome.REFUSED
        if any(isinstance(w, Put) and w.lease_id and w.lease_id not in self.leases for w in txn.then):
            return Outcome.REFUSED
        if self.full and any(isinstance(w, Put) for w in txn.then):
            guarded = {compare.key for compare in txn.when}
            return Outcome.REFUSED if any(w.key in guarded for w in txn.then) else Outcome.UNKNOWN
        self.write(txn.then)
        return Outcome.DONE

    def write(self, writes: tuple[Put | Delete, ...]) -> None:
        if not any(isinstance(w, Put) or w.key in self.keys for w in writes):
            return  # what changes nothing takes no revision
        self.revision += 1
        for write in writes:
            before = self.keys.get(write.key)
            if isinstance(write, Put):
                created = before.create_revision if before else self.revision
                self.keys[write.key] = KeyValue(write.key, write.value, self.revision, created, write.lease_id)
            elif before is not None:
                del self.keys[write.key]
        for write in writes:
            self._tell(write.key)

    def _tell(self, key: str) -> None:
        for listener in tuple(self.on_write):
            listener(key, self.keys.get(key))

    def grant(self, ttl_s: float) -> int:
        self._next_lease += 1
        ttl_s = max(float(math.ceil(ttl_s)), LEAST_TTL_S)
        self.leases[self._next_lease] = StoredLease(ttl_s, self.time() + ttl_s)
        return self._next_lease

    def renew(self, lease_id: int) -> float:
        ttl_s = Lessor.renew(self, lease_id)
        if ttl_s:
            self.on_renewal(lease_id)
        return ttl_s

    def revoke(self, lease_id: int) -> None:
        if self.leases.pop(lease_id, None) is not None:
            gone = tuple(Delete(kv.key) for kv in sorted(self.keys.values(), key=lambda kv: kv.key) if kv.lease_id == lease_id)
            if gone:
                self.write(gone)

    def expire(self) -> None:
        if self.up:
            for lease_id in [i for i, lease in self.leases.items() if lease.expires_at <= self.time()]:
                keys = sorted(kv.key for kv in self.keys.values() if kv.lease_id == lease_id)
                if keys:
                    self.say("etcd", f"a lease ran out, and with it: {' '.join(keys)}")
                self.revoke(lease_id)

    def change_leader(self) -> None:
        """A new leader of etcd does not know how old the leases are: it gives each its whole ttl again, and an election's time more."""
        self.say("etcd", "a new leader: every lease has its whole ttl again")
        for lease in self.leases.values():
            lease.expires_at = self.time() + lease.ttl_s + ELECTION_S

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_EVERY_S)
            self.expire()


class SimDcs:
    """One agent's client. Requests and replies cross the network; either may be lost."""

    def __init__(self, store: Store, network: Network, host: str) -> None:
        self._store, self._network, self._host = store, network, host
        self.deaf = False  # its watch has died silently
        self.held = False  # its network holds back what a watch tells
        self.requests = 0

    async def _ask(
        self, apply: Callable[[], T], budget_s: float, late_s: float = 0.0, *, of_memory: Callable[[Lessor], T | None] = lambda lessor: None
    ) -> T:
        """The request travels by itself: once sent, etcd may carry it out although its sender gave up, froze or died meanwhile.

        `of_memory`: what a server without a quorum that takes itself for the leader answers, if anything.
        """
        self.requests += 1
        loop, network, outside = asyncio.get_running_loop(), self._network, self._store.context
        answer: asyncio.Future[T] = loop.create_future()
        patience_until = loop.time() + SERVER_PATIENCE_S

        def replied(result: T) -> None:
            if not answer.done() and network.passes(ETCD, self._host):
                answer.set_result(result)

        def arrived() -> None:
            member = self._store.lone_member(self._host)
            remembered = of_memory(member.memory) if member is not None and member.memory is not None else None
            if remembered is None and (member is not None or not self._store.up):
                if loop.time() < patience_until:
                    loop.call_later(LOOK_S, arrived, context=outside)
                return
            result = apply() if remembered is None else remembered
            if not network.lost():
                loop.call_later(network.delay_s(), replied, result, context=outside)

        if network.passes(self._host, ETCD) and not network.lost():
            late_s = late_s or network.late_s(budget_s)
            loop.call_later(network.delay_s() + late_s, arrived, context=outside)

        def gave_up() -> None:
            if not answer.done():
                answer.set_exception(DcsUnavailable(f"etcd did not answer {self._host} within {budget_s:g} s"))

        patience = loop.call_later(budget_s, gave_up)
        try:
            return await answer
        finally:
            patience.cancel()

    async def read(self, budget_s: float) -> Reading:
        reading = await self._ask(self._store.reading, budget_s)
        self._store.on_answer(self._host, reading)
        return reading

    async def commit(self, txn: Txn, budget_s: float) -> Outcome:
        self._store.on_request(self._host, txn)
        try:
            late_s = self._network.write_late_s([write.key for write in txn.then], budget_s)
            return await self._ask(lambda: self._store.commit(txn), budget_s, late_s)
        except DcsUnavailable:
            return Outcome.UNKNOWN

    async def grant(self, ttl_s: float, budget_s: float) -> int:
        lease_id = await self._ask(lambda: 0 if self._store.full else self._store.grant(ttl_s), budget_s)
        if not lease_id:
            raise DcsUnavailable("etcd says: database space exceeded")
        return lease_id

    async def renew(self, lease_id: int, budget_s: float) -> float:
        # One that is over by the memory's clock, or not known to it, is not answered: etcd waits for its deletion.
        return await self._ask(lambda: self._store.renew(lease_id), budget_s, of_memory=lambda lessor: lessor.renew(lease_id) or None)

    async def revoke(self, lease_id: int, budget_s: float) -> None:
        await self._ask(lambda: self._store.revoke(lease_id), budget_s)

    async def time_to_live(self, lease_id: int, budget_s: float) -> float | None:
        return await self._ask(lambda: self._store.left_s(lease_id), budget_s, of_memory=lambda lessor: lessor.left_s(lease_id))

    async def unrenewed_s(self, lease_id: int, budget_s: float) -> float:
        return await self._ask(lambda: self._store.unrenewed_s(lease_id), budget_s, of_memory=lambda lessor: lessor.unrenewed_s(lease_id))

    async def watch(self, on_change: Callable[[str], None]) -> None:
        """Events arrive late by the network's delay, not at all while cut off or deaf, and from a lone server when it is back.

        Timers and not a task: most events wake nobody.
        """
        store, loop = self._store, asyncio.get_running_loop()
        watcher = copy_context()  # a frozen one hears later, a dead one never
        waiting: deque[tuple[float, int, str]] = deque()  # when it is sent, the revision, the key

        def written(key: str, _: KeyValue | None) -> None:
            if not self.deaf and self._network.passes(ETCD, self._host):
                waiting.append((loop.time() + store.tells_late_s.get(self._host, 0.0), store.revision, key))
                if len(waiting) == 1:
                    send()

        def send() -> None:
            loop.call_at(max(waiting[0][0], loop.time()) + self._network.delay_s(), arrived, context=watcher)

        def arrived() -> None:
            if self.held or store.lone_member(self._host) is not None:
                loop.call_later(LOOK_S, arrived, context=watcher)
            elif waiting:
                _, revision, key = waiting.popleft()
                if revision <= store.compacted:
                    waiting.clear()
                    key = ""  # canceled: a new watch begins
                if waiting:
                    send()
                on_change(key)

        store.on_write.append(written)
        try:
            on_change("")
            await loop.create_future()  # until cancelled
        finally:
            store.on_write.remove(written)
            waiting.clear()

    async def close(self) -> None:
        return
