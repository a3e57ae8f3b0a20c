"""The laws of DESIGN 13 for asynchronous mode, checked where they can be broken, and stated in acknowledged commits.

What asynchronous replication cannot promise is written into them and nowhere else: a takeover may lose what the winner did not hold, within
maximum_lag_on_failover of the position last published, and never when the old leader handed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rivha.dcs import records
from rivha.dcs.base import KeyValue, Reading
from rivha.model import Cluster, Role
from tests.sim.disk import Entry
from tests.sim.server import Instance

if TYPE_CHECKING:
    from tests.sim.clients import Acknowledged
    from tests.sim.world import World


@dataclass(slots=True)
class Laws:
    world: World
    broken: list[str] = field(default_factory=list)
    newest_term_acknowledged: int = 0
    forgiven: set[int] = field(default_factory=set)  # entries that a takeover was allowed to lose
    unfenced: set[str] = field(default_factory=set)  # hosts whose agent was frozen next to a running Postgres: no watchdog yet (issue 4)
    leaders: list[str] = field(default_factory=list)
    before: Cluster | None = None  # etcd before the write that is being looked at

    def break_(self, law: str, detail: str = "") -> None:
        text = f"{self.world.loop.now:9.3f}  LAW BROKEN: {law} {detail}".rstrip()
        self.broken.append(text)
        self.world.note("", text)

    def cluster(self) -> Cluster:
        store = self.world.store
        return records.cluster(Reading(store.revision, tuple(store.keys.values())))

    # ---- etcd

    def wrote(self, key: str, now: KeyValue | None) -> None:
        after = self.cluster()
        if (
            key == "leader"
            and now is not None
            and (self.before is None or self.before.leader is None or self.before.leader.name != now.value)
        ):
            self.leaders.append(now.value)
            self._took_over(now.value, self.before)
        self.before = after

    def _took_over(self, winner: str, before: Cluster | None) -> None:
        """What the winner lacks of all that was acknowledged is lost from now on: was that allowed?"""
        if before is None:
            return
        held = {entry.ident for entry in self.world.instances[winner].disk.wal}
        missing = {a.ident: a for a in self.world.clients.acknowledged if a.ident not in held and a.ident not in self.forgiven}
        if not missing:
            return
        resigned = before.resigned
        manual = before.failover is not None and before.failover.leader is None
        if resigned is not None and resigned.lsn and resigned.candidate and not manual:
            self.break_("a switchover lost acknowledged rows", f"{winner} lacks {len(missing)}")
        behind = before.optime - self.world.instances[winner].disk.end
        if behind > self.world.maximum_lag and not manual:
            self.break_("a winner lagged more than maximum_lag_on_failover", f"{winner}: {behind} bytes")
        self.forgiven |= set(missing)

    # ---- Postgres

    def promoting(self, instance: Instance) -> None:
        leader = self.cluster().leader
        if (leader is None or leader.name != instance.host) and instance.host not in self.unfenced:
            self.break_("promoted without leadership", f"{instance.host}, while {leader.name if leader else 'nobody'} leads")
        if self.world.paused() and self.cluster().failover is None:
            self.break_("promoted while paused", instance.host)

    def starting(self, instance: Instance, *, primary: bool) -> None:
        if primary and instance.host not in self.unfenced:
            leader = self.cluster().leader
            if leader is not None and leader.name != instance.host:
                self.break_("a primary was started while another leads", f"{instance.host}, {leader.name} leads")

    def received(self, instance: Instance, entries: list[Entry]) -> None:
        if f"rivha/pledges/{instance.host}" in self.world.store.keys:
            self.break_("streamed while its pledge stands", f"{instance.host} received {len(entries)} entries")

    # ---- clients

    def acknowledged(self, done: Acknowledged) -> None:
        if done.host in self.unfenced or self._last_heard_of_a_pause(done.host):
            self.forgiven.add(done.ident)
            return
        if done.term < self.newest_term_acknowledged:
            self.break_("acknowledged in a leadership that has been succeeded", f"{done.host}, row {done.number}, term {done.term}")
        self.newest_term_acknowledged = max(self.newest_term_acknowledged, done.term)

    def _last_heard_of_a_pause(self, host: str) -> bool:
        """A paused primary that cannot hear that the pause is over is fenced by nobody: docs/decisions/0008."""
        core = self.world.hosts[host].core
        return core is not None and core.dynamic.policy.paused

    # ---- the end

    def at_the_end(self) -> None:
        """After healing: one legitimate primary, everybody streams from it, nothing is left over, nothing more was lost than forgiven."""
        world, c = self.world, self.cluster()
        leader = c.leader.name if c.leader else None
        writable = [i.host for i in world.instances.values() if i.writable]
        if leader is None or writable != [leader]:
            self.break_("liveness: one legitimate primary", f"leader {leader}, writable {writable}")
            return
        primary = world.instances[leader]
        for host in world.hosts.values():
            i = host.instance
            if host.name != leader and (i.role is not Role.STANDBY or i.receiving != leader):
                self.break_("liveness: every live node streams from the primary", f"{host.name}: {i.state.value}, exits {host.exits[-2:]}")
        if c.pledges or c.failover or c.complaints:
            self.break_("liveness: no pledge and no request is left over", f"{c.pledges} {c.failover} {c.complaints}")
        held = {entry.ident for entry in primary.disk.wal}
        lost = [a for a in world.clients.acknowledged if a.ident not in held and a.ident not in self.forgiven]
        if lost:
            self.break_("acknowledged rows are missing", f"{len(lost)}, the first is row {lost[0].number} of {lost[0].host}")
