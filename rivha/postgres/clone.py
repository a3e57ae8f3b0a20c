"""Fills an empty data directory with a copy of another node's: pg_basebackup, or the operator's own programs in their order.

It must never write into a directory that holds anything, and never leave a half copy that looks whole. Called by Server.clone.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Mapping

import structlog

from rivha.errors import CommandFailed
from rivha.model import Data, Upstream
from rivha.postgres import conf, conninfo, files
from rivha.postgres.command import clean_environment, run
from rivha.postgres.parts import Parts
from rivha.postgres.settings import slot_name

log = structlog.get_logger(__name__)

LONGEST_S = 7 * 24 * 3600.0  # as long as the data is large; the agent cancels it when its source is gone
REPORT_EVERY_S = 5.0
# pg_basebackup streams WAL too, and reports what it has flushed: under the member's own name it would acknowledge commits, and look like a
# standby that streams, while all that it holds may yet be thrown away.
ANOTHER_NAME = "clone:"
BLOCKED = (
    *("pgdata", "format", "wal-method", "slot", "create-slot", "no-slot"),
    *("dbname", "host", "port", "username", "no-password", "password"),
)
OURS = ("command", "no_params", "no_leader", "keep_data", "no_master")


async def clone(parts: Parts, source: Upstream) -> None:
    """By the first method that works. Raises CommandFailed with what each of them said."""
    found = await asyncio.to_thread(parts.data.look)
    if found.data is Data.UNFINISHED:
        await parts.postmaster.kill_all()
        log.warning("moved an unfinished data directory aside", to=await asyncio.to_thread(parts.data.set_aside, "unfinished"))
    elif found.data is not Data.EMPTY:
        raise CommandFailed(found.problem or f"{parts.settings.data_dir} is not empty; a clone is only made in an empty directory")
    passfile = await asyncio.to_thread(parts.conf.write_passfile)
    said = []
    for method in parts.settings.create_replica_methods:
        section = parts.settings.replica_methods.get(method)
        try:
            if method == "basebackup":
                await _basebackup(parts, source, passfile, section)
            else:
                await _custom(parts, source, passfile, method, section)
        except CommandFailed as e:
            said.append(f"{method}: {e}")
            if len(parts.settings.create_replica_methods) > 1:
                log.warning("a clone method failed", method=method, source=source.name, error=str(e))
            continue
        await asyncio.to_thread(_finish, parts)
        return
    raise CommandFailed(f"no way to clone from {source.name} ({source.address}) worked", "\n".join(said))


def _finish(parts: Parts) -> None:
    """It becomes a standby's directory, durably, and only then loses its marker."""
    try:
        parts.data.clean_copy(parts.settings.data_dir)
        parts.conf.sanitise()
        files.sync_folder(parts.settings.data_dir)
    except OSError as e:
        raise CommandFailed(f"cannot clean {parts.settings.data_dir}: {e.strerror or e}") from e
    parts.data.set_standby(True)
    parts.data.unmark()


def _target(parts: Parts, source: Upstream, passfile: str) -> str:
    settings = parts.settings
    return conninfo.to_upstream(settings, source, settings.replication, passfile, application_name=ANOTHER_NAME + settings.name)


# ---- pg_basebackup


async def _basebackup(parts: Parts, source: Upstream, passfile: str, section: object) -> None:
    """With the member's slot, if the source has one by now, so that no WAL is missing between the copy and the first streaming."""
    options = basebackup_options(section)
    slot = slot_name(parts.settings.name) if parts.conf.use_slots else None
    try:
        await _one_basebackup(parts, source, passfile, [*options, *([f"--slot={slot}"] if slot else [])])
    except CommandFailed as e:
        if slot is None or "replication slot" not in e.output:
            raise
        await _one_basebackup(parts, source, passfile, options)  # with a temporary slot of its own


async def _one_basebackup(parts: Parts, source: Upstream, passfile: str, options: list[str]) -> None:
    staging = await asyncio.to_thread(parts.data.prepare_staging)
    target = _target(parts, source, passfile)
    progress = Progress(parts, source)
    arguments = ["-D", staging, "--dbname", target, "--wal-method=stream", "--progress", "--no-password", *options]
    try:
        await parts.programs.run("pg_basebackup", *arguments, timeout_s=LONGEST_S, on_line=progress.line)
        await asyncio.to_thread(parts.data.mark, "clone")
        await asyncio.to_thread(parts.data.move_in)
    finally:
        await asyncio.shield(asyncio.to_thread(parts.data.drop_staging))


class Progress:
    """pg_basebackup's own progress lines, into the log every few seconds."""

    def __init__(self, parts: Parts, source: Upstream) -> None:
        self._parts, self._source = parts, source
        self._last = parts.clock()

    def line(self, text: str) -> None:
        now = self._parts.clock()
        if "kB (" in text and now - self._last >= REPORT_EVERY_S:
            self._last = now
            log.info("cloning", source=self._source.name, progress=text.strip())


def basebackup_options(section: object) -> list[str]:
    """Patroni's forms: a list of options and one-key mappings, or a mapping. What would break the clone is left out, and said."""
    items: list[tuple[str, object]] = []
    for entry in section if isinstance(section, (list, tuple)) else [section] if section else []:
        items += list(entry.items()) if isinstance(entry, Mapping) else [(str(entry), None)]
    options = []
    for key, value in items:
        name = str(key).lstrip("-").replace("_", "-")
        if name in BLOCKED or name in "DdFXSChpUwW":
            log.warning("an option of basebackup is not allowed and left out", option=name)
        elif value is not False:
            options.append(f"--{name}" if value in (None, True, "") else f"--{name}={value}")
    if not any(option.startswith("--checkpoint") for option in options):
        options.append("--checkpoint=fast")
    return options


# ---- the operator's own programs


async def _custom(parts: Parts, source: Upstream, passfile: str, method: str, section: object) -> None:
    """`command --scope= --datadir= --role= --connstring=` and every other key as --key=value (REFERENCE 1.18)."""
    if not isinstance(section, Mapping) or not section.get("command"):
        raise CommandFailed(f"postgresql.{method} has no command")
    settings = parts.settings
    target = _target(parts, source, passfile)
    arguments = shlex.split(str(section["command"]))
    if not section.get("no_params"):
        known = {"scope": settings.scope, "datadir": settings.data_dir, "role": "replica", "connstring": target}
        extra = {str(k): v for k, v in section.items() if k not in OURS}
        arguments += [f"--{key}={conf.value(value)}" for key, value in {**known, **extra}.items()]
    await asyncio.to_thread(parts.data.mark, "clone", beside=True)  # these programs want the directory empty
    env = clean_environment({"PGPASSFILE": passfile}, c_locale=False)
    try:
        await run(arguments, name=method, timeout_s=LONGEST_S, env=env)
    except CommandFailed:
        if not section.get("keep_data"):
            await asyncio.to_thread(_put_away, parts)
        raise
    if not await asyncio.to_thread(os.path.exists, parts.data.of("global/pg_control")):
        raise CommandFailed(f"{method} ended well, but left no data directory in {settings.data_dir}")


def _put_away(parts: Parts) -> None:
    """The next method finds an empty directory."""
    if os.path.isdir(parts.settings.data_dir) and os.listdir(parts.settings.data_dir):
        parts.data.set_aside("unfinished")
    else:
        parts.data.unmark()
