"""The dynamic configuration in force: etcd's `config` under the node's own file, and the Policy made of it.

It survives what etcd may do: a key that vanishes or does not parse changes nothing, and the last known configuration is kept in the
data directory (`patroni.dynamic.json`, REFERENCE 1.18) for an agent that starts while etcd is silent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import structlog

from rivha import config as configuration
from rivha.config import Config
from rivha.model import Policy
from rivha.postgres import files
from rivha.postgres.base import Postgres

log = structlog.get_logger(__name__)

CACHE = "patroni.dynamic.json"


class Dynamic:
    def __init__(self, config: Config, postgres: Postgres) -> None:
        self.config = config
        self._postgres = postgres
        self._cache = Path(config.postgres.data_dir) / CACHE
        self._from_dcs: Mapping[str, object] | None = _cached(self._cache)
        self._complaints: tuple[str, ...] = ()
        self.effective: Mapping[str, object] = {}
        self.policy = Policy()
        self.recompute()

    @property
    def shared(self) -> dict[str, object]:
        """What etcd's `config` is, was last, or is to become."""
        return dict(self._from_dcs if self._from_dcs is not None else self.config.bootstrap_dcs)

    def recompute(self) -> None:
        """After a change of etcd's configuration or of the file."""
        self.effective = configuration.dynamic(self.config, self._from_dcs)
        self.policy = configuration.policy(self.effective, self.policy)
        complaints = configuration.complaints(self.effective)
        if complaints != self._complaints:
            for complaint in complaints:
                log.warning("dynamic configuration", problem=complaint)
        self._complaints = complaints

    def heard(self, from_dcs: Mapping[str, object] | None) -> None:
        """What this tick's reading of etcd showed; None (no key, or not readable) changes nothing (HAZARDS A 16)."""
        if from_dcs is not None and from_dcs is not self._from_dcs:
            changed = from_dcs != self._from_dcs
            self._from_dcs = from_dcs
            if changed:
                self.recompute()

    async def apply(self, *, reload: bool = True) -> Mapping[str, object]:
        """Puts it in force in Postgres's files, and keeps a copy beside them. Answers etcd's part of it."""
        await self._postgres.configure(self.effective, reload=reload)
        await asyncio.to_thread(self._keep)
        return self.shared

    def _keep(self) -> None:
        """Only where there is a data directory to keep it in: nothing is made that initdb or a clone would trip over."""
        if self._cache.parent.joinpath("PG_VERSION").exists():
            files.write(str(self._cache), json.dumps(self.shared, default=str))


def _cached(path: Path) -> Mapping[str, object] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
