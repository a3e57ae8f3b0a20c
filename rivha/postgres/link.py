"""The agent's own connections to the local Postgres: where to knock, with what settings, and what a refusal means.

It must never follow libpq's environment or search path, and never trust that what answers is our data directory. Called by `status`, which
keeps a connection of its own, and by the verbs, for which one is kept ready: connecting and a backend's first statements take 15 ms, which
in a failover are part of the outage.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import asyncpg

from rivha.errors import PostgresUnavailable
from rivha.postgres import tls
from rivha.postgres.process import PidFile
from rivha.postgres.settings import Credentials, PostgresSettings

# Our statements leave no trace in statistics and cannot be led astray by a search path (HAZARDS E 80).
SETTINGS = {
    "application_name": "Rivha",
    "search_path": "pg_catalog",
    "jit": "off",
    "synchronous_commit": "local",
    "pg_stat_statements.track": "none",
    "statement_timeout": "0",  # each statement has a deadline of ours
    "idle_session_timeout": "0",
}
VERB_S = 10.0  # one statement of a verb
WARMS_UP = """
SELECT count(*) FROM pg_stat_activity LEFT JOIN pg_stat_wal_receiver USING (pid) LEFT JOIN pg_stat_replication USING (pid)
LEFT JOIN pg_settings ON name = 'port'
"""
STARTING_UP = "57P03"  # cannot_connect_now: starting up, shutting down, in recovery mode


class NotYet(PostgresUnavailable):
    """It answers that it does not accept connections now."""


class Refused(PostgresUnavailable):
    """It answers, and will not have us: a password, pg_hba, too many connections."""


@dataclass(frozen=True, slots=True)
class Door:
    host: str  # a path: the folder of a socket
    port: int
    ssl: str  # asyncpg's word


def doors(settings: PostgresSettings, file: PidFile) -> list[Door]:
    """Where a connection may succeed, the likeliest first."""
    port = file.port or settings.port
    mode = settings.superuser.options.get("sslmode", "disable")
    address = file.listen_address or settings.listen_addresses.split(",")[0]
    host = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(address, address)  # noqa: S104
    tcp = [Door(host, port, mode)] + ([Door(host, port, "require")] if mode == "disable" else [])
    return ([Door(file.socket_dir, port, "disable")] if file.socket_dir else []) + tcp


class Link:
    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._works: Door | None = None
        self._ready: tuple[int, asyncpg.Connection] | None = None  # a postmaster, and a connection to it that nobody uses now
        self._warming: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """The postmaster is to be another one, or to end."""
        self._works = None
        self.close()

    def close(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
        if self._ready is not None:
            self._ready[1].terminate()
        self._ready = self._warming = None

    def warm(self, file: PidFile) -> None:
        """Sees to it that a connection is ready for the next verb. Returns at once; what goes wrong the verb will find out."""
        if self._kept(file) is None and (self._warming is None or self._warming.done()):
            self._warming = asyncio.create_task(self._warm(file))

    async def _warm(self, file: PidFile) -> None:
        with contextlib.suppress(PostgresUnavailable):
            async with self.session(file) as connection:
                await connection.fetchval(WARMS_UP)

    def _kept(self, file: PidFile) -> asyncpg.Connection | None:
        if self._ready is not None and (self._ready[0] != file.pid or self._ready[1].is_closed()):
            self._ready[1].terminate()
            self._ready = None
        return self._ready[1] if self._ready is not None else None

    async def connect(self, file: PidFile, budget_s: float) -> asyncpg.Connection:
        """A superuser's connection to our Postgres. Raises NotYet, Refused, PostgresUnavailable (silence), all within the budget."""
        candidates = doors(self._settings, file)
        if self._works in candidates:
            candidates.insert(0, self._works)
        refusal: PostgresUnavailable = PostgresUnavailable("nothing listens where postmaster.pid says")
        try:
            async with asyncio.timeout(budget_s):
                for door in candidates:
                    try:
                        connection = await self._open(door, budget_s)
                    except Refused as e:
                        refusal = e
                        continue
                    except OSError as e:
                        refusal = refusal if isinstance(refusal, Refused) else PostgresUnavailable(f"{door.host}: {e.strerror or e}")
                        continue
                    self._works = door
                    return connection
        except TimeoutError:
            raise PostgresUnavailable(f"no answer within {budget_s:g} s") from None
        raise refusal

    async def _open(self, door: Door, budget_s: float) -> asyncpg.Connection:
        user = self._settings.superuser
        try:
            options = {**user.options, "sslmode": door.ssl}
            return await open_connection(door.host, door.port, replace(user, options=options), SETTINGS, timeout_s=budget_s)
        except asyncpg.PostgresError as e:
            if e.sqlstate == STARTING_UP:
                raise NotYet(str(e)) from e
            if isinstance(e, asyncpg.PostgresConnectionError):  # it died while it answered
                raise PostgresUnavailable(str(e)) from e
            raise Refused(f"{e} (user {user.username}, {door.host} port {door.port})") from e

    @asynccontextmanager
    async def session(self, file: PidFile | None, *, fresh: bool = False) -> AsyncIterator[asyncpg.Connection]:
        """A connection for a verb; errors of the statements in it come out as PostgresUnavailable. `fresh`: new, and not kept."""
        if file is None:
            raise PostgresUnavailable("Postgres is not running")
        ready = None if fresh else self._kept(file)
        if ready is not None:
            self._ready = None
        connection = ready or await self.connect(file, VERB_S)
        done = False
        try:
            yield connection
            done = True
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as e:
            raise PostgresUnavailable(f"Postgres refused: {e}") from e
        except TimeoutError:
            raise PostgresUnavailable("Postgres did not answer in time") from None
        finally:
            if done and not fresh and self._ready is None and not connection.is_closed():
                self._ready = (file.pid, connection)
            else:
                connection.terminate()

    def environment(self, passfile: str) -> dict[str, str]:
        return {"PGPASSFILE": passfile, "PGAPPNAME": "Rivha"}

    def local_conninfo(self, file: PidFile) -> dict[str, object]:
        """How psql reaches the Postgres that we are connected to."""
        door = self._works or doors(self._settings, file)[0]
        options = {k: v for k, v in self._settings.superuser.options.items() if k != "sslmode"}
        user = {"user": self._settings.superuser.username, "dbname": "postgres", "connect_timeout": 3}
        return {"host": door.host, "port": door.port, **user, **options, "sslmode": door.ssl}


async def open_connection(host: str, port: int, user: Credentials, settings: dict[str, str], *, timeout_s: float) -> asyncpg.Connection:
    """With TLS or without, as the user's sslmode says. Raises what asyncpg raises, and OSError."""
    ways: list[tls.Attempt] = [False] if os.path.isabs(host) else await asyncio.to_thread(tls.attempts, user.options)
    for way in ways[:-1]:
        with contextlib.suppress(ConnectionError, asyncpg.InvalidAuthorizationSpecificationError):  # no TLS there, or nothing but TLS
            return await _open(host, port, user, settings, way, timeout_s)
    return await _open(host, port, user, settings, ways[-1], timeout_s)


async def _open(
    host: str, port: int, user: Credentials, settings: dict[str, str], way: tls.Attempt, timeout_s: float
) -> asyncpg.Connection:
    """asyncpg without its habits of reading the environment and password files."""
    return await asyncpg.connect(
        host=host,
        port=port,
        user=user.username,
        password=user.password or "",
        database="postgres",
        ssl=way,
        timeout=timeout_s,
        command_timeout=VERB_S,
        server_settings=settings,
        target_session_attrs=asyncpg.connect_utils.SessionAttribute.any,
    )
