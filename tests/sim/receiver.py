"""The standby's half of the model's replication: received, flushed, reported, replayed. One Receiver belongs to one Instance.

What is received is lost by a power failure until it is flushed; what is flushed is reported, and counts for commits; what is replayed is
seen.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from rivha.model import Lsn, Role, State
from tests.sim.network import POSTGRES
from tests.sim.syncrep import Sender, parse

if TYPE_CHECKING:
    from tests.sim.server import Instance

RETRY_S = 0.2  # wal_retrieve_retry_interval
STATUS_S = 1.0  # wal_receiver_status_interval
RECEIVER_TIMEOUT_S = 5.0  # wal_receiver_timeout
IN_A_ROW = 50  # entries a delivery carries at the most


class Receiver:
    def __init__(self, instance: Instance) -> None:
        self.i = instance
        self.upstream = ""  # the host that it is connected to
        self.connection = 0  # what is under way for an older one is void
        self.heard_end: Lsn | None = None  # the upstream's end of WAL
        self.began = False  # streaming has begun since the start: only then the receive position is known (HAZARDS H 10)
        self._process = 0  # the upstream's generation
        self._silent_s = 0.0
        self._attempt: asyncio.TimerHandle | None = None
        self._replaying = False
        self.lost_at = -math.inf  # when it last ended

    # ---- connecting

    def started(self) -> None:
        self.began, self.heard_end, self._replaying = False, None, False
        self.replay()
        self.connect_soon(0.0)

    def connect_soon(self, after_s: float) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
        self._attempt = self.i.world.later(after_s, self._connect, self.i.generation)

    def _connect(self, generation: int) -> None:
        """It tries again for ever, like the real one."""
        self._attempt = None
        i = self.i
        standby = generation == i.generation and i.state is State.RUNNING and i.role is Role.STANDBY and not i.promoting
        if not standby or self.upstream or not i.disk.upstream:
            return
        upstream = i.world.instances.get(i.disk.upstream)
        if upstream is None or i.hung or not self._may_stream(upstream):
            self.connect_soon(RETRY_S)
            return
        self.connection += 1
        self.upstream, self._process, self._silent_s, self.began = upstream.host, upstream.generation, 0.0, True
        upstream.syncrep.senders[i.host] = Sender(self.connection, i.world.loop.now, parse(upstream.names), began_at=i.world.loop.now)
        i.world.note(i.host, f"Postgres streams from {upstream.host}")
        i.world.laws.connected(i)
        self._report()
        self.deliver_soon()
        i.world.later(STATUS_S, self._beat, self.connection)

    def _may_stream(self, upstream: Instance) -> bool:
        """What a WAL sender asks for: numbers. Two timelines of one number look alike to it, and mix (docs/decisions/0010)."""
        serves = upstream.state is State.RUNNING and not upstream.stopping and self._reaches(upstream)
        mine, theirs = self.i.disk, upstream.disk
        ends = {line.timeline: line.lsn for line in theirs.past} | {theirs.timeline: theirs.flushed_end}
        return serves and theirs.system_id == mine.system_id and mine.end <= ends.get(mine.timeline, -1)

    def _reaches(self, upstream: Instance) -> bool:
        world = self.i.world
        return world.hosts[upstream.host].on and world.network.reaches(self.i.host, upstream.host, POSTGRES) and not upstream.hung

    def drop(self, *, quietly: bool = False) -> None:
        """The receiver ends. The upstream hears of it, unless the power went or the network is cut: then it waits for its timeout."""
        if not self.upstream:
            return
        i, upstream = self.i, self.i.world.instances[self.upstream]
        if not quietly and i.world.network.talk(i.host, upstream.host):
            i.world.later(i.world.network.delay_s(), upstream.syncrep.gone, i.host, self.connection)
        self.upstream = ""
        self.connection += 1
        self.lost_at = i.world.loop.now

    def lose_upstream(self) -> None:
        self.drop()
        self.connect_soon(RETRY_S)

    def upstream_ended(self) -> None:
        """Its process is gone: heard of at once, if anything can be heard of that host."""
        if self._reaches(self.i.world.instances[self.upstream]):
            self.lose_upstream()

    def _beat(self, connection: int) -> None:
        """Once a second: report, and notice an upstream that is gone or silent."""
        i = self.i
        if connection != self.connection:
            return
        i.world.later(STATUS_S, self._beat, connection)
        if i.hung:
            return
        upstream = i.world.instances[self.upstream]
        if not self._reaches(upstream):
            self._silent_s += STATUS_S
            if self._silent_s >= RECEIVER_TIMEOUT_S:
                self.lose_upstream()
        elif upstream.generation != self._process or i.host not in upstream.syncrep.live():
            self.lose_upstream()
        else:
            self._silent_s = 0.0
            self._report()
            if len(i.disk.wal) < upstream.disk.flushed:
                self.deliver_soon()

    # ---- the WAL's way: received, flushed, replayed

    def deliver_soon(self) -> None:
        """What the upstream has flushed by now is sent. A link that lags carries it as it was when it was sent."""
        i = self.i
        lag_s = i.world.shape.lags.get(i.host, 0.0)
        upto = i.world.instances[self.upstream].disk.flushed
        i.world.later(i.world.network.delay_s() + lag_s, self._deliver, self.connection, upto)

    def _deliver(self, connection: int, upto: int) -> None:
        i = self.i
        if connection != self.connection or i.hung:
            return
        upstream = i.world.instances[self.upstream]
        if not self._reaches(upstream) or upstream.generation != self._process:
            return  # the beat will notice
        begin = len(i.disk.wal)
        if upto < begin:
            return  # what was sent later has overtaken it
        fresh = upstream.disk.wal[begin : min(begin + IN_A_ROW, upto)]
        self.heard_end = upstream.disk.wal[upto - 1].end
        if not fresh:
            return
        if i.disk.full:
            i.die()  # PANIC: could not write to WAL segment
            return
        i.world.received(i, fresh)
        i.disk.wal.extend(fresh)
        i.disk.timeline, i.disk.past = fresh[-1].timeline, upstream.disk.past
        if i.trouble.flush_s > 0:
            i.world.later(i.trouble.flush_s, self._flushed, i.generation, len(i.disk.wal))
        else:
            self._flushed(i.generation, len(i.disk.wal))
        if len(i.disk.wal) < upto:
            i.world.later(i.world.network.delay_s(), self._deliver, connection, upto)

    def _flushed(self, generation: int, upto: int) -> None:
        i = self.i
        if generation != i.generation:
            return
        i.disk.flushed = max(i.disk.flushed, min(upto, len(i.disk.wal)))
        self.replay()
        self._report()
        for standby in i.world.receivers_of(i.host):
            standby.receiver.deliver_soon()

    def _report(self) -> None:
        """What is flushed here, on its way to the upstream."""
        i = self.i
        if self.upstream:
            wal, flushed, replayed = i.disk.wal, i.disk.flushed, i.disk.replayed
            ends = (wal[flushed - 1].end if flushed else 0, wal[replayed - 1].end if replayed else 0)
            now = i.world.loop.now
            i.world.later(
                i.world.network.delay_s() + i.trouble.report_s, self._reported, self.upstream, self._process, self.connection, *ends, now
            )

    def _reported(self, host: str, process: int, connection: int, flush: Lsn, replay: Lsn, sent_at: float) -> None:
        """Arrives even if the receiver has ended meanwhile."""
        upstream = self.i.world.instances[host]
        if upstream.generation == process and self._reaches(upstream):
            upstream.syncrep.heard(self.i.host, connection, flush, replay, sent_at)

    def replay(self) -> None:
        i = self.i
        if i.replay_paused or i.disk.replayed >= i.disk.flushed:
            return
        if i.trouble.replay_s <= 0:
            i.disk.replayed = i.disk.flushed
        elif not self._replaying:
            self._replaying = True
            i.world.later(i.trouble.replay_s, self._replay_one, i.generation)

    def _replay_one(self, generation: int) -> None:
        i = self.i
        if generation == i.generation:
            self._replaying = False
            if not i.hung and not i.replay_paused and i.disk.replayed < i.disk.flushed:
                i.disk.replayed += 1
            self.replay()
