"""libpq's connection strings and password file: writing and reading them. Pure.

Rivha writes passwords only into the password file (mode 0600), never into a connection string, an argument list or a log (HAZARDS D 61).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rivha.model import Upstream
from rivha.postgres.settings import Credentials, PostgresSettings

# libpq's own defaults hide a dead upstream for minutes (HAZARDS I 3); these find it within a few seconds.
PATIENCE = {
    "connect_timeout": "2",  # seconds; 2 is libpq's minimum
    "keepalives": "1",
    "keepalives_idle": "2",
    "keepalives_interval": "1",
    "keepalives_count": "3",
    "tcp_user_timeout": "5000",  # ms
}
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s\\]|\\.)*))", re.DOTALL)


def render(facts: Mapping[str, object]) -> str:
    """`host=a user='b c'`, in the given order; None is left out."""
    return " ".join(f"{key}={_quote(str(value))}" for key, value in facts.items() if value is not None)


def parse(text: str) -> dict[str, str]:
    """The inverse of `render` for any key=value string; what does not parse is left out."""
    found = {}
    for match in _PAIR.finditer(text):
        key, quoted, plain = match.groups()
        found[key] = re.sub(r"\\(.)", r"\1", quoted if quoted is not None else plain, flags=re.DOTALL)
    return found


def _quote(value: str) -> str:
    if re.fullmatch(r"[\w./:@%+,-]+", value, re.ASCII):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def address(text: str) -> str | None:
    """host:port that a primary_conninfo points at; None when it names no host."""
    facts = parse(text)
    host = facts.get("host") or facts.get("hostaddr")
    return f"{host}:{facts.get('port', '5432')}" if host else None


def to_upstream(settings: PostgresSettings, source: Upstream, user: Credentials, passfile: str, **more: object) -> str:
    """How this node connects to another one."""
    return render(
        {
            "host": source.host,
            "port": source.port,
            "user": user.username,
            "passfile": passfile,
            "dbname": "postgres",
            "application_name": settings.name,
            **PATIENCE,
            **user.options,
            **more,
        }
    )


def pgpass(users: Iterable[Credentials]) -> str:
    """The password file's text: each user's password, whatever host and database. Doubles (replicator = rewind user) appear once."""
    lines: dict[str, str] = {}
    for user in users:
        if user.password is not None:
            lines.setdefault(user.username, f"*:*:*:{_escape(user.username)}:{_escape(user.password)}\n")
    return "".join(lines.values())


def _escape(field: str) -> str:
    return field.replace("\\", "\\\\").replace(":", "\\:")
