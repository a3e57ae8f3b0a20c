"""Raw configurations as plain data: what YAML or JSON gave, made storable, merged, and with Patroni's old names translated. Pure.

Called by `rivha.config` and `rivha.config.shared`, before anything is judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Any

from rivha.config.values import DEPTH, shown
from rivha.errors import ConfigError

OLD_NAMES = {"master_start_timeout": "primary_start_timeout", "master_stop_timeout": "primary_stop_timeout"}


def shaped(value: object) -> dict[str, Any]:
    """A mapping as JSON holds it. Raises ConfigError."""
    if not isinstance(value, Mapping):
        raise ConfigError([f"the configuration must be an object with keys, not {type(value).__name__}"])
    result = plain(value)
    assert isinstance(result, dict)
    return result


def plain(value: Any, where: str = "", depth: int = 0) -> Any:
    """YAML's or JSON's value as JSON can hold it: keys are texts, dates are texts. Raises ConfigError for what cannot be."""
    if depth > DEPTH:
        raise ConfigError([f"{where[:60]}: sections are nested more than {DEPTH} deep (or contain themselves)"])
    if isinstance(value, Mapping):
        return {key_text(name): plain(item, f"{where}.{key_text(name)}".lstrip("."), depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{number}]", depth + 1) for number, item in enumerate(value)]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError([f"{where}: {value} is not a number that can be stored"])
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigError([f"{where}: a value of the type {type(value).__name__} cannot be part of a configuration; put text into quotes"])


def key_text(name: object) -> str:
    """YAML 1.1 reads an unquoted `on` as true; as a key it means the word."""
    return {True: "on", False: "off"}[name] if isinstance(name, bool) else str(name)


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7386: sections merge, null deletes, all else replaces."""
    result = dict(base)
    for name, item in patch.items():
        if item is None:
            result.pop(name, None)
        elif isinstance(item, Mapping):
            old = result.get(name)
            result[name] = merged(old if isinstance(old, Mapping) else {}, item)
        else:
            result[name] = item
    return result


def overlaid(base: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Of two files, or file and environment: sections merge, all else replaces. A null stays, because it may mean "not even etcd's"."""
    result = dict(base)
    for name, item in later.items():
        old = result.get(name)
        result[name] = overlaid(old, item) if isinstance(old, Mapping) and isinstance(item, Mapping) else item
    return result


def translated(raw: Mapping[str, Any], root: str = "") -> tuple[dict[str, Any], list[str]]:
    """Old names under their new ones, and what to tell the operator about it. A new name that stands beside the old one wins."""
    result, told = dict(raw), []
    for old, new in OLD_NAMES.items():
        if old in result:
            value = result.pop(old)
            result.setdefault(new, value)
            told.append(f"{root}{old} is called {new} now; please rename it")
    postgres = result.get("postgresql")
    if isinstance(postgres, Mapping):
        result["postgresql"], more = translated_postgres(postgres, f"{root}postgresql.")
        told += more
    return result, told


def translated_postgres(raw: Mapping[str, Any], root: str) -> tuple[dict[str, Any], list[str]]:
    """`wal_keep_segments` (gone since PostgreSQL 13) becomes `wal_keep_size`: segments of 16 MB."""
    result = dict(raw)
    found = result.get("parameters")
    if not isinstance(found, Mapping) or "wal_keep_segments" not in found:
        return result, []
    values = dict(found)
    segments = values.pop("wal_keep_segments")
    result["parameters"] = values
    if isinstance(segments, bool) or not str(segments).strip().isdecimal():
        return result, [f"{root}parameters.wal_keep_segments: {shown(segments)} is not a number of segments; it is left out"]
    values.setdefault("wal_keep_size", f"{int(str(segments).strip()[:9]) * 16}MB")
    return result, [f"{root}parameters.wal_keep_segments is called wal_keep_size now; {segments} segments are {values['wal_keep_size']}"]


def without_nulls(raw: Mapping[str, Any], keep: tuple[str, ...] = ("parameters", "recovery_conf", "dcs")) -> dict[str, Any]:
    """A local file without what it leaves empty (`tags:` with nothing below). Where null has a meaning, it is kept."""
    result: dict[str, Any] = {}
    for name, item in raw.items():
        if isinstance(item, Mapping) and name not in keep:
            result[name] = without_nulls(item, keep)
        elif item is not None:
            result[name] = item
    return result
