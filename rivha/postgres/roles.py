"""The users of a fresh cluster: superuser's password, replication, rewind. Called by `bootstrap` only."""

from __future__ import annotations

import asyncpg

from rivha.postgres.settings import Credentials, PostgresSettings

# Passwords must not reach a log or a statistics view, and a strict synchronous mode must not block this (HAZARDS E 80).
QUIETLY = (
    "SET log_statement = 'none'",
    "SET log_min_duration_statement = -1",
    "SET log_min_error_statement = 'panic'",
    "SET synchronous_commit = 'local'",
    "SET pg_stat_statements.track_utility = 'off'",
    "SET pgaudit.log = 'none'",
)
# What pg_rewind calls on its source, according to its manual page.
REWIND_FUNCTIONS = (
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
)


async def create(connection: asyncpg.Connection, settings: PostgresSettings) -> None:
    """Idempotent. Raises what asyncpg raises."""
    statements = [*QUIETLY, _role(settings.superuser, "SUPERUSER"), _role(settings.replication, "REPLICATION")]
    rewind = settings.rewind
    if rewind is not None and rewind.username != settings.superuser.username:
        options = "REPLICATION" if rewind.username == settings.replication.username else ""
        statements.append(_role(rewind, options))
        user = identifier(rewind.username)
        statements.extend(f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {user}" for function in REWIND_FUNCTIONS)
    await connection.execute(";\n".join(statements))


def _role(user: Credentials, options: str) -> str:
    """Creates it, or gives it what it should have when it is there."""
    name = identifier(user.username)
    password = f" PASSWORD {literal(user.password)}" if user.password is not None else ""
    wanted = f"{name} WITH LOGIN {options}{password}"
    body = (
        f"BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {literal(user.username)}) "
        f"THEN ALTER ROLE {wanted}; ELSE CREATE ROLE {wanted}; END IF; END"
    )
    return f"DO {literal(body)}"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string constant, whatever standard_conforming_strings says."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f" E'{escaped}'" if "\\" in text or "'" in text else f"'{text}'"
