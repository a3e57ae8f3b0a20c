"""What the verbs share: one object per concern, wired once by the Server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rivha.errors import CommandFailed
from rivha.model import Data
from rivha.postgres import controldata
from rivha.postgres.command import Programs
from rivha.postgres.conffiles import ConfFiles
from rivha.postgres.controldata import ControlData
from rivha.postgres.datadir import DataDir
from rivha.postgres.link import Link
from rivha.postgres.process import Postmaster
from rivha.postgres.settings import PostgresSettings


@dataclass(frozen=True, slots=True)
class Parts:
    settings: PostgresSettings
    clock: Callable[[], float]
    programs: Programs
    data: DataDir
    postmaster: Postmaster
    conf: ConfFiles
    link: Link

    @classmethod
    def of(cls, settings: PostgresSettings, clock: Callable[[], float]) -> Parts:
        return cls(
            settings,
            clock,
            Programs(settings),
            DataDir(settings.data_dir),
            Postmaster(settings.data_dir),
            ConfFiles(settings),
            Link(settings),
        )

    def with_settings(self, settings: PostgresSettings) -> Parts:
        """The same Postgres under new settings; what is known of it stays."""
        self.conf.settings = settings
        return replace(self, settings=settings, programs=Programs(settings), link=Link(settings))

    async def control(self, data_dir: str | None = None) -> ControlData:
        """What the control file says now. Raises CommandFailed."""
        return controldata.parse(await self.programs.run("pg_controldata", data_dir or self.settings.data_dir, timeout_s=10))


def refuse_unless_valid(found: Data, problem: str) -> None:
    if found is not Data.VALID:
        raise CommandFailed(problem or "the data directory is empty")
