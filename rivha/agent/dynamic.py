"""The dynamic configuration in force: etcd's `config` under the node's own file, and the Policy made of it.

It survives what etcd may do: a key that vanishes or does not parse changes nothing, and the last known configuration is kept in the
data directory (`patroni.dynamic.json`, REFERENCE 1.18) for an agent that starts while etcd is silent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog

from rivha.config import shared
from rivha.config.parameters import kept
from rivha.model import Policy
from rivha.postgres import files
from rivha.postgres.base import Postgres

log = structlog.get_logger(__name__)

CACHE = "patroni.dynamic.json"


class Dynamic:
    """`local`: the node's own `postgresql` section; `bootstrap`: bootstrap.dcs; `cached`: the last known configuration, if any."""

    def __init__(
        self,
        local: Mapping[str, object],
        bootstrap: Mapping[str, object],
        postgres: Postgres,
        cached: Mapping[str, object] | None,
        keep: Callable[[str], Awaitable[None]],
    ) -> None:
        self.local, self.bootstrap = local, bootstrap
        self._postgres, self._keep = postgres, keep
        self._from_dcs = cached
        self._complaints: tuple[str, ...] = ()
        self.effective: Mapping[str, object] = {}
        self.policy = Policy()
        self.recompute()
        postgres.assume(self.effective)  # a primary started with other sizes than its standbys' would stop their replay (HAZARDS D 66)

    @property
    def shared(self) -> dict[str, object]:
        """What etcd's `config` is, was last, or is to become."""
        return dict(self._from_dcs if self._from_dcs is not None else self.bootstrap)

    def recompute(self) -> None:
        """After a change of etcd's configuration or of the file."""
        given = shared.effective(self.local, self.shared)
        self.effective = kept(given, self.effective)
        self.policy = shared.policy(given, self.policy)
        complaints = shared.complaints(given)
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

    async def apply_first(self) -> None:
        """Before this node makes the cluster. A `config` that an operator has put into etcd already stays as it is."""
        if self._from_dcs is None:
            self._from_dcs = shared.first(self.bootstrap)
            self.recompute()
        await self.apply(reload=False)

    async def apply(self, *, reload: bool = True) -> Mapping[str, object]:
        """Puts it in force in Postgres's files, and keeps a copy beside them. Answers etcd's part of it."""
        await self._postgres.configure(self.effective, reload=reload)
        await self._keep(json.dumps(self.shared, default=str))
        return self.shared


class Cache:
    """`patroni.dynamic.json` in the data directory."""

    def __init__(self, data_dir: str) -> None:
        self._path = Path(data_dir) / CACHE

    def read(self) -> Mapping[str, object] | None:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    async def keep(self, text: str) -> None:
        await asyncio.to_thread(self._write, text)

    def _write(self, text: str) -> None:
        """Only where there is a data directory to keep it in: nothing is made that initdb or a clone would trip over."""
        if self._path.with_name("PG_VERSION").exists():
            files.write(str(self._path), text)
