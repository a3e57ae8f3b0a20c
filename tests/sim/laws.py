"""The laws of DESIGN 13 for asynchronous mode, checked where they can be broken, and stated in acknowledged commits.

What asynchronous replication cannot promise is written into them and nowhere else: a takeover may lose what the winner did not hold, within
maximum_lag_on_failover of the position last published, and never when the old leader handed over. `excuse` says which single hosts no
lease can bind: their agent does not run, or has not heard yet. Every other exception stands in the law's own docstring.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rivha.agent.brain.waiting import RECONNECTS_S
from rivha.dcs import records
from rivha.dcs.base import KeyValue, Put, Reading, Txn
from rivha.model import Cluster, Role, State
from tests.sim.disk import Entry, agree
from tests.sim.lookout import Lookout, barred
from tests.sim.server import Instance

if TYPE_CHECKING:
    from tests.sim.clients import Acknowledged
    from tests.sim.world import World

GRACE_S = 3.0  # how long a switchover's candidate is waited for; whoever takes over later does it as after a failure
STARTS, CRASH_LOOP_S = 8, 60.0  # more starts than this of one primary, in one term and so many seconds, are a loop
LONG_AGO_S = 5.0
OUTRANKED_S = 1.2  # besides loop_wait: so long at the least waits who has read a better pledge
HEARING_S = 1.0  # from hearing that a pause is over to having acted upon it
ASKED_FOR = ("handover", "restart", "set_aside")  # jobs in which a paused node stops its Postgres
JOBS = {"start": ("start", "restart", "bootstrap"), "win": ()}  # work that runs in jobs of another name


@dataclass(slots=True)
class Laws:
    world: World
    broken: list[str] = field(default_factory=list)
    which: list[str] = field(default_factory=list)  # the laws alone, without when and who
    newest_term_acknowledged: int = 0
    forgiven: set[int] = field(default_factory=set)  # entries that a takeover was allowed to lose
    leaders: list[str] = field(default_factory=list)
    won: dict[str, int] = field(default_factory=dict)  # host -> the term that it won last
    changes: Counter[str] = field(default_factory=Counter)  # failover, switchover, regained
    before: Cluster | None = None  # etcd before the transaction that is being looked at
    now: Cluster | None = None  # and after it
    resigned_at: float = 0.0
    starts: dict[tuple[str, int], list[float]] = field(default_factory=dict)  # of primaries, by host and term
    leader_at: float = 0.0  # when the leader key was last written
    lookout: Lookout = field(init=False)
    given: set[int] = field(default_factory=set)  # revisions of the leader key that no agent wrote: a backup, or a person
    orphaned_at: dict[str, float] = field(default_factory=dict)  # when a promotion ended there whose agent has died meanwhile
    void_until: float = 0.0  # etcd was wiped: leases promise nothing until everybody has heard

    def __post_init__(self) -> None:
        self.lookout = Lookout(self)

    def break_(self, law: str, detail: str = "") -> None:
        text = f"LAW BROKEN: {law} {detail}".rstrip()
        self.broken.append(f"{self.world.loop.now:9.3f}  {text}")
        self.which.append(law)
        self.world.note("", text)

    def cluster(self) -> Cluster:
        """etcd's content of this moment."""
        store = self.world.store
        if self.now is None or self.now.revision != store.revision:
            self.before, self.now = self.now, records.cluster(Reading(store.revision, tuple(store.keys.values())))
        return self.now

    def wiped(self) -> None:
        ttl = self.world.settings["ttl"]
        assert isinstance(ttl, int)
        self.void_until = self.world.loop.now + 2 * ttl + 5.0

    def excuse(self, host: str) -> str:
        """Why no lease binds this host's Postgres now, or ""."""
        h, policy = self.world.hosts[host], self.world.hosts[host].policy
        if self.world.loop.now < self.void_until:
            return "etcd was wiped"
        if h.core is None or h.frozen_agent:
            return "its agent does not run, and the world has neither guard nor watchdog"
        looking_s = self.world.loop.now - max(h.well_since, self.orphaned_at.get(host, 0.0))
        if looking_s < 1.5 * policy.retry_timeout_s + policy.loop_wait_s + 1.5:
            return "its agent has just begun to look"  # the first look alone may take half a retry_timeout
        resumed_s = self.world.loop.now - self.lookout.paused_at.get(host, -math.inf)
        if resumed_s < HEARING_S + policy.retry_timeout_s + policy.loop_wait_s or policy.paused:
            return "it has not heard, or only just, that a pause is over (docs/decisions/0008)"  # so long the fence waits then
        return ""

    # ---- etcd

    def wrote(self, key: str, now: KeyValue | None) -> None:
        """Every write, one by one."""
        self.cluster()
        self.lookout.wrote(key, now)
        if key == "leader":
            self._leader_written(now)
        elif key == records.RESIGNED and now is not None:
            self.resigned_at = self.world.loop.now
            if (resigned := self.cluster().resigned) is not None:
                self.world.doing(resigned.leader, "resign")
            self._nothing_runs_where_the_key_was_given_back()
            self._what_was_handed_over_is_published()
        elif key.startswith(records.PLEDGES) and now is not None:
            self._a_pledge_is_true(key.removeprefix(records.PLEDGES))
        elif key.startswith(records.PLEDGES):
            self._a_pledge_stands_while_nobody_leads(key.removeprefix(records.PLEDGES))

    def asked(self, host: str, txn: Txn) -> None:
        """A transaction leaves its sender. Who resigns has no Postgres process left; paused, it may have one that is no primary."""
        instance = self.world.instances[host]
        resigns = any(isinstance(write, Put) and write.key == records.RESIGNED for write in txn.then)
        if resigns and (instance.alive or instance.left) and not (self.world.hosts[host].policy.paused and instance.role is Role.STANDBY):
            self.break_("resigned while its Postgres runs", host)
        if any(isinstance(write, Put) and write.key == records.LEADER for write in txn.then):
            self._the_best_one_asks(host)

    def _leader_written(self, now: KeyValue | None) -> None:
        before = self.before
        if now is None:
            return
        self.leader_at = self.world.loop.now
        moved = before is not None and before.leader is not None and before.leader.name == now.value
        if moved and before is not None and before.leader is not None and before.leader.term in self.given:
            self.given.add(now.mod_revision)  # to another lease
        if now.mod_revision in self.given:
            return
        if before is None or before.leader is None or before.leader.name != now.value:
            self.leaders.append(now.value)
            self.won[now.value] = now.mod_revision
            self._count(now.value)
            if before is not None and before.leader is not None:
                self._key_was_taken(now.value, before)
            if before is not None:
                self._what_is_lost(now.value, before)
                self._the_best_one_won(now.value, before)
                self._nobody_was_overlooked(now.value, before)
                self._the_named_one_won(now.value, before)
                self._who_may_lead(now.value, before)
            self.world.doing(now.value, "win")

    def _nobody_was_overlooked(self, winner: str, before: Cluster) -> None:
        self.lookout.won(winner, before)

    def _key_was_taken(self, winner: str, before: Cluster) -> None:
        """Asynchronous, a leadership ends with its lease or its resignation, never otherwise."""
        self.break_("the key was taken from its holder", f"by {winner} from {before.leader.name if before.leader else ''}")

    def names_taken(self, instance: Instance) -> None:
        """The processes of a primary go by other synchronous_standby_names from now on: of no account here."""

    def _count(self, winner: str) -> None:
        if len(self.leaders) > 1:
            planned = self.before is not None and self.before.resigned is not None and self.before.resigned.lsn > 0
            self.changes["regained" if winner == self.leaders[-2] else "switchover" if planned else "failover"] += 1

    def _what_is_lost(self, winner: str, before: Cluster) -> None:
        """A hand-over loses nothing, a failover nothing beyond maximum_lag_on_failover; an operator's `failover` may lag."""
        held = {entry.ident for entry in self.world.instances[winner].disk.wal}
        missing = {a.ident for a in self.world.clients.acknowledged if a.ident not in held and a.ident not in self.forgiven}
        if not missing:
            return
        resigned, manual = before.resigned, before.failover is not None and before.failover.leader is None
        handed_over = resigned is not None and resigned.lsn and self.world.loop.now - self.resigned_at <= GRACE_S
        if handed_over and resigned is not None and resigned.candidate and not manual:
            self.break_("a switchover lost acknowledged rows", f"{winner} lacks {len(missing)}")
        behind = before.optime - self.world.instances[winner].disk.end
        if behind > self.maximum_lag() and not manual:
            self.break_("a winner lagged more than maximum_lag_on_failover", f"{winner}: {behind} bytes")
        self.forgiven |= missing

    def may_lead_by_itself(self, instance: Instance) -> bool:
        """By its tags, its lag and its history: whoever may not needs a person."""
        c, disk = self.cluster(), instance.disk
        if barred(self.world.hosts[instance.host].tags) or disk.end < c.optime - self.maximum_lag():
            return False
        if any(line.timeline == disk.timeline and line.lsn < disk.end for line in c.history):
            return False  # an old primary's tail
        return not (self.world.settings.get("check_timeline") and c.history and disk.timeline <= c.history[-1].timeline)

    def maximum_lag(self) -> int:
        lag = self.world.settings["maximum_lag_on_failover"]
        assert isinstance(lag, int)
        return lag

    def _the_best_one_won(self, winner: str, before: Cluster) -> None:
        """Judged already when it asked: `_the_best_one_asks`."""

    def _the_best_one_asks(self, host: str) -> None:
        """Nobody asks to lead at once who has read a higher pledge than its own, of a member that may lead, unless a person chose.

        Pledges are frozen, and what it has read is all that it decides on: no disturbance excuses it. Should the better one have died
        meanwhile, it waits loop_wait + 1.5 s for it (DESIGN 6.3), and its clock may run wrong.
        """
        seen = self.lookout.seen.get(host)
        mine = seen.pledge(host) if seen is not None else None
        stood_s = self.world.loop.now - self.lookout.pledged_at.get(host, 0.0)
        if seen is None or mine is None or seen.leader is not None or stood_s >= self.world.hosts[host].policy.loop_wait_s + OUTRANKED_S:
            return
        named = (seen.failover and seen.failover.candidate) or (seen.resigned and seen.resigned.candidate)
        if named or self.world.loop.now < self.void_until:
            return
        for other in seen.pledges:
            member, enough = seen.member(other.name), other.lsn >= seen.optime - self.maximum_lag()
            if member is not None and not barred(member.tags) and enough and (other.timeline, other.lsn) > (mine.timeline, mine.lsn):
                self.break_("asked to lead over a better pledge", f"{host}: {mine} after {stood_s:.2f} s, {other}")

    def _the_named_one_won(self, winner: str, before: Cluster) -> None:
        """While the leader that handed over waits for its candidate, nobody else takes over from one that is well."""
        named = before.resigned.candidate if before.resigned else None
        host = self.world.hosts.get(named or "")
        if host is None or named == winner or self.world.loop.now - self.resigned_at >= GRACE_S or not self.lookout.calm():
            return
        ready = host.instance.state is State.RUNNING and host.instance.role is Role.STANDBY and not host.instance.trouble.hung
        if ready and not self.excuse(host.name) and before.pledge(host.name) is not None:
            self.break_("another than the named candidate took over", f"{winner}, {named} was named")

    def _who_may_lead(self, winner: str, before: Cluster) -> None:
        """Nobody wins who is tagged nofailover, or whose timeline ended before the cluster's last; with data it had lost, or none."""
        instance, host = self.world.instances[winner], self.world.hosts[winner]
        if not instance.disk.system_id or instance.disk.marker:
            self.break_("a node without data leads", winner)
        if before.failover and before.failover.leader is None:
            return  # a person chose
        if instance.role is not Role.STANDBY or not instance.alive:
            self._it_led_last(instance)  # its own primary goes on
            return
        tags = (host.tags, self.world.shape.tags.get(winner, {}))  # one may just have been edited
        if all(barred(t) for t in tags):
            self.break_("a node with the tag nofailover was elected", winner)
        tail = next((line for line in before.history if line.timeline == instance.disk.timeline and line.lsn < instance.disk.end), None)
        if tail is not None:
            self.break_("an old primary's tail was elected", f"{winner} ends at {instance.disk.end}, its timeline at {tail.lsn}")

    def _it_led_last(self, instance: Instance) -> None:
        """Who takes the free key with its own primary: else what was acknowledged since is lost. A wiped etcd knows of nobody."""
        last, wiped = self.leaders[-2:-1], self.world.happened["etcd_wiped"]
        if last and last[0] != instance.host and not instance.disk.standby and not wiped:
            self.break_("an old primary leads again although another has led since", f"{instance.host}, after {last[0]}")

    def _nothing_runs_where_the_key_was_given_back(self) -> None:
        """A leader resigns what it holds. What takes effect late may find a standby there, started since (`asked`), but no primary."""
        resigned, before = self.cluster().resigned, self.before.leader if self.before is not None else None
        if resigned is not None and (before is None or before.name != resigned.leader):
            self.break_("resigned what it did not hold", f"{resigned.leader}, while {before.name if before else 'nobody'} led")
        instance = self.world.instances[resigned.leader] if resigned else None
        if instance is not None and instance.alive and instance.role is not Role.STANDBY:
            self.break_("a primary runs where the key was given back", instance.host)

    def _what_was_handed_over_is_published(self) -> None:
        """In the same transaction: who follows is measured by the position that was published last (HAZARDS C 40)."""
        c = self.cluster()
        if c.resigned is not None and c.optime < c.resigned.lsn:
            self.break_("a hand-over did not publish where its WAL ends", f"{c.resigned.leader}: {c.optime}, stopped at {c.resigned.lsn}")

    def _a_pledge_is_true(self, host: str) -> None:
        """When a pledge appears, its writer streams from nobody and has exactly the WAL that it says."""
        pledge, instance = self.cluster().pledge(host), self.world.instances[host]
        if pledge is None:
            return
        if instance.receiving:
            self.break_("pledged while it streams", f"{host} from {instance.receiving}")
        elif (pledge.timeline, pledge.lsn) != (instance.disk.timeline, instance.disk.end) and instance.disk.system_id:
            has = f"timeline {instance.disk.timeline}, {instance.disk.end}"
            self.break_("a pledge that is not true", f"{host} says timeline {pledge.timeline}, {pledge.lsn} and has {has}")

    def _a_pledge_stands_while_nobody_leads(self, host: str) -> None:
        """A pledge is taken back for a leader in office only: else somebody may be winning on it."""
        before, void = self.before, self.world.loop.now < self.void_until or self.world.healed
        if not void and before is not None and before.leader is None and self.cluster().leader is None and before.pledge(host) is not None:
            self.break_("a pledge was taken back while nobody leads", host)

    # ---- Postgres

    def promoting(self, instance: Instance) -> None:
        """Only who holds the leader key promotes, and won it, on a lease that lives by its own clock; paused, at a request only."""
        leader = self.cluster().leader
        mine = leader is not None and leader.name == instance.host
        if not mine and self.world.loop.now >= self.void_until and not self._may_promote_late(instance.host):
            self.break_("promoted without leadership", f"{instance.host}, while {leader.name if leader else 'nobody'} leads")
        if mine and leader is not None and leader.term in self.given:
            self.break_("promoted on a key that nobody won", instance.host)
        self._a_lease_lives(instance, "promoted")
        if self.world.hosts[instance.host].policy.paused and self.cluster().failover is None and not self._begun_before_the_pause(instance):
            self.break_("promoted while paused", instance.host)

    def _may_promote_late(self, host: str) -> bool:
        """No agent is excused: one that promotes runs, has read that it won, and looks at its clock."""
        return False

    def _begun_before_the_pause(self, instance: Instance) -> bool:
        """A promotion begins at once."""
        return False

    def lives(self, host: str, witness: str) -> None:
        """That host answered the witness's probe; or, witness "", it renewed its lease as the leader."""

    def answered(self, host: str) -> None:
        """/primary of that host was answered with 200."""

    def unsettled(self) -> str:
        """What the cluster is still on its way to, besides one primary and its standbys; "" when it has arrived."""
        return ""

    def starting(self, instance: Instance, *, primary: bool) -> None:
        """No primary starts while another leads, and nothing starts by itself while paused."""
        leader, host = self.cluster().leader, self.world.hosts[instance.host]
        if primary and leader is not None and leader.name != instance.host and not self.excuse(instance.host):
            self.break_("a primary was started while another leads", f"{instance.host}, {leader.name} leads")
        if primary:
            self._a_lease_lives(instance, "a primary was started")
        if host.policy.paused and host.job == "start":
            self.break_("started while paused", instance.host)

    def _a_lease_lives(self, instance: Instance, what: str) -> None:
        host = self.world.hosts[instance.host]
        lease = host.core.leases.leader if host.core is not None else None
        if host.job in ("promote", "start") and (lease is None or host.clock() >= lease.expires_at):
            self.break_(f"{what} without a lease that lives", instance.host)

    def stopping(self, instance: Instance) -> None:
        """While paused nothing stops but what an operator asked for; nobody hands over to a standby that does not stream.

        The request is what the hand-over was begun for: one that came later, while it was under way, is not yet judged by anybody.
        """
        self.lookout.needless.stopping(instance)
        host, request = self.world.hosts[instance.host], self.cluster().failover
        named = host.work_for if host.job == "handover" else ""
        if request is not None and request.leader is not None and request.candidate == named and named in self.world.instances:
            old = next((a for a in reversed(self.world.clients.acknowledged) if self.world.loop.now - a.at > LONG_AGO_S), None)
            held = {entry.ident for entry in self.world.instances[named].disk.wal}
            late = old is not None and old.host == instance.host and old.ident not in held and named not in instance.syncrep.live()
            if old is not None and late and instance.alive:  # to a dead one nobody streams
                self.break_("handed over to a standby that does not stream", f"{named} lacks row {old.number}")
        if host.policy.paused and instance.alive and host.job not in ASKED_FOR and not instance.disk.marker:
            self.break_("stopped while paused", f"{instance.host}, by {host.job or 'the fence'}")

    def working(self, host: str, work: str) -> None:
        """Long work runs in the job slot, one piece at a time; while paused nothing is rewound or cloned. One node makes a new cluster."""
        job = self.world.hosts[host].job
        if work == "bootstrap" and not self.world.whole_at and any(h.job == work and h.name != host for h in self.world.hosts.values()):
            self.break_("two nodes bootstrap at once", host)  # before any fault; later one may have died over it
        if work in ("rewind", "clone") and self.world.hosts[host].policy.paused:
            self.break_("replaced while paused", f"{host}: {work}")
        if work in ("pledge", "promote", "start", "clone", "rewind", "set_aside") and job not in JOBS.get(work, (work,)):
            self.break_("work outside the job slot", f"{host}: {work} in {job or 'no job'}")

    def replacing(self, instance: Instance, source: str, work: str) -> None:
        """What streaming can mend is neither rewound nor moved aside as diverged."""
        other = self.world.instances[source]
        if not instance.disk.marker and other.writable and agree(instance.disk.wal, other.disk.wal) == len(instance.disk.wal):
            self.break_("a directory was replaced that could have followed", f"{instance.host}: {work}")

    def became_primary(self, instance: Instance) -> None:
        """When a Postgres becomes writable, no other one is, whose agent could have stopped it. Nobody restarts in place for ever."""
        self._a_crash_loop_ends(instance)
        if not self.world.hosts[instance.host].job:
            self.orphaned_at[instance.host] = self.world.loop.now
            return  # what an agent began that has died since: nobody routes to it, and the next agent stops it
        for other in self.world.instances.values():
            if other is not instance and other.writable and not self.excuse(other.host) and not self.excuse(instance.host):
                self.break_("two primaries", f"{instance.host} became one while {other.host} still is")
        if self.cluster().leader is None:
            self.orphaned_at[instance.host] = (
                self.world.loop.now
            )  # its lease ended during the promotion: rules and fence stop it from now on

    def _a_crash_loop_ends(self, instance: Instance) -> None:
        """Where another could lead, a primary that dies again and again gives its leadership up."""
        now, starts = self.world.loop.now, self.starts.setdefault((instance.host, instance.led_term), [])
        starts[:] = [at for at in (*starts, now) if now - at < CRASH_LOOP_S]
        c = self.cluster()
        others = [
            i for i in self.world.instances.values() if i.host != instance.host and i.role is Role.STANDBY and i.state is State.RUNNING
        ]
        ready = {member.name for member in c.members if member.state == "running"}  # not, say, in the middle of a restart
        able = [i for i in others if not self.excuse(i.host) and self.may_lead_by_itself(i) and i.host in ready]
        if not able:
            starts.clear()
        if len(starts) > STARTS and self.lookout.calm() and not self.excuse(instance.host):
            self.break_("a crash loop was never given up", f"{instance.host} started {len(starts)} times, {able[0].host} could lead")

    def connected(self, instance: Instance) -> None:
        """Who has pledged streams from nobody; who streams, does so from the history that it has a part of.

        Without an agent Postgres goes on with whom it followed, rewound or not: it goes by numbers, and nobody is told (decision 10). One
        that etcd does not answer gets time to notice.
        """
        upstream = self.world.instances[instance.receiving].disk
        host = self.world.hosts[instance.host]
        view = host.core.desk.latest if host.core is not None and not host.frozen_agent else None
        blind_s = RECONNECTS_S + host.policy.retry_timeout_s + host.policy.loop_wait_s if view is not None and view.cluster is None else 0.0
        broken_s = self.world.loop.now - instance.receiver.lost_at
        if view is not None and broken_s > blind_s and agree(instance.disk.wal, upstream.wal) < len(instance.disk.wal):
            self.break_("streams from another history", f"{instance.host} from {instance.receiving}, timeline {instance.disk.timeline}")
        if self.cluster().pledge(instance.host) is not None:
            self.break_("streams while its pledge stands", f"{instance.host} from {instance.receiving}")

    def received(self, instance: Instance, entries: list[Entry]) -> None:
        """Nor does it receive what was still on the way."""
        if self.cluster().pledge(instance.host) is not None:
            self.break_("received while its pledge stands", f"{instance.host}: {len(entries)} entries")

    # ---- clients

    def acknowledged(self, done: Acknowledged) -> None:
        """Who acknowledges holds the leader key, and no later leadership has acknowledged before."""
        leader = self.cluster().leader
        holds = leader is not None and leader.name == done.host
        if not holds and self.excuse(done.host):
            self.forgiven.add(done.ident)
            return
        if not holds:
            self.break_(
                "acknowledged without the leader key", f"{done.host}, row {done.number}, {leader.name if leader else 'nobody'} leads"
            )
        if done.term < self.newest_term_acknowledged:
            self.break_("acknowledged in a leadership that has been succeeded", f"{done.host}, row {done.number}, term {done.term}")
        self.newest_term_acknowledged = max(self.newest_term_acknowledged, done.term)
