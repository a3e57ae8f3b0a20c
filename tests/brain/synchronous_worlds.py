"""Worlds of the synchronous modes, for laws over all of them: a product of facts, with a second oddity and the mode drawn by lot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from random import Random

from rivha.agent.brain.view import Job
from rivha.model import Data, Role, State
from tests.build import NOW, PRIMARY, STANDBY, World, a_member, a_row, a_view

MODES = (("quorum", False), ("quorum", True), ("on", False), ("off", False))
Record = tuple[str | None, str, int] | None  # of `sync`: the holder, the voters, the quorum
RECORDS: tuple[Record, ...] = (
    ("db2", "", 0),
    ("db2", "db1 db3", 1),
    ("db2", "db1", 0),
    ("db1", "", 0),
    ("db1", "db2 db3", 1),
    ("db1", "db2 db3", 0),
    ("db1", "db2", 0),
    ("db1", "db3", 0),
    None,
)
KEYS = (
    "mine",
    "mine, lease over",
    "mine, lease unknown",
    "db1",
    "db1 silent",
    "db1 unrenewed",
    "db1 lost",
    "nobody",
    "nobody, lost",
    "blind",
)
POSTGRESES: tuple[Callable[[World], World], ...] = (
    lambda w: w.me(PRIMARY).streams(a_row("db1"), a_row("db3")),
    lambda w: w.me(PRIMARY, State.CRASHED, clean=False),
    lambda w: w.me(PRIMARY, State.STOPPED),
    lambda w: w.me(STANDBY).following(),
    lambda w: w.me(STANDBY, lsn=200),
    lambda w: w.me(STANDBY, upstream="10.0.0.3:5432"),
    lambda w: w.me(STANDBY, State.STOPPED),
    lambda w: w.me(Role.UNKNOWN, State.STARTING),
    lambda w: w.no_data(),
    lambda w: w.no_data(Data.UNFINISHED, "rewind"),
)
ONE = 'ANY 1 ("db1","db3")'


def _of_etcd(change: Callable[[World], World]) -> Callable[[World], World]:
    """Oddities that only an etcd that answers shows."""
    return lambda w: w if w.cluster is None else change(w)


ODDITIES: dict[str, Callable[[World], World]] = {
    "": lambda w: w,
    "I pledged": _of_etcd(lambda w: w.pledges(db2=150)),
    "two pledged": _of_etcd(lambda w: w.pledges(db2=150, db3=140)),
    "a better one pledged": _of_etcd(lambda w: w.pledges(db2=150, db3=160)),
    "a pledge may land": lambda w: w.pledge_may_land(),
    "freezing": lambda w: _job(w, Job("pledge", NOW - 1, ground=(50, 60, 0))),
    "handed over": _of_etcd(lambda w: w.resigned("db1", "db2", lsn=120)),
    "resigned": _of_etcd(lambda w: w.resigned("db1")),
    "handed over and pledged": _of_etcd(lambda w: w.resigned("db1", lsn=120).pledges(db2=150)),
    "I resigned": _of_etcd(lambda w: w.resigned("db2")),
    "loss accepted": _of_etcd(lambda w: w.wanted(None, "db2", accept_loss=True)),
    "loss accepted and pledged": _of_etcd(lambda w: w.wanted(None, "db2", accept_loss=True).pledges(db2=150)),
    "named by an operator": _of_etcd(lambda w: w.wanted(None, "db2").pledges(db2=150)),
    "record in doubt": lambda w: w.sync_doubtful(),
    "key in doubt": lambda w: _doubtful(w),
    "paused": lambda w: w.paused(),
    "ends": lambda w: w.stopping(),
    "asked to clone": lambda w: w.wish("reinitialize"),
    "diverged": lambda w: w.compared("diverged").remembers(not_streaming_since=NOW - 60),
    "a prefix": lambda w: w.compared("same"),
    "barred": lambda w: w.tags(nofailover=True),
    "voters silent": lambda w: w.replies(db1=30.0, db3=30.0),
    "voters reply": lambda w: w.replies(db1=0.5, db3=0.5),
    "named": lambda w: _named(w, ONE, passed=False),
    "named and held": lambda w: _named(w, ONE, passed=True),
    "named otherwise": lambda w: _named(w, 'ANY 1 ("db1")', passed=True),
    "named all": lambda w: _named(w, 'ANY 2 ("db1","db3")', passed=True),
    "names on their way": lambda w: w.busy("synchronize"),
    "promoting": lambda w: w.busy("promote"),
    "fails": lambda w: w.failures("start", 4).failures("promote", 4),
    "took it back": lambda w: w.remembers(took_back=True),
    "another one leaves": _of_etcd(lambda w: w.member(a_member("db3", leaving=True))),
    "another one is away": _of_etcd(lambda w: w.without("db3")),
    "a fourth": _of_etcd(lambda w: w.member(a_member("db4"))),
    "unreadable": _of_etcd(lambda w: w.etcd(complaints=("rivha/resigned: is not JSON",))),
}


def worlds() -> Iterator[World]:
    """A third of all: they take seconds. And the few in which there is a primary that leads in all modes, with two oddities each."""
    lot = Random(4)
    names = list(ODDITIES)
    for record, key, postgres, oddity in product(RECORDS, KEYS, POSTGRESES, names):
        if lot.random() < 1 / 3:
            yield _world(lot.choice(MODES), postgres, key, record, oddity, lot.choice(names))
    for mode, record, oddity, _ in product(MODES, RECORDS[:3], names, range(3)):
        yield _world(mode, POSTGRESES[0], "mine", record, oddity, lot.choice(names))


def _world(mode: tuple[str, bool], postgres: Callable[[World], World], key: str, record: Record, first: str, second: str) -> World:
    w = postgres(a_view()).mode(mode[0], synchronous_mode_strict=mode[1])
    return ODDITIES[second](ODDITIES[first](_led(w, key, record)))


def _led(w: World, key: str, record: Record) -> World:
    if key.startswith("mine"):
        w.leads(-1.0 if key == "mine, lease over" else 9.0)
        if key == "mine, lease unknown":
            w.lease = None
    elif key.startswith("db1"):
        w.leader("db1")
    elif key.startswith("nobody"):
        w.leaderless(1.0)
    else:
        w.leads(1.0)
    silent, unrenewed = ("silent" in key or "lost" in key), ("unrenewed" in key or "lost" in key)
    if silent or unrenewed:
        w.witness(9.0 if silent else 0.0, 9.0 if unrenewed else 0.0)
    w = w.etcd(sync=None) if record is None else w.sync(*record)
    return w.last_read().remembers(blind_since=NOW - 8) if key == "blind" else w


def _job(w: World, job: Job) -> World:
    w.more["job"] = job
    return w


def _doubtful(w: World) -> World:
    if w.lease is not None:
        w.lease = replace(w.lease, expires_at=NOW, doubtful=True)
    return w


def _named(w: World, text: str, *, passed: bool) -> World:
    return w.names(text, passed=passed).remembers(primary_since=NOW - 60) if w.status.role is PRIMARY else w
