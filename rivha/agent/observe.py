"""I/O -> View: one read of etcd and one look at Postgres, side by side, each with its own deadline. Silence becomes a value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from rivha.dcs import records
from rivha.dcs.base import Dcs
from rivha.errors import DcsUnavailable
from rivha.model import Cluster, PostgresStatus
from rivha.postgres.base import Postgres

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look showed, and when it began."""

    cluster: Cluster | None
    at: float
    postgres: PostgresStatus
    dcs_error: str = ""
    unrenewed_s: float | None = None  # of the lease that was asked about, if it still carries the leader key; None: nothing is known


@dataclass(slots=True)
class Observer:
    dcs: Dcs
    postgres: Postgres
    clock: Callable[[], float]
    last_cluster: Cluster | None = None
    last_cluster_at: float | None = None
    _complaints: tuple[str, ...] = field(default=(), init=False)
    _silent: bool = field(default=False, init=False)

    async def look(self, budget_s: float, lease_id: int | None = None) -> Seen:
        """Takes `budget_s` seconds at the most, and never raises for what is out there. `lease_id`: whether it is renewed is asked, too."""
        at = self.clock()
        looks = self._read(budget_s), self.postgres.status(budget_s), self._unrenewed_s(lease_id, budget_s)
        (cluster, error), status, unrenewed_s = await asyncio.gather(*looks)
        if cluster is not None and cluster.leader is not None and cluster.leader.lease_id != lease_id:
            unrenewed_s = None  # the leadership, or its lease, is another by now: what was asked says nothing of it
        if cluster is not None:
            self.last_cluster, self.last_cluster_at = cluster, at
        self._tell(cluster, error)
        return Seen(cluster, at, status, error, unrenewed_s)

    async def _unrenewed_s(self, lease_id: int | None, budget_s: float) -> float | None:
        if lease_id is None:
            return None
        try:
            return await self.dcs.unrenewed_s(lease_id, budget_s)
        except DcsUnavailable:
            return None

    async def _read(self, budget_s: float) -> tuple[Cluster | None, str]:
        try:
            reading = await self.dcs.read(budget_s)
        except DcsUnavailable as error:
            return None, str(error)
        return records.cluster(reading), ""  # parsed once: not by its revision alone, an etcd restored from a backup counts anew

    def _tell(self, cluster: Cluster | None, error: str) -> None:
        """Changes only."""
        if (cluster is None) != self._silent:
            self._silent = cluster is None
            if self._silent:
                log.warning("etcd does not answer; is it up, and is etcd3.hosts right?", error=error)
            else:
                log.info("etcd answers", revision=cluster.revision if cluster else 0)
        if cluster is not None and cluster.complaints != self._complaints:
            self._complaints = cluster.complaints
            for complaint in cluster.complaints:
                log.error("etcd holds what cannot be read", key=complaint)
