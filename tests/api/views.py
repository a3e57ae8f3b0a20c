"""Views and desks for the API's tests, a line each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rivha.agent.brain.evidence import Reply
from rivha.agent.brain.memory import Memory
from rivha.agent.brain.view import Lease, View
from rivha.agent.desk import Desk
from rivha.agent.journal import Journal
from rivha.dcs.base import Txn
from rivha.model import (
    Cluster,
    LeaderKey,
    Member,
    Outcome,
    Policy,
    PostgresStatus,
    Replication,
    Role,
    State,
    SyncState,
)

NOW = 1000.0
MB = 1 << 20
END = 0x3000060


def a_member(name: str, *, role: str = "replica", **more: Any) -> Member:
    number = ord(name[-1]) % 100
    defaults: dict[str, Any] = {
        "state": "running",
        "conn_url": f"postgres://127.0.0.{number}:5432/postgres",
        "api_url": f"http://127.0.0.{number}:8008/patroni",
        "timeline": 3,
        "xlog_location": END,
        "replication_state": None if role == "primary" else "streaming",
        "lease_id": number,
    }
    return Member(name, role=role, **{**defaults, **more})


def a_cluster(leader: str | None = "a", members: tuple[Member, ...] | None = None, **more: Any) -> Cluster:
    if members is None:
        members = tuple(a_member(name, role="primary" if name == leader else "replica") for name in "abc")
    defaults: dict[str, Any] = {
        "initialize": "7277694203142172922",
        "config": {"ttl": 10},
        "config_revision": 5,
        "leader": None if leader is None else LeaderKey(leader, 77, 90),
        "optime": END,
    }
    return Cluster(100, members=members, **{**defaults, **more})


def a_primary(**more: Any) -> PostgresStatus:
    row = Replication("b", "10.0.0.2", "replicator", "streaming", "async", 0, END, END, END)
    defaults: dict[str, Any] = {
        "role": Role.PRIMARY,
        "timeline": 3,
        "wal_lsn": END,
        "server_version": 150018,
        "system_id": "7277694203142172922",
        "postmaster_started": "2026-07-01 10:00:00+00:00",
        "replication": (row,),
        "slots": {"b": END},
    }
    return PostgresStatus(State.RUNNING, **{**defaults, **more})


def a_standby(**more: Any) -> PostgresStatus:
    defaults: dict[str, Any] = {
        "role": Role.STANDBY,
        "timeline": 3,
        "receive_lsn": END,
        "replay_lsn": END,
        "latest_end_lsn": END,
        "streaming": True,
        "upstream": "127.0.0.97:5432",
        "server_version": 150018,
    }
    return PostgresStatus(State.RUNNING, **{**defaults, **more})


def a_view(
    me: str = "a", postgres: PostgresStatus | None = None, *, now: float = NOW, policy: Mapping[str, Any] | None = None, **more: Any
) -> View:
    """`a` leads, with a live lease of 10 s; `b` and `c` stream from it."""
    if postgres is None:
        postgres = a_primary() if me == "a" else a_standby()
    cluster = more.pop("cluster", a_cluster())
    defaults: dict[str, Any] = {
        "now": now,
        "wall": 1_780_000_000.0,
        "me": me,
        "tags": {},
        "policy": Policy(**(policy or {})),
        "postgres": postgres,
        "postgres_seen_at": now,
        "cluster": cluster,
        "cluster_seen_at": now,
        "last_cluster": cluster,
        "lease": Lease(77, now + 10, 10.0) if me == "a" else None,
        "memory": Memory(confirmed_at=now if me == "a" else None),
    }
    return View(**{**defaults, **more})


def silent_etcd(view: View) -> View:
    return replace(view, cluster=None)


def voters(*names: str, leader: str = "a", quorum: int = 0) -> SyncState:
    return SyncState(leader, frozenset(names), quorum, 12)


def replied(confirmed_at: float | None = None, **changed_at: float) -> Memory:
    """What `a` has heard: etcd's last word that it leads, and when each standby's reply last changed."""
    return Memory(confirmed_at=confirmed_at, replies={name: Reply(frozenset({"text"}), at, at) for name, at in changed_at.items()})


def a_desk(view: View | None = None, *, outcome: Outcome = Outcome.DONE, now: float | None = NOW) -> Desk:
    """A desk whose store answers `outcome` to every write; `now` stands still, None lets it run."""

    async def commit(_txn: Txn) -> Outcome:
        return outcome

    async def reload_file() -> str:
        return "nothing changed"

    desk = Desk(time.monotonic if now is None else lambda: now, Journal(), commit, reload_file, wake=lambda: None)
    desk.latest = view
    return desk
