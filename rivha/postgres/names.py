"""The text of synchronous_standby_names, read as PostgreSQL reads it (syncrep_gram.y). Pure. Used by `synchronous` and by rivha.config."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

NAMES = "synchronous_standby_names"

_LIST = re.compile(r"\s*(?:(?:(first|any)\s+)?(\d{1,9})\s*\((.*)\)|(.*))\s*", re.IGNORECASE | re.DOTALL | re.ASCII)
_MEMBER = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([A-Za-z_][\w$]*|\*))\s*(?:,|$)', re.ASCII)
_KEYWORDS = ("first", "any")


@dataclass(frozen=True, slots=True)
class Names:
    """synchronous_standby_names, parsed."""

    method: str  # FIRST or ANY
    number: int
    members: tuple[str, ...]  # without quotes, in lower case: PostgreSQL compares them so

    def has(self, application_name: str) -> bool:
        return "*" in self.members or application_name.lower() in self.members


def parse(text: str) -> Names | None:
    """None: nobody is named. Raises ValueError on what PostgreSQL would not take (a start with it fails), and on some that it would."""
    if not text.strip():
        return None
    match = _LIST.fullmatch(text)
    if match is None:
        raise ValueError(f"{NAMES}: {text!r} is no list of names")
    method, number, members, plain = match.groups()
    if number is not None and int(number) < 1:
        raise ValueError(f"{NAMES}: {text!r} wants {number} standbys; at least 1")
    return Names((method or "FIRST").upper(), int(number or 1), tuple(_members(members if plain is None else plain)))


def _members(text: str) -> Iterator[str]:
    at, comma = 0, True
    while comma:
        found = _MEMBER.match(text, at)
        if found is None or (found[2] or "").lower() in _KEYWORDS:
            raise ValueError(f"{NAMES} cannot be read at {text[at:]!r}; names with other characters than letters want double quotes")
        yield (found[1].replace('""', '"') if found[1] else found[2]).lower()
        at, comma = found.end(), found[0].endswith(",")
