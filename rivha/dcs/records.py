"""The names of the keys, and their values as the model's nouns and back: Patroni's formats (REFERENCE 1.1, 1.18) and our two own.

Pure. It must never raise over what somebody wrote into etcd, and never take a key that it cannot read for one that is absent: such a
key yields a complaint. Called by the observer (`cluster`), by `writes` (the `..._text` functions) and by rivhactl.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TypeVar

from rivha.dcs.base import KeyValue, Reading
from rivha.model import Cluster, FailoverRequest, HistoryLine, LeaderKey, Lsn, Member, Pledge, Resignation, SyncState

INITIALIZE = "initialize"
CONFIG = "config"
LEADER = "leader"
STATUS = "status"
OPTIME = "optime/leader"  # what Patroni before 2.1 wrote instead of `status`; only ever read
SYNC = "sync"
FAILOVER = "failover"
HISTORY = "history"
MEMBERS = "members/"
PLEDGES = "rivha/pledges/"
RESIGNED = "rivha/resigned"
HELD = "rivha/synchronous"

T = TypeVar("T")
_Object = Mapping[str, object]


@lru_cache(maxsize=8)  # a tick that finds nothing changed parses nothing
def cluster(reading: Reading) -> Cluster:
    """What a reading says. A value that does not parse is left out (or its bad fields are) and `complaints` names key and mistake."""
    return _Parser(reading).cluster()


class _Tried:
    """Parses what may be garbage; collects the complaints."""

    def __init__(self) -> None:
        self.complaints: list[str] = []

    def tried(self, what: str, parse: Callable[[], T]) -> T | None:
        try:
            return parse()
        except (ValueError, RecursionError) as mistake:  # RecursionError: JSON nested a thousand deep
            self.complaints.append(f"{what}: {str(mistake) or 'is nested too deeply'}")
            return None


class _Parser(_Tried):
    """One reading on its way to a Cluster."""

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.revision = reading.revision
        self.items = {item.key: item for item in reading.items}

    def cluster(self) -> Cluster:
        initialize, leader = self.items.get(INITIALIZE), self.items.get(LEADER)
        optime, slots, retained = self.read(STATUS, _status) or self.read(OPTIME, _status) or (0, {}, ())
        return Cluster(
            revision=self.revision,
            initialize=initialize.value if initialize else None,
            initialize_revision=self.written(INITIALIZE),
            initialize_lease_id=initialize.lease_id if initialize else 0,
            config=self.read(CONFIG, _config),
            config_revision=self.written(CONFIG),
            leader=self.leader(leader) if leader else None,
            members=tuple(self.member(kv) for kv in self.below(MEMBERS)),
            optime=optime,
            slots=slots,
            retain_slots=retained,
            status_revision=self.written(STATUS),
            sync=self.read(SYNC, _sync),
            held_revision=self.written(HELD),
            failover=self.read(FAILOVER, _failover),
            failover_revision=self.written(FAILOVER),
            history=self.read(HISTORY, _history) or (),
            history_revision=self.written(HISTORY),
            pledges=tuple(p for kv in self.below(PLEDGES) if (p := self.read(kv.key, _pledge)) is not None),
            pledge_revisions={kv.key.removeprefix(PLEDGES): kv.mod_revision for kv in self.below(PLEDGES)},
            resigned=self.read(RESIGNED, _resignation),
            complaints=tuple(self.complaints),
        )

    def written(self, key: str) -> int:
        item = self.items.get(key)
        return item.mod_revision if item else 0

    def below(self, folder: str) -> list[KeyValue]:
        return [self.items[key] for key in sorted(self.items) if key.startswith(folder) and key != folder]

    def read(self, key: str, parse: Callable[[KeyValue], T]) -> T | None:
        item = self.items.get(key)
        return None if item is None else self.tried(key, lambda: _parsed(parse, item))

    def leader(self, kv: KeyValue) -> LeaderKey:
        """A leader key without a name is still a leader key: nobody may think that it is free."""
        if not kv.value:
            self.complaints.append(f"{LEADER}: names nobody")
        return LeaderKey(kv.value, kv.lease_id, kv.mod_revision)

    def member(self, kv: KeyValue) -> Member:
        member, complaints = _member(kv)
        self.complaints.extend(complaints)
        return member


@lru_cache(maxsize=64)  # of the keys, one at a time has something new
def _parsed(parse: Callable[[KeyValue], T], kv: KeyValue) -> T:
    return parse(kv)


@lru_cache(maxsize=64)  # of several members, one at a time publishes something new
def _member(kv: KeyValue) -> tuple[Member, tuple[str, ...]]:
    """And the complaints. A member whose value is garbage is still known by name, as stopped and without an address."""
    name, parser = kv.key.removeprefix(MEMBERS), _Tried()
    found = parser.tried(kv.key, lambda: _object(kv.value))
    if found is None:
        return Member(name, lease_id=kv.lease_id, revision=kv.mod_revision), tuple(parser.complaints)

    def field(key: str, convert: Callable[[object], T]) -> T | None:
        value = found.get(key)
        return None if value is None else parser.tried(f"{kv.key}: {key}", lambda: convert(value))

    role = field("role", _str) or "replica"
    member = Member(
        name=name,
        role="primary" if role == "master" else role,  # Patroni before 4
        state=field("state", _str) or "stopped",
        conn_url=field("conn_url", _str) or "",
        api_url=field("api_url", _str) or "",
        version=field("version", _str) or "",
        timeline=field("timeline", _int),
        xlog_location=field("xlog_location", _int),
        receive_lsn=field("receive_lsn", _int),
        replay_lsn=field("replay_lsn", _int),
        replication_state=field("replication_state", _str),
        tags=field("tags", _mapping) or {},
        pending_restart=field("pending_restart_reason", _pending) or {},
        paused=found.get("pause") is True,
        checkpoint_after_promote=False if found.get("checkpoint_after_promote") is False else None,
        scheduled_restart=field("scheduled_restart", _mapping),
        problem=field("problem", _str) or "",
        leaving=found.get("leaving_sync") is True,
        succeeded=field("succeeded", _succeeded),
        lease_id=kv.lease_id,
        revision=kv.mod_revision,
    )
    return member, tuple(parser.complaints)


# ---- values -> nouns: each raises ValueError with a sentence about the value -----------------------------------------------------


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as mistake:
        raise ValueError(f"is not JSON ({mistake}): {text[:60]!r}") from mistake


def _object(text: str) -> _Object:
    return _mapping(_json(text))


def _mapping(value: object) -> _Object:
    if isinstance(value, dict):  # JSON's keys are strings
        return value
    raise ValueError(f"should be an object, is {_short(value)}")


def _list(value: object) -> list[object]:
    if isinstance(value, list):
        return value
    raise ValueError(f"should be a list, is {_short(value)}")


def _str(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"should be a text, is {_short(value)}")


def _int(value: object) -> int:
    """Not negative; older Patronis and people also write integers as texts."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"should be a whole number from 0, is {_short(value)}")


def _succeeded(value: object) -> tuple[int, int]:
    data = _mapping(value)
    return _get(data, "term", _int), _get(data, "after", _int)


def _name(value: object) -> str | None:
    """A member's name; null and "" are nobody."""
    return None if value is None else _str(value) or None


def _short(value: object) -> str:
    return repr(value)[:60]


def _get(data: _Object, key: str, convert: Callable[[object], T]) -> T:
    if key not in data:
        raise ValueError(f"lacks {key!r}")
    try:
        return convert(data[key])
    except ValueError as mistake:
        raise ValueError(f"{key} {mistake}") from mistake


def _config(kv: KeyValue) -> _Object:
    return _object(kv.value)


def _status(kv: KeyValue) -> tuple[Lsn, Mapping[str, Lsn], tuple[str, ...]]:
    value = _json(kv.value)
    if not isinstance(value, dict):
        return _int(value), {}, ()
    slots = _mapping(value.get("slots") or {})
    retained = _list(value.get("retain_slots") or [])
    return _int(value.get("optime") or 0), {name: _get(slots, name, _int) for name in slots}, tuple(_str(name) for name in retained)


def _sync(kv: KeyValue) -> SyncState:
    """Strict about what is there: an object that lacks the voters must not be taken for one that has none."""
    data = _object(kv.value)
    voters = _get(data, "sync_standby", _name) or ""
    return SyncState(
        leader=_get(data, "leader", _name),
        voters=frozenset(name for part in voters.split(",") if (name := part.strip())),
        quorum=_int(data.get("quorum") or 0),  # absent before Patroni 4
        revision=kv.mod_revision,
    )


def _failover(kv: KeyValue) -> FailoverRequest | None:
    """`{}` is what Patroni leaves behind after a request: none."""
    data = _object(kv.value)
    leader, candidate, at = (_name(data.get(key)) for key in ("leader", "member", "scheduled_at"))
    accept_loss = data.get("accept_loss") is True
    return FailoverRequest(leader, candidate, at, kv.mod_revision, accept_loss) if leader or candidate else None


def _history(kv: KeyValue) -> tuple[HistoryLine, ...]:
    return _history_lines(kv.value)


@lru_cache(maxsize=2)  # the one value that grows with the cluster's age, and hardly ever changes: parsed once, and every View shares it
def _history_lines(text: str) -> tuple[HistoryLine, ...]:
    return tuple(_history_line(_list(line)) for line in _list(_json(text)))


def _history_line(line: list[object]) -> HistoryLine:
    """Patroni wrote three fields, then a fourth, then a fifth."""
    if len(line) < 3:
        raise ValueError(f"has a line with fewer than 3 fields: {_short(line)}")
    at, new_leader = [*(_name(x) or "" for x in line[3:5]), "", ""][:2]
    return HistoryLine(_int(line[0]), _int(line[1]), _str(line[2]), at, new_leader)


def _pending(value: object) -> Mapping[str, tuple[str, str]]:
    settings = {name: _mapping(change) for name, change in _mapping(value).items()}
    return {name: (_setting(change.get("old_value")), _setting(change.get("new_value"))) for name, change in settings.items()}


def _setting(value: object) -> str:
    return "" if value is None else str(value)


def _pledge(kv: KeyValue) -> Pledge | None:
    data = _object(kv.value)
    if data.get("withdrawn") is True:
        return None
    term, timeline, lsn = (_get(data, key, _int) for key in ("term", "timeline", "lsn"))
    return Pledge(kv.key.removeprefix(PLEDGES), term, timeline, lsn, kv.mod_revision)


def _resignation(kv: KeyValue) -> Resignation:
    data = _object(kv.value)
    return Resignation(
        term=_get(data, "term", _int),
        leader=_get(data, "leader", _str),
        candidate=_name(data.get("candidate")),
        lsn=_int(data.get("lsn") or 0),
        timeline=_int(data.get("timeline") or 0),
        reason=_str(data.get("reason") or ""),
        revision=kv.mod_revision,
    )


# ---- nouns -> values -------------------------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    # default=str: YAML knows dates, and a tag that is one must not stop a node from publishing itself.
    return json.dumps(value, separators=(",", ":"), default=str)


def member_text(m: Member) -> str:
    """The value of `members/<name>`; what is not known or not so is left out."""
    data: dict[str, object] = {"conn_url": m.conn_url, "api_url": m.api_url, "state": m.state, "role": m.role, "version": m.version}
    optional: dict[str, object] = {
        "tags": dict(sorted(m.tags.items(), key=str)) or None,
        "pending_restart": True if m.pending_restart else None,
        "pending_restart_reason": {k: {"old_value": old, "new_value": new} for k, (old, new) in m.pending_restart.items()} or None,
        "xlog_location": m.xlog_location,
        "receive_lsn": m.receive_lsn,
        "replay_lsn": m.replay_lsn,
        "replication_state": m.replication_state,
        "timeline": m.timeline,
        "scheduled_restart": dict(m.scheduled_restart) if m.scheduled_restart is not None else None,
        "pause": True if m.paused else None,
        "problem": m.problem or None,
        "leaving_sync": True if m.leaving else None,
        "succeeded": {"term": m.succeeded[0], "after": m.succeeded[1]} if m.succeeded is not None else None,
        "checkpoint_after_promote": False if m.checkpoint_after_promote is False else None,
    }
    return _text(data | {key: value for key, value in optional.items() if value is not None})


def status_text(optime: Lsn, slots: Mapping[str, Lsn], retain_slots: Iterable[str] = ()) -> str:
    data: dict[str, object] = {"optime": optime}
    if slots:
        data["slots"] = dict(slots)
    if retained := sorted(retain_slots):
        data["retain_slots"] = retained
    return _text(data)


def sync_text(leader: str | None, voters: Iterable[str] = (), quorum: int = 0) -> str:
    return _text({"leader": leader, "sync_standby": ",".join(sorted(voters)) or None, "quorum": quorum})


def failover_text(leader: str | None, candidate: str | None, scheduled_at: str | None, accept_loss: bool = False) -> str:
    data = {"leader": leader, "member": candidate, "scheduled_at": scheduled_at, "accept_loss": accept_loss}
    return _text({key: value for key, value in data.items() if value})


def history_text(lines: Iterable[HistoryLine]) -> str:
    return _text([_history_fields(line) for line in lines])


def _history_fields(line: HistoryLine) -> list[object]:
    fields: list[object] = [line.timeline, line.lsn, line.reason, line.at, line.new_leader]
    while len(fields) > 3 and not fields[-1]:
        fields.pop()
    return fields


WITHDRAWN = '{"withdrawn":true}'  # a pledge that no longer stands; the key stays, so that its revision grows


def pledge_text(p: Pledge) -> str:
    return _text({"term": p.term, "timeline": p.timeline, "lsn": p.lsn})


def resignation_text(r: Resignation) -> str:
    return _text({"term": r.term, "leader": r.leader, "candidate": r.candidate, "lsn": r.lsn, "timeline": r.timeline, "reason": r.reason})


def config_text(config: Mapping[str, object]) -> str:
    return _text(dict(config))
