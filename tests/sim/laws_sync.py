"""The laws of DESIGN 13 for the synchronous modes: no acknowledged commit is ever lost, whoever stops, freezes or is cut off, on any clock.

No lease and no clock is part of that promise, so what `Laws` says of leases is left out here: an old primary may go on for a while, but
nobody acknowledges a row that who may lead does not hold. Beyond the promise are lost disks, and an operator who accepts the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

from rivha.dcs import records
from rivha.dcs.base import KeyValue, Put, Txn
from rivha.model import Cluster, Role, State, SyncState
from tests.sim.disk import Disk, agree
from tests.sim.laws import Laws, barred
from tests.sim.server import Instance
from tests.sim.syncrep import parse

if TYPE_CHECKING:
    from tests.sim.clients import Acknowledged

FLOWS_S = 2.0  # a cluster in which nothing is wrong acknowledges something at least so often
KEPT_S = 20.0  # of signs of life
ON_THE_WAY_S, LAST_LOOK_S = 0.3, 0.8  # a question and its answer; from a candidate's last look to its winning transaction
GONE_S = 30.0  # no fault that leaves a primary and its network in order lasts so long
PREFERRED_S, OUTRANKED_S = 0.5, 0.9  # so long waits who finds a voter of higher priority that has not pledged yet, or that has
LATELY = 100  # acknowledged rows that each change of the voters is judged by


@dataclass
class SyncLaws(Laws):
    paused_at: float = math.inf  # when the pause in office began
    off_since: float = math.inf  # when the synchronous mode was turned off; infinite: it is on
    modes_at: float = 0.0  # when the configuration was last edited
    last: Acknowledged | None = None  # the last acknowledged row
    given_up: dict[str, int] = field(default_factory=dict)  # holder -> the revision at which an operator appointed another
    given_up_alone: set[str] = field(default_factory=set)  # of these who had no voters
    asked_at: dict[str, float] = field(default_factory=dict)  # when that host's last request to lead left it; etcd may be slow
    stood_at: dict[str, float] = field(default_factory=dict)  # since when a pledge of that host has stood
    flowed: tuple[float, str, int] = (0.0, "", 0)  # when a row was acknowledged last, where, and by which start of that Postgres
    signs: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # (leader, witness) -> when it was last seen to live

    # ---- what may be, other than in asynchronous mode

    def _may_promote_late(self, host: str) -> bool:
        """The holder whose key has run out: nobody has led since. Or who stood still, or waited for an answer of etcd's, since it read that
        it leads: what it acknowledges needs its voters.
        """
        sync, seen = self.cluster().sync, self.lookout.seen.get(host)
        unheard = seen is not None and seen.leader is not None and seen.leader.name == host
        return (sync is not None and sync.leader == host) or unheard or bool(self.excuse(host))

    def _begun_before_the_pause(self, instance: Instance) -> bool:
        """The names come into force before the promotion, which may take a while: it is the last half of an election that was won."""
        host = self.world.hosts[instance.host]
        job = host.core.jobs.job if host.core is not None else None
        return job is not None and (job.started_at - host.offset) / host.rate < self.paused_at

    def _key_was_taken(self, winner: str, before: Cluster) -> None:
        """By who holds the pledges of q + 1 voters."""
        pledged = {p.name for p in before.pledges} & (before.sync.voters if before.sync else frozenset())
        if before.sync is None or winner not in before.sync.voters or len(pledged) <= before.sync.quorum:
            self.break_("the key was taken without the voters", f"by {winner}, pledged {sorted(pledged)}, {told(before.sync)}")
        old = before.leader.name if before.leader is not None else ""
        for witness in (winner, ""):
            if self._seen_alive(old, witness, winner):
                self.break_(
                    "a leader was deposed that lives", f"{winner} took over from {old}, which {'renews' if not witness else 'answers it'}"
                )

    def lives(self, host: str, witness: str) -> None:
        """Kept as long as any suspicion may take."""
        signs, now = self.signs.setdefault((host, witness), []), self.world.loop.now
        signs[:] = [at for at in (*signs, now) if now - at < KEPT_S]

    def asked(self, host: str, txn: Txn) -> None:
        super().asked(host, txn)
        if any(isinstance(write, Put) and write.key == records.LEADER for write in txn.then):
            self.asked_at[host] = self.world.loop.now

    def _seen_alive(self, host: str, witness: str, winner: str) -> bool:
        """When it must have been silent: within what a suspicion takes, but before the candidate's last look, on a network in order."""
        network, now = self.world.network, self.asked_at.get(winner, self.world.loop.now)
        begin = now - self.world.hosts[witness or host].policy.suspect_after_s + ON_THE_WAY_S
        well = not network.loss and not network.late and not network.late_keys and network.slow == 1.0
        return well and any(begin < at < now - LAST_LOOK_S for at in self.signs.get((host, witness), []))

    def _nobody_was_overlooked(self, winner: str, before: Cluster) -> None:
        """q + 1 voters are enough, whoever else is about."""

    def _who_may_lead(self, winner: str, before: Cluster) -> None:
        """The holder leads again whatever its tags say: it led before, and who else holds what it acknowledged is not known."""
        if before.sync is None or before.sync.leader != winner or not self.world.instances[winner].disk.system_id:
            super()._who_may_lead(winner, before)
            self._a_voter_leads(winner, before)

    def _a_voter_leads(self, winner: str, before: Cluster) -> None:
        """Or whom the leader that stopped has named, with all that it had (`_what_is_lost`), or an operator who accepts the loss."""
        named = before.resigned is not None and before.resigned.candidate == winner and before.resigned.lsn > 0
        accepted = before.failover is not None and before.failover.accept_loss
        off = before.config is None or before.config.get("synchronous_mode") == "off"
        if before.sync is not None and winner not in before.sync.voters and not named and not accepted and not off:
            self.break_("who is no voter leads", f"{winner}, {told(before.sync)}")
        holder = (before.sync.leader if before.sync is not None else None) or ""
        if before.leader is None and before.resigned is None and not accepted and not off and self._seen_alive(holder, winner, winner):
            self.break_("a leader was deposed that lives", f"{winner} took over from {holder}, which answers it, though its key was gone")

    def _the_best_one_asks(self, host: str) -> None:
        """`_the_best_one_won` says which of the voters may win."""

    def _the_best_one_won(self, winner: str, before: Cluster) -> None:
        """Any of those who hold every acknowledged commit may win (`_what_is_lost` says whether it did), after a moment for the preferred.

        That is who has the higher failover_priority, and no less WAL or no pledge yet, by what the winner itself has read (HAZARDS B 28).
        """
        seen, mine = self.lookout.seen.get(winner, before), before.pledge(winner)
        named = before.failover is not None or (before.resigned is not None and before.resigned.candidate is not None)
        stood_s = self.world.loop.now - self.stood_at.get(winner, 0.0)
        if mine is None or named or before.sync is None or winner not in before.sync.voters or not self.lookout.calm():
            return
        for member in (seen.member(name) for name in before.sync.voters - {winner}):
            if member is None or barred(member.tags) or _priority(member.tags) <= _priority(self.world.hosts[winner].tags):
                continue
            other = seen.pledge(member.name)
            waits = other is None and (member.state, member.role) == ("running", "replica")
            ahead = other is not None and (other.timeline, other.lsn) >= (mine.timeline, mine.lsn)
            if (waits and stood_s < PREFERRED_S) or (ahead and stood_s < OUTRANKED_S):
                self.break_(
                    "a lesser voter did not wait for one that is preferred", f"{winner} after {stood_s:.2f} s, before {member.name}"
                )

    def _a_lease_lives(self, instance: Instance, what: str) -> None:
        """No lease is needed: what a primary acknowledges needs its voters."""

    def starting(self, instance: Instance, *, primary: bool) -> None:
        """Cut off from etcd it may start in place: it cannot acknowledge."""
        host = self.world.hosts[instance.host]
        if host.policy.paused and host.job == "start":
            self.break_("started while paused", instance.host)

    def became_primary(self, instance: Instance) -> None:
        self._a_crash_loop_ends(instance)
        self.names_taken(instance)

    def working(self, host: str, work: str) -> None:
        """A voter never gives up its data: who elects must hold what it acknowledged (HAZARDS H 11)."""
        super().working(host, work)
        sync = self.cluster().sync
        if work in ("set_aside", "rewind") and sync is not None and host in sync.voters:
            self.break_("a voter gives up its data", f"{host}: {work}, {told(sync)}")

    def answered(self, host: str) -> None:
        """Who was succeeded leaves routing within proof_window, though it cannot hear of it (DESIGN 7).

        Without voters nobody else can be elected, so it goes on, but an operator may appoint one: then it must first hear of that.
        """
        if host in self.given_up_alone and self._was_given_up_unheard(host):
            return
        sync, h, now = self.cluster().sync, self.world.hosts[host], self.world.loop.now
        policy = h.policy
        limit_s = 2.0 * (
            1.0 + policy.loop_wait_s + policy.retry_timeout_s
        )  # each step may be late: reply, look, answer, a clock that runs wrong
        since = max(self.leader_at, h.well_since, self.void_until, self.modes_at)
        succeeded = sync is not None and sync.leader not in (None, host) and not policy.paused
        if succeeded and now - since > limit_s and not h.instance.trouble.files_s:
            self.break_("/primary is answered by who was succeeded", f"{host}, {sync.leader if sync else ''} leads")

    def _was_given_up_unheard(self, host: str) -> bool:
        """It held the commits, an operator appointed another and accepts the loss, and it has not read etcd since."""
        seen = self.lookout.seen.get(host)
        return seen is not None and seen.revision < self.given_up.get(host, 0)

    def may_lead_by_itself(self, instance: Instance) -> bool:
        """A voter, if so many others can vote that one is elected: who says that it leaves is not counted on."""
        sync, hosts = self.cluster().sync, self.world.hosts
        if sync is None or instance.host not in sync.voters or barred(hosts[instance.host].tags):
            return False
        up = [i for i in self.world.instances.values() if i.host in sync.voters and i.role is Role.STANDBY and i.state is State.RUNNING]
        published = {member.name for member in self.cluster().members if not member.leaving}
        return sum(i.host in published and not self.excuse(i.host) for i in up) > sync.quorum

    def unsettled(self) -> str:
        """All who may be voters are, as many as the mode wants, and the names agree; commits go on, unless a strict mode has nobody."""
        c, mode = self.cluster(), self._mode()
        holder, sync = self.world.instances.get(c.leader.name if c.leader else ""), c.sync
        if c.config is None or holder is None or sync is None or sync.leader != holder.host:
            return f"{told(sync)} without its holder"
        able = {name for name, host in self.world.hosts.items() if name != holder.host and not host.tags.get("nosync")}
        count = c.config.get("synchronous_node_count", 1)
        assert isinstance(count, int)
        wanted = len(able) if mode == "quorum" and len(able) > count and not any(barred(self.world.hosts[n].tags) for n in able) else 0
        number = 0 if mode == "off" else min(count, len(able))
        names = holder.syncrep.names
        members, needed = (set(names.members), names.number) if names is not None else (set[str](), 0)
        if mode != "off" and able and (members != sync.voters or needed != number or sync.quorum != len(sync.voters) - number):
            return f"{mode} {count}: {told(sync)}, and {needed} of {sorted(members)} are named"
        if not sync.voters <= able or len(sync.voters) < max(wanted, number) or (mode == "off" and sync.voters):
            return f"{mode} {count}: {told(sync)}, of {sorted(able)}"
        blocked = mode != "off" and not able and c.config.get("synchronous_mode_strict")
        last = self.world.clients.acknowledged[-1:]
        return "" if blocked or (last and self.world.loop.now - last[0].at < FLOWS_S) else "no commit is acknowledged"

    # ---- the promise

    def _mode(self) -> object:
        config = self.cluster().config
        return config.get("synchronous_mode", "off") if config else self.world.settings["synchronous_mode"]

    def _what_is_lost(self, winner: str, before: Cluster) -> None:
        """Nothing, but where an operator accepts it, and in mode off.

        There takeovers compare nothing but the published position, as in asynchronous mode, once the leader has heard of it: until then
        the votes decide, and what is lost is at most what was acknowledged since the mode was turned off.
        """
        accepted = before.failover is not None and before.failover.accept_loss and before.failover.candidate == winner
        if accepted and before.sync is not None and before.sync.leader is not None:
            self.given_up[before.sync.leader] = self.cluster().revision
            self.given_up_alone = self.given_up_alone - {before.sync.leader} | ({before.sync.leader} if not before.sync.voters else set())
        disk = self.world.instances[winner].disk
        missing = [a for a in self.world.clients.acknowledged if a.ident not in self.forgiven and not disk.holds(a.ident)]
        if not missing:
            return
        off = self.off_since < math.inf
        if off and not accepted and not before.held_revision and not (before.sync is not None and before.sync.voters):
            super()._what_is_lost(winner, before)
            return
        self.forgiven |= {a.ident for a in missing if accepted or a.at >= self.off_since}
        if missing := [a for a in missing if a.ident not in self.forgiven]:
            self.break_("the winner lacks acknowledged rows", f"{winner} lacks {len(missing)}, the first is row {missing[0].number}")

    def acknowledged(self, done: Acknowledged) -> None:
        """Whoever may lead now, or may be elected, holds it."""
        self._strict_commits_are_on_two(done)
        self._nobody_waited_for_who_was_gone(done)
        c = self.cluster()
        sync, asynchronous = c.sync, "off" in (self._mode(), self.world.hosts[done.host].policy.synchronous_mode)
        if (asynchronous and not (c.leader and c.leader.name == done.host)) or self._was_given_up_unheard(done.host):
            self.forgiven.add(done.ident)  # the mode promises no more, or the operator gave it up
        if done.ident in self.forgiven or sync is None or sync.leader is None:
            return
        disk = self.world.instances[done.host].disk
        if self.last is not None and self.last.ident not in self.forgiven and not disk.holds(self.last.ident):
            self.break_(
                "acknowledged by who lacks what was acknowledged before", f"{done.host} lacks row {self.last.number} of {self.last.host}"
            )
        self.last = done
        if done.host != sync.leader and not self.world.instances[sync.leader].disk.holds(done.ident):
            self.break_("acknowledged what the leader lacks", f"{done.host}, row {done.number}; {sync.leader} may lead")
        self._every_electing_set_holds([done], "when it was acknowledged")

    def _strict_commits_are_on_two(self, done: Acknowledged) -> None:
        """What is acknowledged in a cluster that was always strict is flushed elsewhere too, whoever may lead (REFERENCE 1.8)."""
        world = self.world
        if not world.shape.settings.get("synchronous_mode_strict") or world.happened["mode_edited"] or not world.whole_at:
            return
        others = [i for i in world.instances.values() if i.host != done.host]
        replaced = any(world.hosts[i.host].job in ("clone", "rewind", "set_aside") or i.disk.marker or not i.disk.system_id for i in others)
        if not replaced and not any(i.disk.holds(done.ident, flushed=True) for i in others):
            self.break_("strict, and acknowledged by one node alone", f"{done.host}, row {done.number}")

    def _nobody_waited_for_who_was_gone(self, done: Acknowledged) -> None:
        """A primary in order, on a network in order, goes on without standbys that are gone, unless it is strict (DESIGN 5)."""
        (since, *where), host = self.flowed, self.world.hosts[done.host]
        self.flowed = (done.at, done.host, host.instance.generation)
        if done.at - since <= GONE_S:
            return
        disturbed_at = max(self.lookout.rough_at, host.well_since, self.modes_at, self.world.whole_at)
        asked = host.policy.synchronous_mode_strict or "off" in (self._mode(), host.policy.synchronous_mode)
        if where == [*self.flowed[1:]] and disturbed_at < since and not asked:
            self.break_("commits waited for who was gone", f"{done.host}, {done.at - since:.0f} s")

    def wrote(self, key: str, now: KeyValue | None) -> None:
        super().wrote(key, now)
        if key.startswith(records.PLEDGES):
            self._stands(key.removeprefix(records.PLEDGES))
        if key == records.CONFIG:
            self.modes_at = self.world.loop.now
            config = self.cluster().config
            off = config is not None and config.get("synchronous_mode") == "off"
            self.off_since = min(self.off_since, self.world.loop.now) if off else math.inf
            paused = bool(config and config.get("pause"))
            self.paused_at = (self.paused_at if self.paused_at < math.inf else self.world.loop.now) if paused else math.inf
        if key == records.SYNC:
            if (sync := self.cluster().sync) is not None and sync.leader is not None:
                self.world.doing(sync.leader, "sync")
            self._the_rule_of_5("sync was written")
            self._voters_share_the_history()
            self._every_electing_set_holds(self.world.clients.acknowledged[-LATELY:], "after sync was written")

    def _stands(self, host: str) -> None:
        if self.cluster().pledge(host) is None:
            self.stood_at.pop(host, None)
        else:
            self.stood_at.setdefault(host, self.world.loop.now)

    def _voters_share_the_history(self) -> None:
        """Who becomes a voter has a part of its leader's history: timelines' numbers alone tell nobody that it is another (decision 10)."""
        sync, before = self.cluster().sync, self.before.sync if self.before is not None else None
        if sync is None or sync.leader is None:
            return
        disks = {name: self.world.instances[name].disk for name in sync.voters - (before.voters if before else frozenset())}
        for name, disk in disks.items():
            if agree(disk.wal, self.world.instances[sync.leader].disk.wal) < len(disk.wal):
                self.break_("a voter of another history", f"{name}, of {sync.leader}")

    def names_taken(self, instance: Instance) -> None:
        sync = self.cluster().sync
        if sync is not None and sync.leader == instance.host:
            self._the_rule_of_5("names came into force")

    def _the_rule_of_5(self, when: str) -> None:
        """|V + W| <= n + q, for every process of the holder's Postgres that may let commits go, by the names that it has read itself.

        A WAL sender counts every standby whose own sender takes it for named, also by other names than its own (syncrep.c).
        """
        sync = self.cluster().sync
        holder = self.world.instances.get(sync.leader) if sync and sync.leader else None
        if sync is None or holder is None or not holder.writable or not sync.voters:
            return
        if holder.syncrep.names is None:
            self.break_("commits wait for nobody while others may elect", f"{when}: {told(sync)}")
            return
        counted = frozenset(holder.syncrep.named())
        fresh = parse(holder.names)  # a sender that begins now
        for names in {s.names for s in holder.syncrep.live().values() if s.names} | ({fresh} if fresh else set()):
            members = counted | frozenset(names.members)
            if len(sync.voters | members) > names.number + sync.quorum:
                self.break_("an acknowledging set may miss an electing set", f"{when}: {names.number} of {sorted(members)}, {told(sync)}")
                return

    def _every_electing_set_holds(self, rows: list[Acknowledged], when: str) -> None:
        """Of those with data: who lost a disk cannot elect before it was cloned, and is no voter by then."""
        sync = self.cluster().sync
        if sync is None or not sync.voters:
            return
        disks = {name: self.world.instances[name].disk for name in sync.voters}
        for electing in combinations(sorted(sync.voters), sync.quorum + 1):
            if not all(disks[name].system_id for name in electing):
                continue
            lost = next((a for a in rows if a.ident not in self.forgiven and not _held(a.ident, [disks[n] for n in electing])), None)
            if lost is not None:
                self.break_("voters may elect who lacks acknowledged rows", f"{when}: {electing} lack row {lost.number}")
                return


def _priority(tags: Mapping[str, object]) -> int:
    """failover_priority, said anew, like `barred`."""
    priority = tags.get("failover_priority", 1)
    return priority if isinstance(priority, int) else 1


def told(sync: SyncState | None) -> str:
    """For a law's text, which is the same under any PYTHONHASHSEED: a set's own is not."""
    return f"{sync.leader} or {sync.quorum + 1} of {sorted(sync.voters)}" if sync is not None else "no sync"


def _held(ident: int, disks: list[Disk]) -> bool:
    return any(disk.holds(ident, flushed=True) for disk in disks)
