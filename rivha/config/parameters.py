"""What is wrong with the cluster's `postgresql.parameters`: the settings that Rivha itself acts upon or gives on the command line. Pure.

PostgreSQL judges the others, which stand in its file. With one of these wrong it would not start, or not promote. Never raises.
Called by `shared`, `judge` and the agent's `Dynamic`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rivha.config.values import shown
from rivha.postgres import conf, names

STANDBY_NAMES = "synchronous_standby_names"

# Given on the command line as whole numbers, one value for all nodes.
SIZES = tuple(name for name, default in conf.FORCED.items() if isinstance(default, int))
LARGEST = 262_143  # PostgreSQL's MAX_BACKENDS; it starts with no larger one of these
UNBOUNDED = ("max_locks_per_transaction",)
_WHOLE = re.compile(r"\s*\d{1,9}\s*", re.ASCII)


def said(given: Mapping[str, Any], setting: str) -> str:
    """The setting as given, or ""; PostgreSQL's names know no case."""
    found = [item for name, item in given.items() if name.lower() == setting and item is not None]
    return str(found[-1]) if found else ""


def own_names(given: Mapping[str, Any]) -> str:
    """The operator's synchronous_standby_names, for mode `off`."""
    text = said(given, STANDBY_NAMES)
    return "" if _wrong_names(text) else text


def wrong_parameters(given: Mapping[str, Any]) -> list[str]:
    """One sentence for each."""
    names_wrong = _wrong_names(said(given, STANDBY_NAMES))
    return [*([names_wrong] if names_wrong else []), *(sentence for name, item in given.items() if (sentence := _wrong_size(name, item)))]


def kept(effective: Mapping[str, Any], last: Mapping[str, object]) -> dict[str, Any]:
    """`effective` with the sizes that are none as they were in `last`, or left out: then their default counts."""
    found = conf.section(effective, "parameters")
    wrong = {name.lower() for name, item in found.items() if _wrong_size(name, item)}
    if not wrong:
        return dict(effective)
    good = {name: item for name, item in found.items() if name.lower() not in wrong}
    before = {
        name: item for name, item in conf.section(last, "parameters").items() if name.lower() in wrong and not _wrong_size(name, item)
    }
    return {**effective, "postgresql": {**effective["postgresql"], "parameters": {**good, **before}}}


def _wrong_names(text: str) -> str | None:
    """What is wrong with them: a promotion with names that PostgreSQL refuses would fail."""
    try:
        names.parse(text)
    except ValueError as wrong:
        return f"postgresql.parameters.{wrong}"
    return None


def _wrong_size(name: object, item: object) -> str | None:
    setting = str(name).lower()
    if setting not in SIZES or item is None:
        return None
    if isinstance(item, bool) or not _WHOLE.fullmatch(str(item)):
        return f"postgresql.parameters.{name}: must be a whole number of at least 0, not {shown(item)}; PostgreSQL would not start with it"
    if int(str(item)) > LARGEST and setting not in UNBOUNDED:
        return f"postgresql.parameters.{name}: must be at most {LARGEST}, not {shown(item)}; PostgreSQL would not start with it"
    return None
