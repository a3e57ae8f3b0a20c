"""HAProxy's question, "may I send clients here?", answered from one View. Pure: no clock, no I/O; called by `app` for every check.

A check must never be optimistic: what is not known, or is known from too long ago, is 503.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rivha.agent.brain.view import View
from rivha.api.status import describe, leads_at, replication_state, sync_kind
from rivha.model import Role, State

Query = Mapping[str, str]
PROBE = "/probe"

_UNITS = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}


class QueryError(ValueError):
    """The check itself is wrong, as configured in the load balancer: answered with 400 and this text."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a check may look at."""

    view: View
    now: float  # on the View's clock
    out_of_routing: bool
    query: Query


def freshness_limit_s(view: View) -> float:
    """How old a look at Postgres may be and still count.

    Three ticks may be missed, and one tick in which etcd uses up both its read and its write (that is what `ttl >= loop_wait +
    2 * retry_timeout` allows for): a slow etcd alone must not take a legitimate primary out of routing. Older than that, the loop hangs.
    """
    policy = view.policy
    return max(3.0, 3 * policy.loop_wait_s, policy.loop_wait_s + 2 * policy.retry_timeout_s)


def is_fresh(q: Question) -> bool:
    return q.now - q.view.postgres_seen_at <= freshness_limit_s(q.view)


def is_primary(q: Question) -> bool:
    """It leads, and its Postgres takes writes. Paused with etcd silent, the role alone decides: nobody changes roles then."""
    postgres = q.view.postgres
    if q.out_of_routing or postgres.state is not State.RUNNING or postgres.role is not Role.PRIMARY or not is_fresh(q):
        return False
    return leads_at(q.view, q.now) or (q.view.policy.paused and q.view.cluster is None)


def is_leader(q: Question) -> bool:
    return leads_at(q.view, q.now) and is_fresh(q)


def is_replica(q: Question) -> bool:
    """A running standby that may serve reads, near enough and of the kind that the query asks for."""
    # The query is read first, so that a mistyped one is noticed on every node.
    limit, tags = _lag_limit(q.query), {key[4:]: value for key, value in q.query.items() if key.startswith("tag_")}
    view = q.view
    if view.postgres.role is not Role.STANDBY or view.postgres.state is not State.RUNNING or not is_fresh(q):
        return False
    if view.tags.get("noloadbalance"):
        return False
    if limit is not None and not _lag_within(view, limit):
        return False
    wanted = q.query.get("replication_state")
    if wanted is not None and wanted != replication_state(view.postgres):
        return False
    return all(_tag_text(view.tags.get(key)) == value for key, value in tags.items())


def is_sync(q: Question) -> bool:
    """A voter, in `on` and in `quorum`. Patroni answers in `on` only; whoever routes to synchronous standbys means both."""
    return is_replica(q) and sync_kind(q.view) is not None


def is_quorum(q: Question) -> bool:
    return is_replica(q) and sync_kind(q.view) == "quorum_standby"


def is_async(q: Question) -> bool:
    return is_replica(q) and sync_kind(q.view) is None


def is_readable(q: Question) -> bool:
    return is_replica(q) or is_primary(q)


def is_running(q: Question) -> bool:
    return q.view.postgres.state is State.RUNNING and is_fresh(q)


def is_live(q: Question) -> bool:
    """The agent's loop turns; nothing about Postgres. A standby's has twice the time, since less hangs on it."""
    ttl_s = q.view.policy.ttl_s
    limit_s = ttl_s if q.view.postgres.role is Role.PRIMARY else 2 * ttl_s
    return q.view.policy.paused or q.now - q.view.now <= limit_s


def is_ready(q: Question) -> bool:
    """Whether a rolling update may go on to the next node: it leads, or streams and has caught up."""
    mode = q.query.get("mode", "apply")
    if mode not in ("apply", "write"):
        raise QueryError(f"mode={mode}: use apply (what is replayed counts) or write (what is received counts)")
    limit = _lag_limit(q.query)
    if not is_running(q):
        return False
    if leads_at(q.view, q.now):
        return q.view.postgres.role is Role.PRIMARY
    limit = q.view.policy.maximum_lag_on_failover if limit is None else limit
    return replication_state(q.view.postgres) == "streaming" and _lag_within(q.view, limit, received=mode == "write")


def lives(q: Question) -> bool:
    """For the other agents (DESIGN 6.1): I am up, look after this primary, and do not hand over. etcd may be silent, Postgres may be down:
    whoever holds the key restarts it or resigns."""
    if q.out_of_routing or not is_fresh(q):
        return False
    cluster = q.view.cluster or q.view.last_cluster
    leader = cluster.leader if cluster is not None else None
    return q.view.is_primary or (leader is not None and leader.name == q.view.me)


def _never(_q: Question) -> bool:
    """Standby clusters do not exist yet."""
    return False


_ANSWERS: tuple[tuple[Callable[[Question], bool], tuple[str, ...]], ...] = (
    (is_primary, ("/", "/primary", "/read-write", "/master")),
    (is_leader, ("/leader",)),
    (_never, ("/standby-leader", "/standby_leader")),
    (is_replica, ("/replica",)),
    (is_readable, ("/read-only",)),
    (is_sync, ("/sync", "/synchronous")),
    (is_async, ("/async", "/asynchronous")),
    (is_quorum, ("/quorum",)),
    (lambda q: is_primary(q) or is_sync(q), ("/read-only-sync",)),
    (lambda q: is_primary(q) or is_quorum(q), ("/read-only-quorum",)),
    (is_running, ("/health",)),
    (is_live, ("/liveness",)),
    (is_ready, ("/readiness",)),
    (lambda _q: True, ("/patroni", "/rivha")),
    (lives, (PROBE,)),
)
CHECKS: Mapping[str, Callable[[Question], bool]] = {path: check for check, paths in _ANSWERS for path in paths}


class Bodies:
    """Renders a View once, however many checks ask for it; only the age differs between them."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._view: View | None = None
        self._head = b""

    def render(self, view: View, now: float) -> bytes:
        if view is not self._view:
            text = json.dumps(describe(view, self._scope), default=str)
            self._view, self._head = view, text[:-1].encode() + b', "age": '
        return b"%s%.3f}" % (self._head, max(0.0, now - view.postgres_seen_at))


def answer(path: str, query: Query, view: View | None, now: float, out_of_routing: bool, bodies: Bodies) -> tuple[int, bytes] | None:
    """(status, JSON) of a health check; None when `path` is none. `now` is on the View's clock, in seconds."""
    check = CHECKS.get(path)
    if check is None:
        return None
    if view is None:
        ok = path in ("/patroni", "/rivha")
        return (200 if ok else 503), b'{"state": "starting", "role": "unknown", "age": null}'
    try:
        ok = check(Question(view, now, out_of_routing, query))
    except QueryError as wrong:
        return 400, json.dumps({"error": str(wrong)}).encode()
    if path == PROBE:
        return (200 if ok else 503), b"{}"  # asked twice a second by each voter, and only the status is read
    return (200 if ok else 503), bodies.render(view, now)


def lag_bytes(view: View, *, received: bool = False) -> int | None:
    """How far this standby is behind what etcd or the receiver said last of the primary; None when neither is known."""
    cluster, postgres = view.cluster or view.last_cluster, view.postgres
    ends = [lsn for lsn in (cluster.optime if cluster else 0, postgres.latest_end_lsn or 0) if lsn]
    mine = max(postgres.receive_lsn or 0, postgres.replay_lsn or 0) if received else postgres.replay_lsn
    return max(0, max(ends) - mine) if ends and mine else None


def _lag_within(view: View, limit: int, *, received: bool = False) -> bool:
    lag = lag_bytes(view, received=received)
    return lag is not None and lag <= limit


def _lag_limit(query: Query) -> int | None:
    text = query.get("lag")
    if text is None:
        return None
    number = text.rstrip("BKMGTbkmgt ")
    unit = text[len(number) :].strip().lower()
    if not number.isdecimal() or unit not in _UNITS:
        raise QueryError(f"lag={text} is no size; use bytes or a unit, like 1048576, 100kB, 10MB")
    return int(number) * _UNITS[unit]


def _tag_text(value: object) -> str | None:
    """As one writes it in a URL: true and false in lower case."""
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)
