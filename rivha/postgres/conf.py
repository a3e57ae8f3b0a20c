"""The texts of postgresql.conf, pg_hba.conf and postgresql.auto.conf, and the options on the postmaster's command line. Pure.

REFERENCE 1.14: postgresql.conf includes the original as postgresql.base.conf; what must be equal on all nodes comes only from the cluster's
configuration and is given on the command line, where neither a file nor ALTER SYSTEM can change it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rivha.postgres.names import NAMES as NAMES
from rivha.postgres.settings import PostgresSettings

HEADER = "# Written by Rivha, which overwrites every change: use `rivhactl edit-config`, or the node's YAML file.\n"
BASE = "postgresql.base.conf"

# Command line only, from the cluster's configuration only; these are Patroni's defaults.
FORCED: Mapping[str, object] = {
    "wal_level": "replica",
    "hot_standby": "on",
    "max_connections": 100,
    "max_wal_senders": 10,
    "max_prepared_transactions": 0,
    "max_locks_per_transaction": 64,
    "track_commit_timestamp": "off",
    "max_replication_slots": 10,
    "max_worker_processes": 8,
    "wal_log_hints": "on",
}
MINIMUM = {
    "max_connections": 25,
    "max_wal_senders": 3,
    "max_locks_per_transaction": 32,
    "max_replication_slots": 4,
    "max_worker_processes": 2,
}

# PostgreSQL's defaults hide a dead neighbour for a minute and a restarted one for five seconds (HAZARDS I 3, DESIGN 6.5).
DEFAULTS: Mapping[str, object] = {
    "wal_keep_size": "128MB",
    "wal_retrieve_retry_interval": "200ms",
    "wal_receiver_timeout": "5s",
    "wal_sender_timeout": "5s",
    "tcp_keepalives_idle": 5,
    "tcp_keepalives_interval": 1,
    "tcp_keepalives_count": 5,
    # As long for what was sent as the three above make it for silence; else a host that is gone keeps its sessions and their locks for a
    # quarter of an hour. A WAL sender into a dark host is ended by wal_sender_timeout anyway, by whichever comes first.
    # Not client_connection_check_interval: it is not looked at while a commit waits for standbys, and costs every long statement a timer.
    "tcp_user_timeout": "10s",
}

# Rivha's in every case. Whether a voter lives is judged by its replies (REPLY_EVERY_S in agent/brain/view.py): at PostgreSQL's 10 s, or
# at 0, an idle one would be taken for lost, and an outage of etcd would stop a primary whose voters live. Whole seconds: none is shorter.
EVIDENCE: Mapping[str, str] = {"wal_receiver_status_interval": "1s"}

# What decides about recovery. Rivha alone says these; in postgresql.auto.conf they would win over it (HAZARDS E 76).
RECOVERY = (
    "primary_conninfo",
    "primary_slot_name",
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "promote_trigger_file",
    "trigger_file",
    "standby_mode",
)
# NAMES: the brain's, by `synchronize` and `start`: no parameter, and as unwelcome in postgresql.auto.conf
OPERATORS_OWN = ("restore_command", "archive_cleanup_command", "recovery_end_command", "recovery_min_apply_delay")

_NAME = re.compile(r"[A-Za-z_][\w$]*(\.[A-Za-z_][\w$]*)*", re.ASCII)
_LINE = re.compile(r"^\s*([\w.$]+)\s*(?:=\s*|\s)\s*(?:'((?:[^'\\]|''|\\.)*)'|([^\s#']+))", re.ASCII)


def section(dynamic: Mapping[str, object], key: str) -> Mapping[str, object]:
    """dynamic["postgresql"][key] when it is a mapping, else an empty one: the cluster's configuration may be anything."""
    postgresql = dynamic.get("postgresql")
    found = postgresql.get(key) if isinstance(postgresql, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def forced(settings: PostgresSettings, dynamic: Mapping[str, object], sizes: Mapping[str, int] | None = None) -> dict[str, str]:
    """GUC -> value on the command line. `sizes`: what the primary had; a standby needs at least that (HAZARDS D 66)."""
    given = {k: v for k, v in _known_names(section(dynamic, "parameters")).items() if v is not None}
    values = {name: value(given.get(name, default)) for name, default in FORCED.items()}
    for name, least in {**MINIMUM, **(sizes or {})}.items():
        values[name] = str(max(_int(values[name], FORCED[name]), least, (sizes or {}).get(name, 0)))
    if values["wal_level"] not in ("replica", "logical"):
        values["wal_level"] = "replica"
    return {
        **values,
        "hot_standby": "on",
        "listen_addresses": settings.listen_addresses,
        "port": str(settings.port),
        "cluster_name": settings.scope,
    }


def _int(value: str, otherwise: object) -> int:
    try:
        return int(value)
    except ValueError:
        return int(str(otherwise))


def parameters(settings: PostgresSettings, dynamic: Mapping[str, object]) -> dict[str, str]:
    """What the file says besides `forced` and recovery: our defaults, the cluster's, the node's own, EVIDENCE, later ones winning."""
    merged = {**DEFAULTS, **_known_names(section(dynamic, "parameters")), **_known_names(settings.parameters), **EVIDENCE}
    return {
        name: value(given)
        for name, given in merged.items()
        if given is not None and _NAME.fullmatch(name) and name not in (*FORCED, *RECOVERY, *_OURS)
    }


_OURS = (NAMES, "listen_addresses", "port", "cluster_name", "hot_standby", "config_file", "hba_file", "ident_file", "data_directory")


def recovery(settings: PostgresSettings, dynamic: Mapping[str, object]) -> dict[str, str]:
    """restore_command and its like, wherever the operator wrote them."""
    places = (section(dynamic, "parameters"), section(dynamic, "recovery_conf"), settings.parameters, settings.recovery_conf)
    found: dict[str, str] = {}
    for place in places:
        found.update({k: value(v) for k, v in _known_names(place).items() if k in OPERATORS_OWN and v is not None})
    return found


def _known_names(given: Mapping[str, object]) -> dict[str, object]:
    """Lower case, since GUC names know no case, and the one old name translated that PostgreSQL 13 dropped."""
    found = {str(name).lower(): value for name, value in given.items()}
    segments = found.pop("wal_keep_segments", None)
    if isinstance(segments, int | str) and str(segments).isdigit():
        found.setdefault("wal_keep_size", f"{int(segments) * 16}MB")
    return found


def value(given: object) -> str:
    """A YAML value as a GUC's text."""
    if isinstance(given, bool):
        return "on" if given else "off"
    if isinstance(given, (list, tuple)):
        return ", ".join(value(v) for v in given)
    return str(given)


def quote(value: str) -> str:
    """A value in postgresql.conf: backslashes are escapes there, a newline would end it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n").replace("\r", "\\r") + "'"


def postgresql_conf(include: str, *parts: Mapping[str, str]) -> str:
    lines = [HEADER, f"include {quote(include)}\n"]
    for part in parts:
        lines.append("\n")
        lines.extend(f"{name} = {quote(value)}\n" for name, value in part.items())
    return "".join(lines)


def read_conf(text: str) -> dict[str, str]:
    """name -> value of a file's simple lines, the last one winning. Enough for what Rivha and ALTER SYSTEM write."""
    found = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            name, quoted, plain = match.groups()
            found[name.lower()] = _unquote(quoted) if quoted is not None else plain
    return found


def _unquote(text: str) -> str:
    escapes = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
    return re.sub(r"''|\\(.)", lambda m: "'" if m.group(1) is None else escapes.get(m.group(1), m.group(1)), text)


def without_ours(auto_conf: str) -> str:
    """postgresql.auto.conf without the lines that decide about recovery, whom a commit waits for, or how often a standby replies."""
    ours = (*RECOVERY, NAMES, *EVIDENCE)
    return "".join(line for line in auto_conf.splitlines(keepends=True) if not ((m := _LINE.match(line)) and m.group(1).lower() in ours))


def hba(lines: Iterable[str]) -> str:
    return HEADER + "".join(f"{str(line).rstrip()}\n" for line in lines)


def default_hba(settings: PostgresSettings) -> list[str]:
    """For a fresh cluster whose operator said nothing: passwords from everywhere, replication only for its user.

    Without a superuser password there is only the local socket, as initdb leaves it, and replication is left to the operator.
    """
    local = "scram-sha-256" if settings.superuser.password is not None else "trust"
    return [
        f"local all all {local}",
        f"local replication all {local}",
        "host all all all scram-sha-256",
        f'host replication "{settings.replication.username}" all scram-sha-256',
    ]
