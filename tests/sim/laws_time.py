"""The laws of what has to happen soon while faults last: somebody takes over, and the leader publishes its position.

Looked at twice a second, like those of lookout.py. Only for whom etcd answers, and clocks and machines that are well and have been.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rivha.model import Lsn, Role, State
from tests.sim.disk import agree
from tests.sim.network import ETCD

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.laws import Laws

DEAD_S = 15.0  # the wait after a failed start is 10 s at the most, and whoever else may take over gets two
PUBLISHED_EVERY_S = 2.0  # what moves is published no more often than this: upkeep.LSN_EVERY_S, said anew
ELECTION_S = 5.0  # pledges, patience, each rank's holding back, a named candidate's grace
GIVES_WAY = ("", "pledge", "compare", "follow")  # work that does not keep a standby from standing


@dataclass(slots=True)
class Waits:
    laws: Laws
    able_since: dict[str, float] = field(default_factory=dict)  # standbys that could take over
    open_since: float = 0.0  # when an election was last seen to be impossible: somebody led, say
    told: set[float] = field(default_factory=set)  # elections that have been judged: one word each
    dead_since: dict[str, float] = field(default_factory=dict)  # leaders whose Postgres is down
    unpublished: dict[str, tuple[float, Lsn]] = field(default_factory=dict)  # a leader's position, and since when it has stood there

    def look(self, now: float, *, calm: bool) -> None:
        for host in self.laws.world.hosts.values():
            self._the_position_is_published(host, now, calm=calm)
            self._the_dead_do_not_keep_the_key(host, now)
            if self._could_take_over(host) and (self.laws.world.shape.synchronous or self.laws.may_lead_by_itself(host.instance)):
                self.able_since.setdefault(host.name, now)
            else:
                self.able_since.pop(host.name, None)
        self._somebody_takes_over(now)

    def _the_position_is_published(self, host: Host, now: float, *, calm: bool) -> None:
        """What the followers' lag is measured by is no older than PUBLISHED_EVERY_S, a beat and etcd's answer (HAZARDS C 40)."""
        c, i = self.laws.cluster(), host.instance
        leads = c.leader is not None and c.leader.name == host.name and i.writable and not host.job
        troubled = i.trouble.hung or i.trouble.files_s or self.laws.excuse(host.name)
        before = self.unpublished.get(host.name)
        if not leads or troubled or not calm:
            self.unpublished.pop(host.name, None)
        elif before is None or c.optime >= before[1]:
            self.unpublished[host.name] = (now, i.disk.end)
        elif now - before[0] > PUBLISHED_EVERY_S + host.policy.loop_wait_s + host.policy.retry_timeout_s:
            self.laws.break_("the published position is old", f"{host.name}: {c.optime}, {now - before[0]:.0f} s ago it was at {before[1]}")
            del self.unpublished[host.name]

    def _the_dead_do_not_keep_the_key(self, host: Host, now: float) -> None:
        """A leader whose Postgres is down starts it, or gives the key back if etcd takes that; an etcd without space does not (DESIGN 8).

        There, who lets the key run out over it does not get it again, nor does anybody else.
        """
        store, i = self.laws.world.store, host.instance
        key = store.value("leader") == host.name or (store.full and host.name in self.dead_since and store.value("leader") is None)
        leads = key and not i.alive and i.disk.system_id and not i.disk.marker and not host.job
        told = host.core is None or host.core.tick.stopping or host.policy.paused or self.laws.excuse(host.name)
        hears = store.up and store.lone_member(host.name) is None and self._hears(host)
        if not leads or told or not hears or i.disk.full or i.trouble.unmounted or i.trouble.files_s:
            self.dead_since.pop(host.name, None)
        elif now - self.dead_since.setdefault(host.name, now) > DEAD_S + host.policy.loop_wait_s + host.policy.retry_timeout_s:
            self.laws.break_("a dead Postgres keeps the key", f"{host.name}, for {now - self.dead_since.pop(host.name):.0f} s")

    def _hears(self, host: Host) -> bool:
        network = self.laws.world.network
        quick = network.slow == 1.0 and not (network.loss or network.late or network.late_keys)
        return quick and network.talk(host.name, ETCD) and host.rate == 1.0

    def _somebody_takes_over(self, now: float) -> None:
        """While nobody leads, or the leader is lost for all to see, those who may take over do not go on waiting.

        They have suspect_after, three beats, what a request to etcd may take and ELECTION_S; each candidate more may hold back a second.
        """
        world, network = self.laws.world, self.laws.world.network
        in_order = world.store.well and network.slow == 1.0 and not (network.loss or network.late or network.late_keys)
        if not in_order or not self._election_is_open() or now < self.laws.void_until:
            self.open_since = now
            return
        since = {name: max(at, self.open_since) for name, at in self.able_since.items()}
        policy = max((world.hosts[name].policy for name in since), key=lambda p: p.loop_wait_s, default=None)
        if policy is None or self.open_since in self.told:
            return
        limit_s = policy.suspect_after_s + 3 * policy.loop_wait_s + policy.retry_timeout_s + ELECTION_S + len(world.hosts)
        waiting = {name for name, at in since.items() if now - at > limit_s}
        if self._may_elect(waiting):
            self.told.add(self.open_since)
            self.laws.break_("nobody took over", f"for {now - self.open_since:.0f} s, though {' '.join(sorted(waiting))} could")

    def _election_is_open(self) -> bool:
        """Nobody leads; synchronous, the holder answers nobody and renews nothing, whether its key is still there or not."""
        c = self.laws.cluster()
        if c.failover is not None or c.complaints or not c.initialize or c.config is None or c.config.get("pause"):
            return False  # who cannot read what decides stands still
        if not self.laws.world.shape.synchronous:
            return c.leader is None
        holder = self.laws.world.hosts.get((c.sync.leader if c.sync is not None else None) or "")
        if holder is None or c.config.get("synchronous_mode", "off") == "off":
            return False
        return (c.leader is None or c.leader.name == holder.name) and (not holder.agent_runs or holder.frozen_agent)

    def _may_elect(self, able: set[str]) -> bool:
        """One of these standbys, all in order; or q + 1 voters, of which any may have the most, and so each has to be one that may lead."""
        instances, sync = self.laws.world.instances, self.laws.cluster().sync
        if not self.laws.world.shape.synchronous or sync is None:
            return any(self.laws.may_lead_by_itself(instances[name]) for name in able)
        voters = able & sync.voters
        return len(voters) > sync.quorum and all(self.laws.may_lead_by_itself(instances[name]) for name in voters)

    def _could_take_over(self, host: Host) -> bool:
        """A standby in order, published, that left nobody's history; its agent is in order, has been, and hears etcd.

        Other cuts are of no account: who takes over needs etcd alone.
        """
        i, member = host.instance, self.laws.cluster().member(host.name)
        runs = i.state is State.RUNNING and i.role is Role.STANDBY and not i.trouble.hung and not i.has_backlog and not i.trouble.files_s
        published = member is not None and (member.state, member.role) == ("running", "replica")
        awake = host.core is not None and not host.core.tick.stopping and not self.laws.excuse(host.name) and not host.policy.paused
        hears = self.laws.world.network.talk(host.name, ETCD) and host.rate == 1.0
        if not (runs and published and awake and hears) or host.job not in GIVES_WAY:
            return False
        last = self.laws.world.instances[self.laws.leaders[-1]].disk if self.laws.leaders else i.disk
        return agree(i.disk.wal, last.wal) == len(i.disk.wal)
