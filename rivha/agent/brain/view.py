"""Everything that one tick may know, as one frozen value, and the facts about it that rules speak of.

A fact is a property named in the words of the domain. Facts that need an algorithm (who is the best candidate) live in `election`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from rivha.agent.brain.memory import Memory
from rivha.model import Cluster, Data, Member, Pledge, Policy, PostgresStatus, Role, State, SyncState, Upstream

STEP_DOWN_SHARE = 0.25  # of the ttl, before its end: 2.5 s of 10 for a fast stop, of which the fence takes the last half


MOST_DOUBLINGS = 16  # nine hours, beyond any limit; a thousand, in 35 min of failing every 2 s, would be no float any more
VAIN = 2  # comparisons that fail while a leader is busy, or a connection is made; whatever fails longer is for people to see
REPLY_EVERY_S = 1.0  # wal_receiver_status_interval, postgres/conf.py


class Situation(StrEnum):
    """Which table of Postgres rules applies (STYLE 3.1.2)."""

    BLIND = "blind"  # etcd does not answer
    PAUSED = "paused"  # the operator wants hands off
    LEADING = "leading"  # the leader key is mine and my lease lives
    FOLLOWING = "following"  # somebody else holds the leader key
    LEADERLESS = "leaderless"  # nobody does, or the key is mine by name but my lease is not known to live


@dataclass(frozen=True, slots=True)
class Lease:
    """My lease on the leader key, as I believe it: counted from before the renewal was sent."""

    lease_id: int
    expires_at: float
    ttl_s: float
    doubtful: bool = False  # a write of the key is of unknown outcome, and may happen yet; `expires_at` is safe in either case


@dataclass(frozen=True, slots=True)
class Job:
    """The long work under way, or the one that ended last (`ended_at` and `outcome` set)."""

    kind: str  # bootstrap, clone, start, stop, promote, follow, pledge, compare, rewind, restart, handover, set_aside
    started_at: float
    subject: str = ""  # whom it is about: an upstream's name
    term: int = 0  # the leadership for which it was begun
    ground: tuple[int, int, int] | None = None  # of a pledge: see View.ground
    ended_at: float | None = None
    outcome: str = ""  # "", done, failed, cancelled
    result: str = ""  # of a comparison: same, diverged; of a failure: memory.HINDERED or ""
    detail: str = ""  # for people: of a failure, what failed, why, and what to do


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asked of this node: restart, reinitialize, reload, hand over at shutdown."""

    kind: str
    number: int
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Witness:
    """What I have of whoever led last (DESIGN 6.1). One silence alone convicts nobody."""

    name: str
    silent_s: float  # its agent has answered no probe of mine that was sent since
    unrenewed_s: float | None  # its lease was not renewed for at least so long, by etcd's clock; None: etcd was not asked


@dataclass(frozen=True, slots=True)
class View:
    now: float  # monotonic, seconds
    wall: float  # seconds since 1970, for `scheduled_at` only
    me: str
    tags: Mapping[str, object]
    policy: Policy
    postgres: PostgresStatus
    postgres_seen_at: float  # when the look at Postgres began
    cluster: Cluster | None  # None: etcd did not answer in this tick
    cluster_seen_at: float | None  # when the last successful read was sent
    last_cluster: Cluster | None  # the last that was read, for people and for knowing who was there
    lease: Lease | None
    job: Job | None = None
    wishes: tuple[Wish, ...] = ()
    memory: Memory = field(default_factory=Memory)
    stopping: bool = False  # the agent was asked to end
    member_lease_id: int = 0  # the lease that carries my member key, and my claim to bootstrap
    witness: Witness | None = None  # of the leader that I watch as a voter
    # I lead, or etcd is silent, and a write of `sync` of mine, or of an agent before me, may be carried out yet, or may have been
    sync_doubtful: bool = False
    unfit: str = ""  # why this machine must not lead (a watchdog that is required and cannot be used); "" when it may

    # ---- time and the lease

    @property
    def lease_is_live(self) -> bool:
        return self.lease is not None and self.now < self.lease.expires_at

    @property
    def step_down_at(self) -> float | None:
        """When a primary begins to stop: early enough to have stopped when the lease runs out, or when the voters' proof ends."""
        by_lease = None if self.lease is None else self.lease.expires_at - self.lease.ttl_s * STEP_DOWN_SHARE
        return max((at for at in (by_lease, self.proven_until) if at is not None), default=None)

    # ---- the synchronous modes

    @property
    def synchronous(self) -> bool:
        return self.policy.synchronous_mode != "off"

    @property
    def sync(self) -> SyncState | None:
        """Who may lead, as last read."""
        c = self.cluster or self.last_cluster
        return c.sync if c else None

    @property
    def voters(self) -> frozenset[str]:
        return self.sync.voters if self.sync else frozenset()

    @property
    def i_am_the_holder(self) -> bool:
        """`sync` names me: nobody has led since I did."""
        return self.sync is not None and self.sync.leader == self.me

    @property
    def is_held_synchronously(self) -> bool:
        """The leader said that it goes by a synchronous mode, and nobody has said otherwise since."""
        c = self.cluster or self.last_cluster
        return c is not None and c.held_revision > 0

    @property
    def proof_window_s(self) -> float:
        """How old a voter's reply may be and still count: it is sent once a second, and looked for once a beat, silent etcd or not."""
        return REPLY_EVERY_S + self.policy.loop_wait_s + self.policy.retry_timeout_s / 2 + 0.5

    @property
    def proven_until(self) -> float | None:
        """DESIGN 7 (b): until when the voters' replies prove that nobody was elected. None: they do not. Infinite: nobody else may lead.

        Fresh replies of all but q voters leave no q + 1 that could have pledged. It promises nothing about commits; those need no proof.
        """
        sync = self.sync
        if sync is None or sync.leader != self.me or self.sync_doubtful or self.other_leader is not None or not self.synchronous:
            return None
        if not sync.voters:
            return float("inf") if self.is_held_synchronously else None
        shown = [reply.changed_at for name in sync.voters if (reply := self.memory.replies.get(name)) and reply.changed_at is not None]
        needed = len(sync.voters) - sync.quorum
        return sorted(shown, reverse=True)[needed - 1] + self.proof_window_s if 0 < needed <= len(shown) else None

    @property
    def confirmed_at(self) -> float | None:
        """When etcd last said that I lead; None: never, or another has led since."""
        return None if self.other_leader is not None else self.memory.confirmed_at

    @property
    def leader_is_lost(self) -> bool:
        """Both witnesses agree for `suspect_after` (DESIGN 6.1): it does not answer me, and it does not renew, or its key is gone."""
        w, c = self.witness, self.cluster
        if w is None or c is None or w.silent_s < self.policy.suspect_after_s:
            return False
        if c.leader is None:
            return c.sync is not None and w.name == c.sync.leader
        return c.leader.name == w.name and w.unrenewed_s is not None and w.unrenewed_s >= self.policy.suspect_after_s

    # ---- who leads

    @property
    def situation(self) -> Situation:
        if self.policy.paused:
            return Situation.PAUSED
        if self.cluster is None:
            return Situation.BLIND
        if self.i_lead:
            return Situation.LEADING
        if self.other_leader is not None:
            return Situation.FOLLOWING
        return Situation.LEADERLESS

    @property
    def key_is_mine(self) -> bool:
        return self.cluster is not None and self.cluster.leader is not None and self.cluster.leader.name == self.me

    @property
    def i_lead(self) -> bool:
        """The key is mine, on the lease that I renew, and by my own clock that lease lives."""
        leader = self.cluster.leader if self.cluster else None
        if leader is None or leader.name != self.me or self.lease is None:
            return False
        return self.lease_is_live and leader.lease_id == self.lease.lease_id

    @property
    def term(self) -> int:
        """The leadership in office; 0 when nobody leads or etcd is silent."""
        return self.cluster.leader.term if self.cluster and self.cluster.leader else 0

    @property
    def nobody_leads(self) -> bool:
        return self.cluster is not None and self.cluster.leader is None

    @property
    def other_leader(self) -> str | None:
        leader = self.cluster.leader if self.cluster else None
        return leader.name if leader and leader.name != self.me else None

    @property
    def leader_member(self) -> Member | None:
        """The other node that leads, if it is published and can be reached by libpq."""
        return self.cluster.member(self.other_leader) if self.cluster and self.other_leader else None

    @property
    def leader_upstream(self) -> Upstream | None:
        return upstream_of(self.leader_member)

    @property
    def points_at_the_leader(self) -> bool:
        """My standby was told to stream from where the leader in office listens. Running or starting, streaming or not."""
        upstream = self.leader_upstream
        return upstream is not None and self.postgres.role is Role.STANDBY and self.postgres.upstream == upstream.address

    @property
    def leader_is_writable(self) -> bool:
        """The leader itself published that its Postgres is out of recovery."""
        member = self.leader_member
        return member is not None and member.role == "primary" and member.state == "running"

    @property
    def leader_went_on_from(self) -> int | None:
        """The term whose WAL the leader in office went on from, as it says itself (0: it does not know); None: it has not said so yet."""
        said = self.leader_member.succeeded if self.leader_member is not None else None
        return said[1] if said is not None and said[0] == self.term else None

    @property
    def shares_the_leaders_past(self) -> bool:
        """My WAL and the leader's come from one leader in one term: then Postgres' own numbers tell who may stream (decision 10).

        Of a later leader mine must be an older timeline than its own: who got nothing of that term's may have made its number again.
        """
        m = self.memory
        if m.followed == 0 or m.adrift:
            return False
        return m.followed == self.term or (m.followed == self.leader_went_on_from and self.mine_is_an_older_timeline)

    @property
    def mine_is_an_older_timeline(self) -> bool:
        """Than the leader's, by number: then it is at least not another timeline of the leader's number."""
        mine, leader = self.postgres.timeline, self.leader_member
        return mine is not None and leader is not None and leader.timeline is not None and mine < leader.timeline

    @property
    def streams_what_may_be_another_history(self) -> bool:
        """I point at the leader since before it said from where it went on, and not from there: Postgres goes by numbers (decision 10)."""
        said = self.leader_went_on_from is not None and self.leader_is_writable
        return self.running and self.points_at_the_leader and said and not self.shares_the_leaders_past

    @property
    def my_member(self) -> Member | None:
        return self.cluster.member(self.me) if self.cluster else None

    @property
    def my_pledge(self) -> Pledge | None:
        return self.cluster.pledge(self.me) if self.cluster else None

    @property
    def bootstrap_is_mine(self) -> bool:
        """`initialize` is the claim that I made."""
        c = self.cluster
        return c is not None and c.initialize == "" and c.initialize_lease_id == self.member_lease_id != 0

    @property
    def unreadable(self) -> str:
        """Keys that decide about leadership and do not parse: nothing may be concluded from them. For people."""
        decisive = ("leader", "sync", "rivha/", "history")
        return "; ".join(c for c in (self.cluster.complaints if self.cluster else ()) if c.startswith(decisive))

    @property
    def my_pledge_cannot_be_read(self) -> bool:
        return any(c.startswith(f"rivha/pledges/{self.me}: ") for c in (self.cluster.complaints if self.cluster else ()))

    @property
    def ground(self) -> tuple[int, int, int] | None:
        """What a pledge of mine that is written now rests on: the revisions of the leader key, of `sync`, and of my own pledge key."""
        c = self.cluster
        if c is None:
            return None
        return self.term, c.sync.revision if c.sync else 0, c.pledge_revisions.get(self.me, 0)

    @property
    def a_pledge_may_land(self) -> bool:
        """One that I sent, or an agent before me, may be carried out yet: to stream now would make it a lie."""
        return self.my_pledge is None and self.ground is not None and self.ground == self.memory.pledge_ground

    # ---- the local Postgres

    @property
    def running(self) -> bool:
        return self.postgres.state is State.RUNNING

    @property
    def down(self) -> bool:
        return self.postgres.state in (State.STOPPED, State.CRASHED)

    @property
    def is_primary(self) -> bool:
        """A postmaster lives, and is or may be out of recovery: the safe reading of a role that is not known."""
        return not self.down and self.postgres.role is not Role.STANDBY

    @property
    def has_data(self) -> bool:
        return self.postgres.data is Data.VALID

    @property
    def busy(self) -> bool:
        return self.job is not None and self.job.ended_at is None

    def busy_with(self, *kinds: str) -> bool:
        return self.busy and self.job is not None and self.job.kind in kinds

    def wish(self, kind: str) -> Wish | None:
        return next((w for w in self.wishes if w.kind == kind), None)

    def failed(self, kind: str) -> int:
        """How often this kind of job has failed in a row."""
        failures = self.memory.failures.get(kind)
        return failures.in_a_row if failures else 0

    def spoiled(self, kind: str) -> int:
        """The same, but for the tries that nobody answered or a full disk ended: those tell nothing about what lies here."""
        failures = self.memory.failures.get(kind)
        return failures.in_a_row - failures.hindered if failures else 0

    def may_retry(self, kind: str, at_most_s: float = 60.0) -> bool:
        """After n failures in a row the next try waits 2^n half-seconds, `at_most_s` at the most."""
        failures = self.memory.failures.get(kind)
        if failures is None:
            return True
        wait_s: float = 0.5 * 2.0 ** min(failures.in_a_row, MOST_DOUBLINGS)
        return self.now >= failures.last_at + min(wait_s, at_most_s)

    @property
    def problem(self) -> str:
        """What is wrong with this node, in a sentence for people; "" when nothing is known to be."""
        if self.postgres.problem and not self.busy_with("clone", "rewind"):  # such a job is no longer interrupted, it is under way
            return self.postgres.problem
        if self.cluster is None:
            streams_from_nobody = self.running and self.postgres.role is Role.STANDBY and self.postgres.upstream is None
            return "etcd does not answer this node" + (", and it streams from nobody until it does" if streams_from_nobody else "")
        if self.running and (self.postgres.streaming or self.i_lead):
            return self.uncompared
        latest = max(self.memory.failures.values(), key=lambda f: f.last_at, default=None)
        return latest.why if latest else ""

    @property
    def uncompared(self) -> str:
        """Why it is not known whether what streams here is the leader's history; "" when it is, or when few tries failed."""
        tried = self.memory.failures.get("compare")
        streams = self.running and self.postgres.streaming and self.other_leader is not None
        return tried.why if tried is not None and tried.in_a_row > VAIN and streams and not self.shares_the_leaders_past else ""

    @property
    def data_is_of_this_cluster(self) -> bool:
        known = self.cluster.initialize if self.cluster else None
        return not known or self.postgres.system_id is None or known == self.postgres.system_id


def upstream_of(member: Member | None) -> Upstream | None:
    return Upstream.of(member.name, member.conn_url) if member is not None else None
