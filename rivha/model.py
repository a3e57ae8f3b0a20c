"""The shared nouns: what etcd holds and what the local Postgres is. Frozen values, no logic beyond order.

Everybody may import this module; it imports nobody. Instants are seconds on the agent's own monotonic clock, durations carry their
unit in the name, LSNs are byte positions in the WAL.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Lsn = int


def format_lsn(lsn: Lsn) -> str:
    """`25/9000028`: PostgreSQL's own notation."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> Lsn:
    """The inverse of `format_lsn`. Raises ValueError on anything else."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


class Outcome(StrEnum):
    """What became of a remote write. UNKNOWN means: look again, never guess."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Role(StrEnum):
    """PRIMARY accepts writes (or would, when started as it lies); STANDBY is in recovery (or would be)."""

    PRIMARY = "primary"
    STANDBY = "standby"
    UNKNOWN = "unknown"


class State(StrEnum):
    """What the local Postgres is doing; values are Patroni's words where it has one."""

    RUNNING = "running"  # answers SQL
    STARTING = "starting"  # a postmaster lives but does not accept connections yet
    SILENT = "silent"  # a postmaster lives, accepted connections before, and answers nothing now
    STOPPED = "stopped"  # no postmaster; the control file says that it was shut down (or it was never started)
    CRASHED = "crashed"  # no postmaster; the control file says that it was in production or in recovery


class Data(StrEnum):
    """What lies in the data directory."""

    EMPTY = "empty"  # absent, or nothing in it but lost+found and dot files
    VALID = "valid"
    UNFINISHED = "unfinished"  # a marker of ours says that a clone or a rewind was interrupted: never start it
    INACCESSIBLE = "inaccessible"  # unmounted, wrong owner or mode, I/O error, half a directory: hands off; `problem` says what


@dataclass(frozen=True, slots=True)
class Replication:
    """One row of pg_stat_replication."""

    application_name: str
    client_addr: str | None
    usename: str
    state: str
    sync_state: str
    sync_priority: int
    sent_lsn: Lsn | None = None
    flush_lsn: Lsn | None = None
    replay_lsn: Lsn | None = None
    reply_time: str | None = None  # of the standby's last reply, by its own clock: only whether it changes says anything


@dataclass(frozen=True, slots=True)
class PostgresStatus:
    """What one look at the local Postgres showed. Fields that could not be learnt are None, never a guess."""

    state: State
    data: Data = Data.VALID
    role: Role = Role.UNKNOWN  # of a stopped one: what it would be when started as it lies
    problem: str = ""  # for people: why SILENT, INACCESSIBLE, UNFINISHED
    unfinished: str = ""  # with UNFINISHED: what was interrupted: bootstrap, clone, rewind
    system_id: str | None = None
    timeline: int | None = None
    pid: int | None = None  # the postmaster
    server_version: int | None = None  # 150018
    postmaster_started: str | None = None  # PostgreSQL's timestamp text, for /patroni
    wal_lsn: Lsn | None = None  # primary: end of the WAL written. Stopped: the latest checkpoint's position
    receive_lsn: Lsn | None = None  # standby: flushed by the receiver; may be None or stale (HAZARDS H 10)
    replay_lsn: Lsn | None = None
    replay_time: str | None = None  # pg_last_xact_replay_timestamp, for people
    replay_age_s: float | None = None  # age of that timestamp: the lag in seconds, None on a primary
    latest_end_lsn: Lsn | None = None  # standby: the upstream's end of WAL as last heard by the receiver
    replay_paused: bool = False
    too_small: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # setting that stopped replay -> (in force, the primary's)
    upstream: str | None = None  # standby, also one that starts: host:port that primary_conninfo points at; None when it is empty
    streaming: bool = False  # standby: the WAL receiver is connected and streams
    archive_recovery: bool = False  # standby: restoring from the archive, not streaming
    replication: tuple[Replication, ...] = ()
    slots: Mapping[str, Lsn] = field(default_factory=dict)  # slot -> restart_lsn, physical ones
    synchronous_standby_names: str = ""  # as a backend shows them
    checkpoint_due: bool = False  # primary: promoted, and its control file, which pg_rewind believes, still names the timeline before
    names_confirmed: bool = False  # `synchronize` has seen that every process goes by them; False also after a start or an agent's restart
    pending_restart: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # setting -> (in force, wanted)
    clean: bool = True  # stopped: the control file says "shut down" or "shut down in recovery"
    rewindable: bool = True  # checksums or wal_log_hints are on


@dataclass(frozen=True, slots=True)
class Upstream:
    """A Postgres to stream, clone or rewind from."""

    name: str
    host: str
    port: int

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @staticmethod
    @functools.lru_cache(maxsize=64)  # asked for several times a tick, of the same few members
    def of(name: str, conn_url: str) -> Upstream | None:
        """host and port out of Patroni's conn_url, `postgres://host:port/postgres`; None when there are none."""
        if "://" not in conn_url:
            return None
        address = conn_url.split("://", 1)[1].split("/", 1)[0].split("?", 1)[0]
        host, _, port = address.rpartition(":")
        return Upstream(name, host.strip("[]"), int(port)) if host and port.isdigit() else None


@dataclass(frozen=True, slots=True)
class WalEnd:
    """The end of the WAL on a standby's disk, its receiver gone."""

    timeline: int
    lsn: Lsn


class History(StrEnum):
    """How the local WAL relates to the leader's."""

    SAME = "same"  # a prefix of it: may follow
    DIVERGED = "diverged"  # must be rewound or cloned
    UNKNOWN = "unknown"  # could not be compared now; the job's text says why


# ---- what etcd holds -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """`members/<name>`: what a node last published, Patroni's fields."""

    name: str
    role: str = "replica"  # primary, replica, demoted, uninitialized, standby_leader
    state: str = "stopped"  # Patroni's words (REFERENCE 1.15), streaming and "in archive recovery" go in replication_state
    conn_url: str = ""
    api_url: str = ""
    version: str = ""
    timeline: int | None = None
    xlog_location: Lsn | None = None  # primary: written; standby: max(received, replayed)
    receive_lsn: Lsn | None = None
    replay_lsn: Lsn | None = None
    replication_state: str | None = None
    tags: Mapping[str, object] = field(default_factory=dict)
    pending_restart: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    paused: bool = False
    checkpoint_after_promote: bool | None = None  # False: promoted, the checkpoint is not finished; else None
    scheduled_restart: Mapping[str, object] | None = None
    problem: str = ""  # for people: what is wrong with the node; Rivha's own field
    leaving: bool = False  # `leaving_sync`: must be no voter any more before it goes on (it stops, or gives up its data); Rivha's own
    succeeded: tuple[int, int] | None = None  # of a leader: its term, and the term whose WAL it went on from (0: not known); Rivha's own
    lease_id: int = 0
    revision: int = 0  # mod_revision of the key

    @property
    def nofailover(self) -> bool:
        """REFERENCE 1.13: the boolean wins over the priority."""
        flag = self.tags.get("nofailover")
        return bool(flag) if flag is not None else self.failover_priority <= 0

    @property
    def failover_priority(self) -> int:
        priority = self.tags.get("failover_priority", 1)
        return priority if isinstance(priority, int) else 1


@dataclass(frozen=True, slots=True)
class LeaderKey:
    """`leader`. Its mod_revision is the term: the key is written only when leadership changes hands."""

    name: str
    lease_id: int
    term: int


@dataclass(frozen=True, slots=True)
class SyncState:
    """`sync`: who may lead besides the holder. No voters: only the holder, or in asynchronous mode anybody eligible."""

    leader: str | None
    voters: frozenset[str]
    quorum: int
    revision: int


@dataclass(frozen=True, slots=True)
class Pledge:
    """`rivha/pledges/<name>`: while it exists, its writer streams from nobody and acknowledges nothing."""

    name: str
    term: int  # the leadership given up on; 0 when none was ever seen
    timeline: int
    lsn: Lsn
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Resignation:
    """`rivha/resigned`: the holder of `term` has stopped its Postgres and gave the key back."""

    term: int
    leader: str
    candidate: str | None = None  # switchover: the others hold back for this one
    lsn: Lsn = 0  # the shutdown checkpoint's position; 0 after a crash
    reason: str = ""
    revision: int = 0
    timeline: int = 0  # that `lsn` is on; 0: not known


@dataclass(frozen=True, slots=True)
class FailoverRequest:
    """`failover`: an operator's wish. leader set: a switchover; only candidate set: a failover."""

    leader: str | None
    candidate: str | None
    scheduled_at: str | None  # ISO 8601 with zone, as written
    revision: int
    accept_loss: bool = False  # the operator knows that the candidate may lack acknowledged commits; Rivha's own


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One line of `history`: timeline `timeline` ended at `lsn`."""

    timeline: int
    lsn: Lsn
    reason: str
    at: str = ""
    new_leader: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """etcd's content under the cluster's prefix, at one revision."""

    revision: int
    initialize: str | None = None  # None: no key; "": somebody bootstraps; else the system identifier
    initialize_revision: int = 0
    initialize_lease_id: int = 0  # while somebody bootstraps: that node's member lease; tells whose claim it is
    config: Mapping[str, object] | None = None  # None: no key, or not readable (then `complaints` says so)
    config_revision: int = 0
    leader: LeaderKey | None = None
    members: tuple[Member, ...] = ()  # sorted by name
    optime: Lsn = 0  # `status`
    slots: Mapping[str, Lsn] = field(default_factory=dict)
    retain_slots: tuple[str, ...] = ()  # `status`: slots of members that are gone for less than member_slots_ttl
    status_revision: int = 0
    sync: SyncState | None = None
    held_revision: int = 0  # `rivha/synchronous`: the leader goes by a synchronous mode, whatever `config` says by now; 0: no key
    failover: FailoverRequest | None = None
    failover_revision: int = 0  # also of a value that is no request (Patroni leaves `{}` behind) or not readable
    history: tuple[HistoryLine, ...] = ()
    history_revision: int = 0
    pledges: tuple[Pledge, ...] = ()  # sorted by name
    pledge_revisions: Mapping[str, int] = field(default_factory=dict)  # of all pledge keys, those that say "withdrawn" included
    resigned: Resignation | None = None
    complaints: tuple[str, ...] = ()  # keys that do not parse: never acted upon, shown to people

    def member(self, name: str | None) -> Member | None:
        for member in self.members:
            if member.name == name:
                return member
        return None

    def pledge(self, name: str) -> Pledge | None:
        return next((p for p in self.pledges if p.name == name), None)


# ---- what the operator wants of the whole cluster --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Policy:
    """The dynamic configuration as the brain needs it. config.py makes it; names and defaults are in docs/configuration.md."""

    ttl_s: float = 10.0
    loop_wait_s: float = 1.0
    retry_timeout_s: float = 3.0
    maximum_lag_on_failover: int = 1_048_576  # bytes
    check_timeline: bool = False
    primary_start_timeout_s: float = 300.0
    primary_stop_timeout_s: float = 0.0  # 0: no limit of the operator's own; the lease still bounds it
    suspect_after_s: float = 2.0
    hang_timeout_s: float = 10.0
    failover_on_crash: bool = True
    member_slots_ttl_s: float = 1800.0
    max_timelines_history: int = 0  # 0: keep all
    paused: bool = False
    synchronous_mode: str = "off"  # off | on | quorum
    synchronous_mode_strict: bool = False
    synchronous_node_count: int = 1  # how many standbys must hold a commit
    maximum_lag_on_syncnode: int = -1  # bytes; -1: no limit
    degrade_after_s: float = 2.0  # a voter that shows no reply for so long is taken out; without any, who is not strict goes on alone
    own_standby_names: str = ""  # mode off: the operator's own synchronous_standby_names
    use_pg_rewind: bool = True
    use_slots: bool = True
    reclone_after_failed_rewind: bool = False  # remove_data_directory_on_rewind_failure
    reclone_when_diverged: bool = False  # remove_data_directory_on_diverged_timelines
