"""The local file's keys: Patroni's, as typed sections with defaults, and what each would hurt if it were wrong.

One model per section, no logic beyond single values; what several keys say together is judged in `rivha.config`. It opens nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from rivha.config.values import (
    everywhere,
    join_address,
    shown,
    split_address,
    split_listen,
    text,
    words,
    wrong,
)

# initdb options that Rivha sets itself or that would make the data unsafe.
INITDB_BLOCKED = frozenset({"pgdata", "pwfile", "nosync", "no-sync", "sync-only", "version", "pwprompt", "D", "N", "S", "V", "W"})
RESERVED = frozenset({"*", "any", "first", "__patroni_strict_sync_replica_placeholder__"})


# ---- values of several keys


def member_name(value: object) -> str:
    """HAZARDS 86: the name becomes application_name, part of an etcd key, and stands in synchronous_standby_names."""
    name = text(value)
    if not name:
        raise wrong("must not be empty")
    if name.lower() in RESERVED:
        raise wrong(f"{name!r} has a meaning of its own in synchronous_standby_names")
    if not (name.isascii() and name.isprintable()):
        raise wrong("PostgreSQL replaces letters beyond ASCII in application_name, and the standby would not be recognised")
    if len(name) > 63:
        raise wrong("is longer than 63 letters, where PostgreSQL cuts application_name")
    if "/" in name or "," in name or name != name.strip():
        raise wrong("must have no slash, no comma and no blank at its ends: etcd's keys and the list of voters are made of names")
    return name


def key_part(value: object) -> str:
    """Part of etcd's keys."""
    found = text(value)
    if not found.strip("/") or not found.isprintable() or found != found.strip():
        raise wrong("must be a word: it becomes part of etcd's keys")
    return found


def scope_name(value: object) -> str:
    found = key_part(value)
    if "/" in found:
        raise wrong("must have no slash: two clusters could share keys")
    return found


def address(port: int, *, listens: bool) -> Any:
    def check(value: object) -> str:
        found = text(value).strip()
        try:
            host, _ = split_address(found, port)
        except ValueError as error:
            raise wrong(str(error)) from error
        if not listens and everywhere(host):
            raise wrong(f"{shown(found)} is every address of whoever reads it: other nodes would connect to themselves")
        return found

    return BeforeValidator(check)


def postgres_listen(value: object) -> str:
    """`host,host:port`, as written back with its port."""
    try:
        hosts, port = split_listen(text(value), 5432)
    except ValueError as error:
        raise wrong(str(error)) from error
    return f"{','.join(hosts)}:{port}"


def etcd_hosts(value: object) -> tuple[str, ...]:
    """Endpoints as host:port. A URL is refused here: its protocol belongs in `protocol`."""
    found = []
    for item in words(value):
        if "://" in item:
            raise wrong(f"{shown(item)} is a URL; write host:port here and the protocol in `protocol`")
        try:
            host, port = split_address(item, 2379)
        except ValueError as error:
            raise wrong(str(error)) from error
        found.append(join_address(host, port))
    if not found:
        raise wrong("names no host")
    return tuple(found)


def options(value: object) -> tuple[str, ...]:
    """initdb's options: `- data-checksums`, `- encoding: UTF8`; the form of a mapping is taken too."""
    if isinstance(value, Mapping):
        value = [{name: item} for name, item in value.items()]
    if not isinstance(value, list | tuple):
        raise wrong("must be a list of options")
    found = []
    for item in value:
        if isinstance(item, Mapping) and len(item) == 1:
            name, setting = next((str(n).lstrip("-"), s) for n, s in item.items())
            entry = name if setting is True else f"{name}={text(setting)}"
        elif isinstance(item, str) and item.lstrip("-"):
            name, entry = item.lstrip("-").partition("=")[0], item.lstrip("-")
        else:
            raise wrong(f"{shown(item)} is no option; write `name` or `name: value`")
        if name in INITDB_BLOCKED:
            raise wrong(f"{name} is not allowed: Rivha sets it itself, or the data would not be safe")
        found.append(entry)
    return tuple(found)


def command(value: object) -> str:
    """A command line that can be split like a shell's."""
    found = text(value)
    try:
        parts = shlex.split(found)
    except ValueError as error:
        raise wrong(f"is no command line: {str(error).lower()}") from error
    if not parts or "\0" in found:
        raise wrong("is no command line")
    return found


def path(value: object) -> str:
    found = text(value)
    if not found.strip() or "\0" in found or "\n" in found:
        raise wrong("must be a path")
    return found


def level(value: object) -> str:
    """A level of Python's logging, in either case."""
    found = text(value).strip().upper()
    found = {"WARN": "WARNING", "FATAL": "CRITICAL", "NOTSET": "DEBUG"}.get(found, found)
    if found not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise wrong("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return found


def levels(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise wrong("must be a mapping of module to level")
    return {str(name): level(item) for name, item in value.items()}


def log_format(value: object) -> Any:
    """plain: %-style text. json: a list of fields, or of {field: new name}."""
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            raise wrong("must be a list, not text that looks like one")
        if re.search(r"\d{4}", value):
            raise wrong("has a width of thousands")
        try:
            value % PROBE
        except (KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
            raise wrong(f"is no format of Python's logging: {error}") from error
        return value
    if isinstance(value, list):
        for item in value:
            if not (isinstance(item, str) or (isinstance(item, Mapping) and all(isinstance(v, str) for v in item.values()))):
                raise wrong(f"{shown(item)} is neither a field nor a mapping of field to name")
        return value
    raise wrong("must be text for type plain, a list of fields for type json")


# What a record offers to log.format.
NUMBERS = dict.fromkeys(("levelno", "lineno", "process", "thread"), 1) | dict.fromkeys(("created", "msecs", "relativeCreated"), 1.0)
PROBE: dict[str, Any] = NUMBERS | dict.fromkeys(
    ("asctime", "levelname", "message", "name", "module", "pathname", "filename", "funcName", "processName", "threadName", "taskName"), ""
)


def word(value: object) -> object:
    """YAML 1.1 reads an unquoted `off` as false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def file_mode(value: object) -> int:
    """An octal mode; YAML 1.1 has already turned an unquoted 0644 into 420."""
    if isinstance(value, str) and re.fullmatch(r"0?o?[0-7]{3,4}", value):
        return int(value.replace("o", ""), 8)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 0o7777:
        return value
    raise wrong("must be a file mode, like 0644")


def tags(value: object) -> dict[str, Any]:
    """Values of tags are kept as they are; sections are not (they go into an etcd key that all members read)."""
    if not isinstance(value, Mapping):
        raise wrong("must be a mapping")
    for name, item in value.items():
        if not (item is None or isinstance(item, str | int | float | bool)):
            raise wrong(f"{name} must be one value")
        if name in ("nofailover", "noloadbalance", "clonefrom", "nosync", "nostream") and not isinstance(item, bool | None):
            raise wrong(f"{name} must be true or false")
        if name in ("failover_priority", "sync_priority") and (isinstance(item, bool) or not isinstance(item, int | None)):
            raise wrong(f"{name} must be a whole number")
    return {str(name): item for name, item in value.items() if item is not None}


Path = Annotated[str, BeforeValidator(path)]
BinDir = Annotated[str, BeforeValidator(lambda value: value if value == "" else path(value))]
Command = Annotated[str, BeforeValidator(command)]
Level = Annotated[str, BeforeValidator(level)]
Tags = Annotated[dict[str, Any], BeforeValidator(tags)]
Etcds = Annotated[tuple[str, ...], BeforeValidator(etcd_hosts)]
