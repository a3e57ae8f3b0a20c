"""What an operator settles about one node's PostgreSQL, as one frozen value. rivha/config.py makes it from the YAML file.

Only facts of the local file are here. What the whole cluster agrees on (bootstrap.dcs, the `config` key) comes by `Postgres.configure`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """One entry of postgresql.authentication."""

    username: str
    password: str | None = field(default=None, repr=False)  # None: no password (trust, peer, certificates)
    options: Mapping[str, str] = field(default_factory=dict)  # libpq's: sslmode, sslcert, sslkey, sslrootcert, channel_binding ...


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """Names are Patroni's keys below `postgresql:` unless a comment says otherwise."""

    name: str  # the member's name: application_name, and slot name after `slot_name`
    scope: str  # the cluster's name: cluster_name
    data_dir: str  # absolute
    listen: str = "127.0.0.1:5432"  # hosts, then the port: "127.0.0.1,::1:5432", "*:5432", "[::1]:5432"
    connect_address: str = "127.0.0.1:5432"  # how the other nodes reach it: "host:port", "[v6]:port"
    bin_dir: str = ""  # "": found by PATH
    bin_names: Mapping[str, str] = field(default_factory=dict)  # bin_name: {pg_ctl: ..., postgres: ...}
    config_dir: str = ""  # where postgresql.conf, pg_hba.conf and pg_ident.conf lie; "": in data_dir
    pgpass: str = ""  # the password file that Rivha writes (mode 0600); "": next to the data directory
    superuser: Credentials = Credentials("postgres")
    replication: Credentials = Credentials("replicator")
    rewind: Credentials | None = None  # None: the superuser
    parameters: Mapping[str, object] = field(default_factory=dict)  # local; they win over the cluster's
    pg_hba: Sequence[str] | None = None  # None: the cluster's (dynamic), else what lies there
    pg_ident: Sequence[str] | None = None
    recovery_conf: Mapping[str, object] = field(default_factory=dict)  # restore_command, recovery_min_apply_delay, ...
    custom_conf: str | None = None  # included instead of postgresql.base.conf
    use_unix_socket: bool = False  # for the agent's own superuser connection; a socket is tried first either way when it is there
    use_unix_socket_repl: bool = False
    create_replica_methods: Sequence[str] = ("basebackup",)
    replica_methods: Mapping[str, object] = field(default_factory=dict)  # the sections: method -> mapping (or basebackup's list of options)
    initdb: Sequence[str] = ()  # bootstrap.initdb, without dashes: "data-checksums", "encoding=UTF8"
    bootstrap_pg_hba: Sequence[str] | None = None  # bootstrap.pg_hba: for a fresh cluster, when pg_hba is None
    post_init: str | None = None  # bootstrap.post_init or post_bootstrap: a command line
    callbacks: Mapping[str, str] = field(default_factory=dict)  # on_start, on_stop, on_restart, on_reload, on_role_change -> command line

    @property
    def port(self) -> int:
        """The port that Postgres listens on. Raises ValueError on a listen without one."""
        return int(self.listen.rpartition(":")[2])

    @property
    def listen_addresses(self) -> str:
        """The value of the GUC: "127.0.0.1,::1", "*"; brackets around IPv6 addresses removed."""
        hosts = self.listen.rpartition(":")[0] or "*"
        return ",".join(host.strip().strip("[]") for host in hosts.split(","))

    @property
    def rewind_user(self) -> Credentials:
        return self.rewind or self.superuser


def slot_name(member: str) -> str:
    """The physical slot of a member (REFERENCE 1.18): lower case, `-` and `.` become `_`, other characters `uXXXX`; at most 63."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" if c in "-." else f"u{ord(c):04d}" for c in member.lower())
    return kept[:63]
