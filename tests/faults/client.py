"""The clients of the fault lab, on a host of their own: they write through HAProxy and put down what they were told, at once, into a file.

`python -m tests.faults.client SPECIFICATION.json`; SIGTERM lets the commits under way end, and ends it. Each line of the ledger is one
statement: how it ended, when it was sent and answered (time.monotonic(), one clock for the whole lab), and which node said so on which
timeline. Acknowledged means confirmed without a warning; unknown, that it may have happened; refused, that it did not.
Run by tests/faults/site.py; read by tests/faults/ledger.py.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, TextIO

import asyncpg

from tests.faults.ledger import ACKNOWLEDGED, REFUSED, UNKNOWN, Entry
from tests.lab.node import SQL_ERRORS
from tests.lab.writer import AMBIGUOUS, COMMIT_S, CONNECT_S, RECONNECT_S

LAST_COMMIT_S = 2.0
KEYS, KEY_LIFE_S = 4, 10.0  # lists that are appended to at a time, and for how long: short lists, read back whole
# Who answers, and on which timeline it writes: timelines grow with every promotion, so they order the primaries without any clock.
WHO = """select host(inet_server_addr()) as node,
    case when pg_is_in_recovery() then 0 else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end as timeline"""


class Client(ABC):
    """One connection at a time, one statement after the other, for ever."""

    def __init__(self, name: str, number: int, specification: dict[str, Any], ledger: TextIO) -> None:
        self.name = name
        self.number = number  # makes its values its own
        self.count = 0
        self.pace_s = float(specification["pace_s"])
        self._specification = specification
        self._ledger = ledger
        self._warned = False
        self.ending = False

    @abstractmethod
    async def step(self, connection: asyncpg.Connection[asyncpg.Record], value: int) -> tuple[int, list[int]]:
        """One transaction: (key, what the list holds now), or (0, [])."""

    async def run(self) -> None:
        while not self.ending:
            try:
                connection = await self._connect()
            except SQL_ERRORS:
                pass
            else:
                try:
                    await self._use(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(RECONNECT_S)

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        s = self._specification
        return await asyncpg.connect(
            host=s["host"],
            port=s["port"],
            user="postgres",
            password=s["password"],
            database="postgres",
            timeout=CONNECT_S,
            server_settings=s.get("settings", {}),
        )

    async def _use(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Until the connection or the server is no good any more."""
        connection.add_log_listener(self._hear)
        try:
            who = await connection.fetchrow(WHO, timeout=COMMIT_S)
        except SQL_ERRORS:
            return
        assert who is not None
        while not self.ending and await self._one(connection, who["node"], who["timeline"]):
            await asyncio.sleep(self.pace_s)

    async def _one(self, connection: asyncpg.Connection[asyncpg.Record], node: str, timeline: int) -> bool:
        """One statement, put down whatever becomes of it. False: connect again."""
        self.count += 1
        value = self.number * 10_000_000 + self.count
        self._warned = False
        sent = time.monotonic()
        outcome, key, words = UNKNOWN, 0, ""
        items: list[int] = []
        try:
            key, items = await self.step(connection, value)
            outcome = UNKNOWN if self._warned else ACKNOWLEDGED
        except asyncpg.PostgresError as answer:
            outcome = UNKNOWN if (answer.sqlstate or "08").startswith(AMBIGUOUS) else REFUSED
            words = f"{type(answer).__name__}: {answer}"
        except SQL_ERRORS as broken:
            words = f"{type(broken).__name__}: {broken}"
        finally:
            entry = Entry(outcome, self.name, value, sent, time.monotonic(), node, timeline, key, tuple(items), words)
            self._ledger.write(entry.line() + "\n")
            self._ledger.flush()
        return not words

    def _hear(self, _connection: object, message: object) -> None:
        """Any WARNING under way spoils the acknowledgement: "... might not have been replicated to the standby" (HAZARDS H 1)."""
        if "WARNING" in (getattr(message, "severity_en", None), getattr(message, "severity", None)):
            self._warned = True


class Inserter(Client):
    async def step(self, connection: asyncpg.Connection[asyncpg.Record], value: int) -> tuple[int, list[int]]:
        await connection.execute("insert into written values ($1)", value, timeout=COMMIT_S)
        return 0, []


class Appender(Client):
    """Appends to one of a few lists that all appenders share, and reads the list back in the same transaction."""

    async def step(self, connection: asyncpg.Connection[asyncpg.Record], value: int) -> tuple[int, list[int]]:
        key = 1 + int(time.monotonic() / KEY_LIFE_S) * KEYS + self.count % KEYS
        statement = """insert into lists values ($1, array[$2::bigint])
            on conflict (key) do update set items = lists.items || excluded.items returning items"""
        return key, list(await connection.fetchval(statement, key, value, timeout=COMMIT_S))


async def main(specification: dict[str, Any]) -> None:
    with Path(specification["ledger"]).open("a", encoding="utf-8") as ledger:
        kinds = {"insert": Inserter, "append": Appender}
        clients = [
            kinds[client["kind"]](f"{client['kind']}{number}", number, specification | client, ledger)
            for number, client in enumerate(specification["clients"], 1)
        ]
        tasks = [asyncio.create_task(client.run(), name=client.name) for client in clients]

        def end() -> None:
            for client in clients:
                client.ending = True
            asyncio.get_running_loop().call_later(LAST_COMMIT_S, lambda: [task.cancel() for task in tasks])

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
