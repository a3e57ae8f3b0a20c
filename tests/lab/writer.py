"""A client that remembers: one row per transaction through HAProxy, and for each what the cluster said about it.

Acknowledged means that the commit was confirmed without the warning that it may not have been replicated. Unknown is everything that may
have happened (the connection broke with the commit under way). Refused means that it did not happen.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

import asyncpg

from tests.lab.node import SQL_ERRORS, close, now
from tests.lab.ports import LOOPBACK

RECONNECT_S = 0.02  # BASELINE's client: the cluster's outage is measured, not the client's patience
CONNECT_S = 3.0
LAST_COMMIT_S = 2.0
COMMIT_S = 5.0  # longer than HAProxy needs to take a dark server out, so that it is HAProxy that ends a hanging commit
# The server went away in the middle: class 08, and 57P01..57P05 (shutdown, crash, idle timeouts). Anything else is an answer: it failed.
AMBIGUOUS = ("08", "57P")


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without acknowledged writes: from the last one before to the first one after (`end` None: there was none yet)."""

    start: float
    end: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Account:
    """What became of everything, checked against the rows that the surviving primary has."""

    acknowledged: int
    unknown: int
    refused: int
    lost: tuple[int, ...]  # acknowledged, and not there
    ghosts: tuple[int, ...]  # refused, and there


@dataclass(slots=True)
class Writer:
    """Writes from `start()` to `stop()`, whatever happens to the cluster. Instants are time.monotonic()."""

    port: int
    password: str
    table: str = "written"
    pace_s: float = 0.005  # between rows; also the resolution of a gap
    acknowledged: dict[int, float] = field(default_factory=dict)  # number -> when the acknowledgement came
    unknown: dict[int, float] = field(default_factory=dict)
    refused: dict[int, float] = field(default_factory=dict)
    complaints: list[tuple[float, str]] = field(default_factory=list)  # what the cluster said, when that changed
    began: float = 0.0
    _number: int = 0
    _warned: bool = False
    _ending: bool = False
    _task: asyncio.Task[None] | None = None

    async def prepare(self, deadline_s: float = 60.0) -> None:
        """Creates the table, waiting until somebody can be written to."""
        async with asyncio.timeout(deadline_s):
            while True:
                try:
                    connection = await self._connect()
                    try:
                        await connection.execute(f"create table if not exists {self.table} (number bigint primary key)", timeout=COMMIT_S)
                    finally:
                        await close(connection)
                except SQL_ERRORS:
                    await asyncio.sleep(0.1)
                else:
                    return

    def start(self) -> None:
        self.began = now()
        self._ending = False
        self._task = asyncio.create_task(self._run(), name="writer")

    async def stop(self) -> None:
        """Lets the commit that is under way end, for a while: cutting it off would make its outcome unknown by our own doing."""
        if self._task is None:
            return
        self._ending = True
        await asyncio.wait({self._task}, timeout=LAST_COMMIT_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        task, self._task = self._task, None
        if not task.cancelled() and (error := task.exception()):
            raise error

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            host=LOOPBACK, port=self.port, user="postgres", password=self.password, database="postgres", timeout=CONNECT_S
        )

    async def _run(self) -> None:
        while not self._ending:
            try:
                connection = await self._connect()
            except SQL_ERRORS as refusal:
                self._complain(refusal)
            else:
                try:
                    await self._write(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(RECONNECT_S)

    async def _write(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Row after row, until the connection or the server is no good any more."""
        connection.add_log_listener(self._hear)
        try:
            while not self._ending:
                self._number += 1
                self._warned = False
                try:
                    await connection.execute(f"insert into {self.table} values ($1)", self._number, timeout=COMMIT_S)
                except asyncpg.PostgresError as answer:
                    ambiguous = (answer.sqlstate or "08").startswith(AMBIGUOUS)
                    (self.unknown if ambiguous else self.refused)[self._number] = now()
                    self._complain(answer)
                    return
                except SQL_ERRORS as broken:
                    self.unknown[self._number] = now()
                    self._complain(broken)
                    return
                except asyncio.CancelledError:
                    self.unknown[self._number] = now()
                    raise
                (self.unknown if self._warned else self.acknowledged)[self._number] = now()
                await asyncio.sleep(self.pace_s)
        finally:
            connection.remove_log_listener(self._hear)

    def _hear(self, _connection: object, message: object) -> None:
        """Any WARNING under way spoils the acknowledgement: "... might not have been replicated to the standby" (HAZARDS H 1)."""
        if getattr(message, "severity_en", None) == "WARNING" or getattr(message, "severity", "") == "WARNING":
            self._warned = True
            self.complaints.append((now(), str(message)))

    def _complain(self, error: BaseException) -> None:
        text = f"{type(error).__name__}: {error}"
        if not self.complaints or self.complaints[-1][1] != text:
            self.complaints.append((now(), text))

    # ---- what can be read out of it

    def longest_gap(self, since: float, until: float | None = None) -> Gap:
        """The longest time without an acknowledgement that ended after `since` (and began before `until`); one that still lasts counts."""
        end_of_time = now() if until is None else until
        times = [self.began, *sorted(self.acknowledged.values())]
        gaps = [Gap(a, b, b - a) for a, b in pairwise(times) if b > since and a < end_of_time]
        if times[-1] < end_of_time:
            gaps.append(Gap(times[-1], None, end_of_time - times[-1]))
        return max(gaps, key=lambda gap: gap.seconds, default=Gap(since, since, 0.0))

    def writing_since(self, instant: float, rows: int = 20) -> bool:
        """At least `rows` acknowledgements came after `instant`: whoever is primary now takes writes."""
        return sum(1 for at in self.acknowledged.values() if at > instant) >= rows

    def settle(self, present: set[int]) -> Account:
        """`present`: the numbers in the surviving primary's table, read after `stop()`."""
        lost = tuple(sorted(self.acknowledged.keys() - present))
        ghosts = tuple(sorted(self.refused.keys() & present))
        return Account(len(self.acknowledged), len(self.unknown), len(self.refused), lost, ghosts)
