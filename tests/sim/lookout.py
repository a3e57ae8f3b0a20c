"""The laws of what must not go on for long: looked at twice a second, and stated for a network and clocks that are well and have been."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rivha.api.health import freshness_limit_s
from rivha.dcs import records
from rivha.dcs.base import KeyValue, Reading
from rivha.model import Cluster, Role
from tests.sim.laws_needless import Needless
from tests.sim.laws_time import Waits

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.laws import Laws

AT_ONCE_S = 0.5
SLOT_S = 10.0  # slots are looked at so often


def barred(tags: Mapping[str, object]) -> bool:
    """nofailover, said anew: the laws must not ask the code that they judge."""
    priority = tags.get("failover_priority", 1)
    return bool(tags["nofailover"]) if "nofailover" in tags else isinstance(priority, int) and priority <= 0


@dataclass(frozen=True, slots=True)
class Known:
    """What an agent last read while somebody led."""

    start: int  # of that agent: the next one begins without a memory
    seen: Cluster


@dataclass(slots=True)
class Lookout:
    laws: Laws
    waits: Waits = field(init=False)
    needless: Needless = field(init=False)
    rough_at: float = 0.0  # when network or clocks were last seen to be disturbed
    paused_at: dict[str, float] = field(default_factory=dict)  # when a host was last seen to believe in a pause
    hangs_since: dict[str, float] = field(default_factory=dict)  # leaders whose Postgres answers nothing
    slow_files_at: dict[str, float] = field(default_factory=dict)  # when writing a file was last seen to take long
    slotless_since: dict[str, float] = field(default_factory=dict)  # primaries that lack a slot for one who streams from them
    standby_since: dict[str, float] = field(default_factory=dict)  # standbys that /primary is answered for
    known: dict[str, Known] = field(default_factory=dict)  # by reader
    seen: dict[str, Cluster] = field(default_factory=dict)  # by reader: what it read last
    pledged_at: dict[str, float] = field(default_factory=dict)
    bare_since: dict[str, float] = field(default_factory=dict)  # whose Postgres runs without its directory
    unready_since: dict[str, float] = field(default_factory=dict)  # who does not say that it is a running primary
    unflushed_since: dict[str, float] = field(default_factory=dict)  # nor that it has had its checkpoint, which a rewind needs

    def __post_init__(self) -> None:
        self.waits, self.needless = Waits(self.laws), Needless(self.laws)

    def look(self) -> None:
        now, n, hosts = self.laws.world.loop.now, self.laws.world.network, self.laws.world.hosts.values()
        self.paused_at |= {h.name: now for h in hosts if h.policy.paused}
        if n.cuts or n.loss or n.late or n.slow != 1.0 or not self.laws.world.store.well or any(h.rate != 1.0 for h in hosts):
            self.rough_at = now
        self.slow_files_at |= {h.name: now for h in hosts if h.instance.trouble.files_s}
        for host in hosts:
            self._no_second_primary(host, now)
            self._no_hanging_leader(host, now)
            self._no_postgres_without_its_directory(host, now)
            self._a_slot_for_each_standby(host, now)
        self.waits.look(now, calm=self.calm())

    def calm(self) -> bool:
        """The network and the clocks have been well for as long as an agent may wait for an answer."""
        settings = self.laws.world.settings
        assert isinstance(settings["retry_timeout"], int)
        assert isinstance(settings["loop_wait"], int)
        return self.laws.world.loop.now - self.rough_at > settings["retry_timeout"] + settings["loop_wait"] + 1.0

    def _no_second_primary(self, host: Host, now: float) -> None:
        """A primary whose agent can read that another leads is stopped at once, by the tick, not only when the fence would."""
        leader = self.laws.cluster().leader
        second = host.instance.writable and leader is not None and leader.name != host.name
        since = max(host.well_since, self.laws.leader_at, self.laws.void_until, self.paused_at.get(host.name, 0.0))
        well = host.core is not None and not host.frozen_agent and now - since > host.policy.loop_wait_s + AT_ONCE_S
        if second and well and self.calm() and not host.policy.paused and not host.instance.trouble.files_s:
            self.laws.break_("a second primary goes on", f"{host.name}, {leader.name if leader else ''} leads")

    def _no_hanging_leader(self, host: Host, now: float) -> None:
        """A leader whose Postgres answers nothing kills it hang_timeout after it could notice; what stops by itself has longer."""
        leader = self.laws.cluster().leader
        hangs = host.instance.alive and host.instance.trouble.hung and leader is not None and leader.name == host.name
        if not hangs or host.job in ("handover", "restart", "stop") or self.laws.excuse(host.name) or host.instance.trouble.files_s:
            self.hangs_since.pop(host.name, None)
            return
        notices_s = host.policy.loop_wait_s + host.policy.retry_timeout_s
        hangs_s = now - self.hangs_since.setdefault(host.name, now)
        if hangs_s > host.policy.hang_timeout_s + notices_s + host.policy.loop_wait_s and self.calm():
            self.laws.break_("a hanging Postgres keeps its leadership", host.name)

    def _a_slot_for_each_standby(self, host: Host, now: float) -> None:
        """A primary keeps the WAL of all that stream from it: should one be away for a while, it need not be cloned anew (HAZARDS F 92)."""
        i = host.instance
        standbys = (s.host for s in self.laws.world.receivers_of(host.name) if self.laws.world.hosts[s.host].agent_runs)
        slotless = [name for name in standbys if name not in i.disk.slots]  # whose agent is dead may be known to nobody who leads now
        if not slotless or not i.writable or self.laws.excuse(host.name) or host.policy.paused or host.job or not self.calm():
            self.slotless_since.pop(host.name, None)
        elif now - self.slotless_since.setdefault(host.name, now) > SLOT_S + 2 * host.policy.loop_wait_s and not i.trouble.files_s:
            self.laws.break_("a standby streams without a slot", f"{' '.join(slotless)} from {host.name}")

    def _no_postgres_without_its_directory(self, host: Host, now: float) -> None:
        """It is stopped as soon as its agent can see it (HAZARDS E 73): one look, which it does not answer."""
        if not host.instance.bare or host.job or self.laws.excuse(host.name) or host.instance.trouble.files_s:
            self.bare_since.pop(host.name, None)
            return
        notices_s = host.policy.loop_wait_s + host.policy.retry_timeout_s + AT_ONCE_S
        if now - self.bare_since.setdefault(host.name, now) > notices_s and self.calm():
            self.laws.break_("a Postgres without its directory runs on", host.name)

    def answered(self, host: Host) -> None:
        """/primary was 200: for a standby it is so at the most as long as a look at Postgres counts as fresh (HAZARDS B 21)."""
        self.laws.answered(host.name)
        self._nobody_is_sent_to_what_stops(host)
        view, now = host.core.desk.latest if host.core is not None else None, self.laws.world.loop.now
        if host.instance.role is not Role.STANDBY or not host.instance.alive or view is None:
            self.standby_since.pop(host.name, None)
        elif now - self.standby_since.setdefault(host.name, now) > freshness_limit_s(view) + AT_ONCE_S:
            self.laws.break_("/primary is answered for a standby", host.name)

    def _nobody_is_sent_to_what_stops(self, host: Host) -> None:
        """/primary says no before its Postgres begins to shut down (HAZARDS C 42); an operator's restart comes back at once."""
        if host.instance.stopping and host.job != "restart":
            self.laws.break_("/primary is answered while its Postgres shuts down", f"{host.name}, {host.job or 'the fence'}")

    def published(self, host: str) -> None:
        """A member key was written: does it say that the node can be compared with and copied from?"""
        member = self.laws.cluster().member(host)
        runs = member is not None and member.role == "primary" and member.state == "running"
        rested = runs and member is not None and member.checkpoint_after_promote is not False
        for ready, since in ((runs, self.unready_since), (rested, self.unflushed_since)):
            if ready:
                since.pop(host, None)
            else:
                since.setdefault(host, self.laws.world.loop.now)

    def asking(self, host: str, source: str, work: str) -> None:
        """Nobody judges, copies or rewinds by a leader that has not said that it is out of recovery, nor rewinds before its checkpoint."""
        member, now = self.laws.cluster().member(source), self.laws.world.loop.now
        since = (self.unflushed_since if work == "rewind" else self.unready_since).get(source)
        asker = self.laws.world.hosts[host]
        view = asker.core.desk.latest if asker.core is not None else None
        looked_s = asker.clock() - view.now if view is not None else 0.0  # before: etcd, or a disk, may have kept it waiting since
        if since is not None and now - looked_s - since > asker.policy.loop_wait_s + AT_ONCE_S and self.calm():
            says = f"{member.role}, {member.state}" if member is not None else "nothing"
            self.laws.break_("asked of a leader that is not ready", f"{host}: {work}; {source} says {says}")

    def read(self, host: str, reading: Reading) -> None:
        seen, start = self.seen.get(host), self.laws.world.hosts[host].starts
        if seen is None or seen.revision != reading.revision:
            c = self.laws.cluster()
            seen = self.seen[host] = c if c.revision == reading.revision else records.cluster(reading)
        if seen.leader is not None and (host not in self.known or self.known[host].start != start or self.known[host].seen is not seen):
            self.known[host] = Known(start, seen)

    def won(self, winner: str, before: Cluster) -> None:
        """Nobody wins before those that it knew, and that could lead, have had a beat to pledge (HAZARDS A 17: also without their keys).

        Not who was named, nor who led last itself: it holds all that it acknowledged, though its request arrive late, when it is a standby.
        Who led last is not waited for, unless it says that it runs as a standby.
        """
        host, known = self.laws.world.hosts[winner], self.known.get(winner)
        named = before.failover is not None or (before.resigned is not None and before.resigned.candidate == winner)
        again = before.sync is not None and before.sync.leader == winner
        if known is None or known.start != host.starts or named or again or host.instance.role is not Role.STANDBY:
            return
        now, then = self.seen[winner], known.seen  # what it decided on: others may have spoken since, too late for it
        led = then.leader.name if then.leader is not None and now.member(then.leader.name) is None else ""
        gone = {winner, led, *(p.name for p in before.pledges)}
        members = {m.name: now.member(m.name) for m in then.members if m.name not in gone}
        able = [n for n, m in members.items() if m is None or (not barred(m.tags) and m.state == "running" and m.role == "replica")]
        stood_s = self.laws.world.loop.now - self.pledged_at.get(winner, 0.0)
        if able and stood_s < host.policy.loop_wait_s:
            self.laws.break_("won before others could pledge", f"{winner} after {stood_s:.2f} s, without {' '.join(sorted(able))}")

    def wrote(self, key: str, now: KeyValue | None) -> None:
        self.needless.wrote(key, now)
        if key.startswith(records.PLEDGES) and now is not None and now.create_revision == now.mod_revision:
            # When it first stood: the same pledge, sent twice, may be written over itself late.
            self.pledged_at[key.removeprefix(records.PLEDGES)] = self.laws.world.loop.now
        if key.startswith(records.MEMBERS):
            self.published(key.removeprefix(records.MEMBERS))
