"""One-line worlds for the brain's tests: `a_view().me(PRIMARY).leads()`, `a_view().me(STANDBY).leader("db1", PRIMARY)`.

The node under test is `db2`; the others are `db1` and `db3`. Each method returns the builder; `view()` (or passing the builder to
`decided`) gives the frozen View. Memory is folded as the tick does it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rivha.agent.brain.actions import Decision
from rivha.agent.brain.decide import decide
from rivha.agent.brain.evidence import InForce, Reply
from rivha.agent.brain.memory import Failures, Memory, remember
from rivha.agent.brain.view import Job, Lease, View, Wish, Witness
from rivha.model import (
    Cluster,
    Data,
    FailoverRequest,
    HistoryLine,
    LeaderKey,
    Member,
    Pledge,
    Policy,
    PostgresStatus,
    Replication,
    Resignation,
    Role,
    State,
    SyncState,
)

PRIMARY, STANDBY = Role.PRIMARY, Role.STANDBY
ME = "db2"
SYSTEM = "7300000000000000001"
NOW = 1000.0
TERM = 50
BEFORE = 41  # the term before, in which all have followed one leader
MEMBER_LEASE, LEADER_LEASE = 11, 22
NO_GROUND = (-1, -1, -1)  # memory: no pledge of mine is on its way


def a_member(name: str, role: str = "replica", state: str = "running", lsn: int = 100, **more: Any) -> Member:
    number = name[-1]
    return Member(
        name,
        role=role,
        state=state,
        conn_url=f"postgres://10.0.0.{number}:5432/postgres",
        api_url=f"http://10.0.0.{number}:8008/patroni",
        xlog_location=lsn,
        **{"timeline": 1, **more},
    )


def streams_to(name: str) -> Replication:
    return Replication(name, None, "replicator", "streaming", "async", 0)


def a_row(name: str, flush: int | None = 100, reply: str = "t1", sync: str = "quorum", state: str = "streaming") -> Replication:
    """A WAL sender that has heard from its standby."""
    return Replication(name, None, "replicator", state, sync, 1, sent_lsn=flush, flush_lsn=flush, replay_lsn=flush, reply_time=reply)


def names_of(words: str) -> frozenset[str]:
    """`"db1 db3"`, for readable tests."""
    return frozenset(words.split())


class World:
    def __init__(self) -> None:
        self.cluster: Cluster | None = Cluster(
            revision=100,
            initialize=SYSTEM,
            initialize_revision=1,
            config={},
            config_revision=2,
            members=(a_member("db1"), a_member(ME), a_member("db3")),
            optime=100,
            sync=SyncState("db1", frozenset(), 0, 60),
        )
        self.status = PostgresStatus(State.RUNNING, role=STANDBY, system_id=SYSTEM, timeline=1, receive_lsn=100, replay_lsn=100)
        self.lease: Lease | None = None
        self.policy = Policy()
        self.memory = Memory(
            initialized=True, last_term=TERM, last_leader="db1", pledge_ground=NO_GROUND, followed=BEFORE, sync_revision=60
        )
        self.more: dict[str, Any] = {}

    # ---- the local Postgres

    def me(self, role: Role = STANDBY, state: State = State.RUNNING, **status: Any) -> World:
        lsn = status.pop("lsn", 100)
        if role is PRIMARY and state is State.RUNNING:
            status.setdefault("replication", (streams_to("db1"), streams_to("db3")))
        positions = {"wal_lsn": lsn} if role is PRIMARY else {"receive_lsn": lsn, "replay_lsn": lsn}
        self.status = PostgresStatus(state, role=role, system_id=SYSTEM, timeline=status.pop("timeline", 1), **positions, **status)
        if state in (State.STOPPED, State.CRASHED) and role is STANDBY:
            self.status = replace(self.status, receive_lsn=None, replay_lsn=None, wal_lsn=lsn)
        return self

    def no_data(self, data: Data = Data.EMPTY, unfinished: str = "") -> World:
        self.status = PostgresStatus(State.STOPPED, data=data, unfinished=unfinished)
        return self

    def following(self, upstream: str = "10.0.0.1:5432") -> World:
        self.status = replace(self.status, upstream=upstream, streaming=True)
        return self

    def streams(self, *rows: Replication) -> World:
        """Who is connected to my primary, instead of db1 and db3."""
        self.status = replace(self.status, replication=rows)
        return self

    def names(self, text: str, *, confirmed: bool = True, passed: bool = False, lsn: int | None = 100, replies: Any = None) -> World:
        """In force at my primary; `passed`: so is the barrier. `lsn` and `replies` are what was seen when they came into force."""
        self.status = replace(self.status, synchronous_standby_names=text, names_confirmed=confirmed)
        self.memory = replace(self.memory, in_force=InForce(text, lsn, replies or {}, passed))
        return self

    def replies(self, **ago_s: float | None) -> World:
        """How long ago each standby's reply was seen to be a new one; None: never."""
        at = {name: None if ago is None else NOW - ago for name, ago in ago_s.items()}
        new = {name: Reply(frozenset({"t0"}), NOW - 0.1, changed) for name, changed in at.items()}
        return self.remembers(replies={**self.memory.replies, **new})

    # ---- etcd

    def held(self, synchronously: bool = True) -> World:
        """What the leader said: that it goes by a synchronous mode."""
        self._set(held_revision=40 if synchronously else 0)
        return self

    def mode(self, mode: str, **settings: Any) -> World:
        self.held(mode != "off")
        return self.settings(synchronous_mode=mode, **settings)

    def sync(self, leader: str | None, voters: str = "", quorum: int = 0) -> World:
        self._set(sync=SyncState(leader, names_of(voters), quorum, 60))
        return self

    def witness(self, silent_s: float = 3.0, unrenewed_s: float | None = 3.0, name: str = "db1") -> World:
        """What I have of the leader: silent to me, and not renewed in etcd, for so long."""
        self.more["witness"] = Witness(name, silent_s, unrenewed_s)
        return self

    def sync_doubtful(self) -> World:
        self.more["sync_doubtful"] = True
        return self

    def pledge_may_land(self) -> World:
        """An agent before me may have sent one."""
        return self.remembers(pledge_ground=None)

    def seen_at(self, cluster_s: float) -> World:
        self.more["cluster_seen_at"] = cluster_s
        return self

    def last_read(self, **changes: Any) -> World:
        """etcd is silent now, and said this before."""
        assert self.cluster is not None
        self.more["last_cluster"] = replace(self.cluster, **changes)
        return self.etcd_silent()

    def leads(self, left_s: float = 9.0) -> World:
        """The key is mine, on a lease that ends in `left_s` seconds."""
        self._set(leader=LeaderKey(ME, LEADER_LEASE, TERM), sync=SyncState(ME, frozenset(), 0, 60))
        self.lease = Lease(LEADER_LEASE, NOW + left_s, self.policy.ttl_s)
        return self

    def leader(self, name: str = "db1", role: str = "primary", **more: Any) -> World:
        """Somebody else leads; `role` is what that node published."""
        self._set(leader=LeaderKey(name, 33, TERM), sync=SyncState(name, frozenset(), 0, 60))
        return self.member(a_member(name, role, **{"succeeded": (TERM, BEFORE), "timeline": 2, **more}))

    def leaderless(self, for_s: float = 0.0) -> World:
        """Who has pledged did so at once. The key of who led last, if it is there, says what that one said last."""
        self._set(leader=None)
        last = self.cluster.member(self.memory.last_leader) if self.cluster else None
        if last is not None and last.name != ME:
            self.member(replace(last, role="primary"))
        self.memory = replace(self.memory, leaderless_since=NOW - for_s, standing_since=NOW - for_s)
        return self

    def holder(self, name: str | None) -> World:
        self._set(sync=SyncState(name, frozenset(), 0, 60) if name else None)
        return self

    def member(self, member: Member) -> World:
        assert self.cluster is not None
        others = [m for m in self.cluster.members if m.name != member.name]
        self._set(members=tuple(sorted([*others, member], key=lambda m: m.name)))
        return self

    def without(self, *names: str) -> World:
        assert self.cluster is not None
        self._set(members=tuple(m for m in self.cluster.members if m.name not in names))
        return self

    def pledged(self, name: str = ME, lsn: int = 100, timeline: int = 1) -> World:
        assert self.cluster is not None
        pledges = sorted((*self.cluster.pledges, Pledge(name, TERM, timeline, lsn, 70)), key=lambda p: p.name)
        self._set(pledges=tuple(pledges), pledge_revisions={**self.cluster.pledge_revisions, name: 70})
        return self

    def pledges(self, **lsn: int) -> World:
        for name, end in lsn.items():
            self.pledged(name, end)
        return self

    def resigned(self, leader: str = "db1", candidate: str | None = None, lsn: int = 0, timeline: int = 1) -> World:
        self._set(resigned=Resignation(TERM, leader, candidate, lsn, timeline=timeline if lsn else 0))
        return self

    def wanted(self, leader: str | None, candidate: str | None, at: str | None = None, *, accept_loss: bool = False) -> World:
        self._set(failover=FailoverRequest(leader, candidate, at, 80, accept_loss))
        return self

    def history(self, *lines: tuple[int, int]) -> World:
        self._set(history=tuple(HistoryLine(tl, lsn, "") for tl, lsn in lines))
        return self

    def initialize(self, value: str | None, lease_id: int = 0) -> World:
        self._set(initialize=value, initialize_lease_id=lease_id)
        self.memory = replace(self.memory, initialized=bool(value))
        return self

    def etcd(self, **changes: Any) -> World:
        self._set(**changes)
        return self

    def etcd_silent(self, for_s: float = 0.0) -> World:
        self.cluster = None
        self.memory = replace(self.memory, blind_since=NOW - for_s)
        return self

    def _set(self, **changes: Any) -> None:
        assert self.cluster is not None
        self.cluster = replace(self.cluster, **changes)

    # ---- the rest

    def paused(self) -> World:
        return self.settings(paused=True)

    def settings(self, **changes: Any) -> World:
        self.policy = replace(self.policy, **changes)
        return self

    def remembers(self, **changes: Any) -> World:
        self.memory = replace(self.memory, **changes)
        return self

    def failures(self, kind: str, in_a_row: int, ago_s: float = 1000.0) -> World:
        return self.remembers(failures={**self.memory.failures, kind: Failures(in_a_row, NOW - ago_s)})

    def compared(self, verdict: str, term: int = TERM, ago_s: float = 1.0) -> World:
        return self.remembers(history=verdict, compared_term=term, compared_at=NOW - ago_s)

    def busy(self, kind: str, subject: str = "") -> World:
        self.more["job"] = Job(kind, NOW - 1, subject)
        return self

    def ended(self, kind: str, outcome: str = "done", **more: Any) -> World:
        self.more["job"] = Job(kind, NOW - 2, ended_at=NOW - 1, outcome=outcome, **more)
        return self

    def tags(self, **tags: object) -> World:
        self.more["tags"] = tags
        return self

    def wish(self, kind: str, number: int = 1) -> World:
        self.more["wishes"] = (Wish(kind, number),)
        return self

    def unfit(self, why: str) -> World:
        """A safeguard that is required is missing."""
        self.more["unfit"] = why
        return self

    def stopping(self) -> World:
        self.more["stopping"] = True
        return self

    def view(self) -> View:
        values: dict[str, Any] = {
            "now": NOW,
            "wall": 1_750_000_000.0,
            "me": ME,
            "tags": {},
            "policy": self.policy,
            "postgres": self.status,
            "postgres_seen_at": NOW,
            "cluster": self.cluster,
            "cluster_seen_at": NOW,
            "last_cluster": self.cluster,
            "lease": self.lease,
            "memory": self.memory,
            "member_lease_id": MEMBER_LEASE,
        }
        v = View(**{**values, **self.more})
        return replace(v, memory=remember(v))


def a_view() -> World:
    return World()


def decided(world: World) -> Decision:
    return decide(world.view())
