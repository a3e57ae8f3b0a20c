"""Keeps the configuration files of one node as they should be: what to write is decided in `conf`, how in `files`; here is when and where.

It holds the state that steers recovery: whom to stream from, whether the archive may be read, and for whom commits wait. After an agent's
restart it reads that back from the file: an agent that forgot the names that are in force would let commits through unreplicated. It must
never write into a directory that is not a valid one. Blocking: called off the loop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

from rivha.errors import CommandFailed
from rivha.model import Upstream
from rivha.postgres import conf, conninfo, files
from rivha.postgres.controldata import ControlData
from rivha.postgres.settings import PostgresSettings, slot_name


class ConfFiles:
    def __init__(self, settings: PostgresSettings) -> None:
        self.settings = settings
        self.dynamic: Mapping[str, object] = {}
        self.upstream: Upstream | None = None
        self.frozen = False  # stream from nobody and read no archive: a pledge is out, or a promotion under way
        self.names: str | None = None  # synchronous_standby_names; None: the file does not say, and nobody else has yet
        self._folder = settings.config_dir or settings.data_dir
        self.unusable: frozenset[str] = frozenset()  # settings that this Postgres does not know or take; see `validate`
        self._read_back = False
        self._writing = threading.Lock()

    def _of(self, name: str) -> str:
        return os.path.join(self._folder, name)

    # ---- the password file

    @property
    def passfile(self) -> str:
        return self.settings.pgpass or self.settings.data_dir.rstrip("/") + ".pgpass"

    def write_passfile(self) -> str:
        """Its path. Raises CommandFailed."""
        s = self.settings
        if os.path.abspath(self.passfile).startswith(s.data_dir.rstrip("/") + "/"):
            raise CommandFailed(f"postgresql.pgpass {self.passfile} lies in the data directory: pg_rewind would remove it; move it")
        files.write(self.passfile, conninfo.pgpass((s.replication, s.rewind_user, s.superuser)))
        return self.passfile

    # ---- recovery

    @property
    def use_slots(self) -> bool:
        postgresql = self.dynamic.get("postgresql")
        return not isinstance(postgresql, Mapping) or postgresql.get("use_slots", True) is not False

    def primary_conninfo(self) -> str:
        """ "" when there is nobody to stream from."""
        if self.upstream is None or self.frozen:
            return ""
        return conninfo.to_upstream(self.settings, self.upstream, self.settings.replication, self.passfile)

    def recovery(self, *, standby: bool) -> dict[str, str]:
        """The settings that decide about recovery. A primary keeps its restore_command for the day it is a standby."""
        wanted = conf.recovery(self.settings, self.dynamic)
        if self.frozen:
            wanted["restore_command"] = ""
        if not standby:
            return wanted
        return {
            "primary_conninfo": self.primary_conninfo(),
            "primary_slot_name": slot_name(self.settings.name) if self.use_slots and self.primary_conninfo() else "",
            "recovery_target_timeline": "latest",
            **wanted,
        }

    def restore_command(self) -> str:
        return conf.recovery(self.settings, self.dynamic).get("restore_command", "")

    def read_back(self) -> None:
        """After a restart of the agent: whom this Postgres was told to follow and to wait for. Once; later the state here is newer."""
        if self._read_back:
            return
        said = conf.read_conf(files.read(self._of("postgresql.conf")) or "")
        if self._read_back:  # steered meanwhile
            return
        self._read_back = True
        facts = conninfo.parse(said.get("primary_conninfo", ""))
        if facts.get("host") and facts.get("port", "").isdigit():
            self.upstream = Upstream("", facts["host"], int(facts["port"]))
        self.frozen = said.get("restore_command") == "" and not facts
        self.names = said.get(conf.NAMES)

    def steer(self, upstream: Upstream | None, *, frozen: bool = False, names: str | None = "") -> None:
        """`names`: of a primary, or of who is about to be one; a standby that kept any would hang at its next promotion (HAZARDS C 43)."""
        self._read_back = True
        self.upstream, self.frozen, self.names = upstream, frozen, names

    def name(self, names: str) -> None:
        """The names that commits wait for from the next `write` on."""
        self.names = names

    # ---- the files

    def write(self, *, standby: bool) -> bool:
        """Makes all files what they should be; True when one changed. Raises CommandFailed, nothing being half-written.

        One thread at a time, or an older text could replace a newer one: a tick's, still naming an upstream, that of a freeze.
        """
        with self._writing:
            return self._write(standby=standby)

    def _write(self, *, standby: bool) -> bool:
        try:
            self.read_back()
            self._keep_original()
            changed = [
                files.write(self._of("postgresql.conf"), self._postgresql_conf(standby=standby)),
                self._write_list("pg_hba.conf", self.settings.pg_hba, "pg_hba"),
                self._write_list("pg_ident.conf", self.settings.pg_ident, "pg_ident"),
            ]
            self.write_passfile()
        except OSError as e:
            raise CommandFailed(f"cannot write the configuration in {self._folder}: {e.strerror or e}") from e
        return any(changed)

    def _postgresql_conf(self, *, standby: bool) -> str:
        include = self.settings.custom_conf or conf.BASE
        shown = {k: v for k, v in self.parameters().items() if k not in self.unusable}
        names = {conf.NAMES: self.names or ""}  # said even when empty, or what stands in the included file would be in force
        return conf.postgresql_conf(include, dict(sorted(shown.items())), names, self.recovery(standby=standby))

    def parameters(self) -> dict[str, str]:
        return {**conf.forced(self.settings, self.dynamic), **conf.parameters(self.settings, self.dynamic)}

    def socket_folders(self) -> list[str]:
        """Where sockets are made, as far as these files say; else where PostgreSQL's and Debian's programs make them."""
        said = self.parameters().get("unix_socket_directories")
        return [folder.strip() for folder in said.split(",")] if said is not None else ["/tmp", "/var/run/postgresql"]  # noqa: S108

    def _write_list(self, name: str, own: object, key: str) -> bool:
        """The node's own lines, else the cluster's; what lies there stays when neither says anything."""
        postgresql = self.dynamic.get("postgresql")
        lines = own if own is not None else postgresql.get(key) if isinstance(postgresql, Mapping) else None
        if not isinstance(lines, (list, tuple)):
            return False
        return files.write(self._of(name), conf.hba(str(line) for line in lines))

    def write_hba(self, lines: list[str]) -> None:
        files.write(self._of("pg_hba.conf"), conf.hba(lines))

    def _keep_original(self) -> None:
        """What was there before Rivha is included, not lost."""
        base, current = self._of(conf.BASE), files.read(self._of("postgresql.conf"))
        if not os.path.exists(base):
            files.write(base, "" if current is None or current.startswith(conf.HEADER) else current)

    def sanitise(self, root: str | None = None) -> bool:
        """Takes what Rivha alone says out of postgresql.auto.conf, which would win over it."""
        path = os.path.join(root or self.settings.data_dir, "postgresql.auto.conf")
        text = files.read(path)
        return text is not None and files.write(path, conf.without_ours(text))

    def write_draft(self, given: Mapping[str, str]) -> str:
        """A file with just these settings, for Postgres to try; its path."""
        path = self._of(".rivha-draft.conf")
        files.write(path, "".join(f"{name} = {conf.quote(value)}\n" for name, value in given.items()))
        return path

    # ---- the command line

    def forced(self, control: ControlData | None) -> dict[str, str]:
        return conf.forced(self.settings, self.dynamic, control.sizes if control else None)

    def arguments(self, control: ControlData | None) -> list[str]:
        """The postmaster's. `control`: of a standby, whose sizes must not be smaller than its primary's were."""
        return ["-D", self.settings.data_dir, *self.file_arguments(), *(f"--{k}={v}" for k, v in self.forced(control).items())]

    def file_arguments(self) -> list[str]:
        if not self.settings.config_dir:
            return []
        names = (("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf"))
        return [f"--{guc}={self._of(name)}" for guc, name in names]
