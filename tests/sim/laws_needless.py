"""The laws of what must not happen for nothing: a leadership lost, a primary stopped, a request dropped, though all was in order.

Each needless failover loses writes for a while, and in asynchronous mode perhaps rows: what no law of safety would mind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rivha.dcs import records
from rivha.dcs.base import KeyValue
from rivha.model import FailoverRequest
from tests.sim.network import ETCD

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.laws import Laws
    from tests.sim.server import Instance

ABLE_S = 3.0  # for so long a candidate must have been in order before it counts as one: it, and its leader, have then been seen so


@dataclass(slots=True)
class Needless:
    laws: Laws
    withdrawn: set[int] = field(default_factory=set)  # requests, by revision, that their operator took back

    def wrote(self, key: str, now: KeyValue | None) -> None:
        before = self.laws.before
        if before is None or now is not None:
            return
        if key == records.LEADER and before.leader is not None and self.laws.cluster().resigned == before.resigned:
            self._no_lease_runs_out(before.leader.name)
        if key == records.FAILOVER and before.failover is not None and before.failover_revision not in self.withdrawn:
            self._no_request_is_dropped(before.failover)

    def _in_order(self, host: Host) -> bool:
        """A primary that nothing ails, nor its agent, nor its way to etcd, and that has been so for as long as an agent may wait."""
        i, world = host.instance, self.laws.world
        ails = i.trouble.hung or i.trouble.unmounted or i.trouble.files_s or i.disk.full or i.disk.marker or i.bare
        runs = i.writable and not ails and host.core is not None and not host.core.tick.stopping
        well = self.laws.lookout.calm() and world.store.well and host.rate == 1.0 and world.network.talk(host.name, ETCD)
        wrote_at = self.laws.lookout.slow_files_at.get(host.name, -math.inf)  # the tick stood still for that, and its lease got old
        return runs and well and world.loop.now - wrote_at > host.policy.ttl_s and not self.laws.excuse(host.name)

    def _no_lease_runs_out(self, name: str) -> None:
        """Of a leader in order: whoever can renew does."""
        if self._in_order(self.laws.world.hosts[name]):
            self.laws.break_("a lease ran out whose holder was in order", name)

    def stopping(self, instance: Instance) -> None:
        """Nobody stops a primary that leads and is in order, but for an operator, or to hand over; paused, for an operator alone."""
        host, c = self.laws.world.hosts[instance.host], self.laws.cluster()
        core = host.core
        if core is None or c.leader is None or c.leader.name != host.name or host.job in ("restart", "set_aside"):
            return
        if host.job == "handover":
            asked = c.failover is not None or self.withdrawn or core.tick.stopping
            if host.policy.paused and not asked and instance.writable and self.laws.lookout.calm():
                self.laws.break_("handed over while paused, and nobody had asked", host.name)
        elif self._in_order(host):
            self.laws.break_("a primary was stopped that was in order", f"{host.name}, by {host.job or 'the fence'}")

    def _no_request_is_dropped(self, request: FailoverRequest) -> None:
        """A switchover to a standby in order that streams, and not only just, and does not lag, from a leader in order, is carried out."""
        laws, leader = self.laws, self.laws.cluster().leader
        if leader is None or request.leader != leader.name or request.candidate is None or request.scheduled_at:
            return
        host, able_at = laws.world.hosts[leader.name], laws.lookout.waits.able_since.get(request.candidate)
        able = able_at is not None and laws.world.loop.now - able_at > ABLE_S
        sender = host.instance.syncrep.live().get(request.candidate)
        lasts = sender is not None and laws.world.loop.now - sender.began_at > ABLE_S
        lags = sender is None or host.instance.disk.end - min(sender.flush, sender.replay) > laws.maximum_lag()
        streams = lasts and not lags and laws.may_lead_by_itself(laws.world.instances[request.candidate])
        if able and streams and self._in_order(host) and not host.policy.paused:
            laws.break_("a request was dropped that could have been carried out", f"to {request.candidate}")
