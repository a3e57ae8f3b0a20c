"""When what happened around a fault, seen from outside: etcd's changes, HAProxy's routes, the agents' journals, the writer's rows.

All of it runs on one machine, so one monotonic clock orders it; the journals' wall-clock times are translated once, when they are read.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.lab.cluster import Lab
from tests.lab.etcd import Change
from tests.lab.node import Node, now
from tests.lab.writer import Gap

LOOK_S = 0.02  # how often HAProxy is asked; the resolution of `routed`


@dataclass(frozen=True, slots=True)
class Timeline:
    """Seconds from the fault to each step; None: it did not happen (a primary that came back needed no election).

    An acknowledged write proves that its primary was promoted and routed to, so these are never later than it.
    """

    noticed: float | None  # an agent changed its mind
    elected: float | None  # the leader key was written
    promoted: float | None  # the new (or the same) primary says that it takes writes
    routed: float | None  # HAProxy sends clients there
    first_write: float | None  # a commit was acknowledged again
    streaming: float | None  # the old node streams from the new one
    outage: Gap
    leader: str

    def steps(self) -> Iterator[tuple[str, float | None]]:
        for field in fields(self):
            if field.name not in ("outage", "leader"):
                yield field.name, getattr(self, field.name)


class Recorder:
    """Watches a lab from `async with` on. A lost watch (etcd stopped) is opened again; what changed meanwhile is not seen."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.changes: list[Change] = []
        self.routes: list[tuple[float, tuple[str, ...]]] = []  # (when, whom HAProxy would send a writer to), on every change
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._watch_etcd(), name="etcd"), asyncio.create_task(self._watch_proxy(), name="proxy")]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch_etcd(self) -> None:
        while True:
            try:
                async for change in self.lab.etcd.watch(self.lab.prefix):
                    self.changes.append(change)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.1)

    async def _watch_proxy(self) -> None:
        while True:
            route = tuple(await self.lab.proxy.routed("primary"))
            if not self.routes or self.routes[-1][1] != route:
                self.routes.append((now(), route))
            await asyncio.sleep(LOOK_S)

    # ---- reading it

    async def timeline(self, fault_at: float, old: str, outage: Gap) -> Timeline:
        """`old` led when the fault came at `fault_at`. Call it when the cluster is whole again: the journals are read now."""
        leader = await self.lab.primary()
        elected = self._first(fault_at, "leader", lambda value: True)
        promoted = self._first(elected or fault_at, f"members/{leader.name}", _is_primary)
        rejoined = self._first(elected, f"members/{old}", _streams) if leader.name != old and elected else None
        instants = {
            "noticed": await self._noticed(fault_at),
            "elected": elected,
            "promoted": _earliest(promoted, self._worked(elected or fault_at, leader), outage.end),
            "routed": self._routed(fault_at, leader.name, outage.end),
            "first_write": outage.end,
            "streaming": rejoined,
        }
        since = {step: None if at is None else at - fault_at for step, at in instants.items()}
        return Timeline(**since, outage=outage, leader=leader.name)

    def _first(self, since: float, key: str, fits: Any) -> float | None:
        wanted = self.lab.prefix + key
        return next((c.at for c in self.changes if c.at > since and c.key == wanted and c.value is not None and fits(c.value)), None)

    def _routed(self, since: float, name: str, proof: float | None) -> float | None:
        """When clients could reach `name` again; None when HAProxy never left it."""
        if self._always_routed(since, name):
            return None
        away = next((at for at, route in self.routes if at > since and name not in route), since)
        return _earliest(next((at for at, route in self.routes if at > away and name in route), None), proof)

    def _always_routed(self, since: float, name: str) -> bool:
        before = [route for at, route in self.routes if at <= since][-1:]
        return all(name in route for route in before + [route for at, route in self.routes if at > since])

    @staticmethod
    def _worked(since: float, node: Node) -> float | None:
        """When the agent's log says that its Postgres was promoted or started: the member key follows a moment later."""
        records = [r for r in node.log_records() if r.get("message") == "job done" and r.get("job") in ("promote", "start")]
        times = [monotonic(datetime.strptime(record["asctime"], "%Y-%m-%d %H:%M:%S,%f").timestamp()) for record in records]  # noqa: DTZ007 - local
        return min((at for at in times if at > since), default=None)

    async def _noticed(self, since: float) -> float | None:
        """The first change of mind of any agent that still lives."""
        times = []
        for node in self.lab.nodes:
            code, text = await node.ask("GET", "/journal")
            entries = json.loads(text) if code == 200 else []
            times += [monotonic(datetime.fromisoformat(entry["at"]).timestamp()) for entry in entries]
        return min((at for at in times if at > since), default=None)


def monotonic(wall: float) -> float:
    return wall + time.monotonic() - time.time()


def _earliest(*instants: float | None) -> float | None:
    return min((at for at in instants if at is not None), default=None)


def _is_primary(value: str) -> bool:
    member = json.loads(value)
    return bool(member.get("role") in ("primary", "master") and member.get("state") == "running")


def _streams(value: str) -> bool:
    member = json.loads(value)
    return bool(member.get("role") == "replica" and member.get("replication_state") == "streaming")
