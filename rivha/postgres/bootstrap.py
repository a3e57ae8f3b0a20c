"""Makes the first data directory of a cluster: initdb, start, users, the operator's own script.

It must never write into a directory that holds anything, and never leave a half-made one that looks whole: the marker stays until all is
done. Called by Server.bootstrap.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from collections.abc import Sequence
from urllib.parse import quote as url_quote

import asyncpg
import structlog

from rivha.errors import CommandFailed, RivhaError
from rivha.model import Data
from rivha.postgres import conf, files, roles, stopping
from rivha.postgres.command import clean_environment, run
from rivha.postgres.neighbours import refuse_taken_port
from rivha.postgres.parts import Parts
from rivha.postgres.starting import bring_up

log = structlog.get_logger(__name__)

INITDB_S = 600.0
POST_INIT_S = 3600.0
BLOCKED = ("pgdata", "pwfile", "nosync", "no-sync", "sync-only", "version", "waldir-only")
STOP_FAST_S = 30.0


async def bootstrap(parts: Parts) -> str:
    """The system identifier. On failure, cancellation included, the directory is moved aside and nothing of it runs."""
    found = await asyncio.to_thread(parts.data.look)
    if found.data is Data.UNFINISHED:
        await stopping.stop(parts, fast_s=0, quit_s=1.0)
        log.warning("moved an unfinished data directory aside", to=await asyncio.to_thread(parts.data.set_aside, "failed"))
    elif found.data is not Data.EMPTY:
        raise CommandFailed(found.problem or f"{parts.settings.data_dir} is not empty; a new cluster is only made in an empty directory")
    await asyncio.to_thread(refuse_taken_port, parts.settings)  # known before a directory is filled
    done = False
    try:
        parts.conf.steer(None)
        await _initdb(parts)
        await bring_up(parts, standby=False)
        await _settle(parts)
        await asyncio.to_thread(parts.data.unmark)
        done = True
    finally:
        if not done:
            await asyncio.shield(_give_up(parts))
    return (await parts.control()).system_id


async def _give_up(parts: Parts) -> None:
    with contextlib.suppress(RivhaError):
        await stopping.stop(parts, fast_s=0, quit_s=1.0)
        await asyncio.to_thread(parts.data.drop_staging)
        if await asyncio.to_thread(parts.data.holds_nothing):
            await asyncio.to_thread(parts.data.unmark)
            return
        where = await asyncio.to_thread(parts.data.set_aside, "failed")
        log.error("bootstrap failed", data_directory_is_now=where)


async def _initdb(parts: Parts) -> None:
    await asyncio.to_thread(parts.data.mark, "bootstrap")
    staging = await asyncio.to_thread(parts.data.prepare_staging)
    pwfile = await asyncio.to_thread(_password_file, parts)
    try:
        options = initdb_options(parts, pwfile)
        await parts.programs.run("initdb", "-D", staging, *options, timeout_s=INITDB_S, c_locale=False)
    finally:
        if pwfile is not None:
            await asyncio.shield(asyncio.to_thread(files.remove, pwfile))
    await asyncio.to_thread(parts.data.move_in)
    await asyncio.to_thread(_first_hba, parts)


def _password_file(parts: Parts) -> str | None:
    """The superuser's password for initdb, in a file beside the password file."""
    password = parts.settings.superuser.password
    if password is None:
        return None
    path = parts.conf.passfile + ".initdb"
    files.write(path, password + "\n")
    return path


def initdb_options(parts: Parts, pwfile: str | None) -> list[str]:
    """The operator's, and what Rivha needs: checksums unless they decided otherwise, passwords instead of trust."""
    given = [option.lstrip("-") for option in parts.settings.initdb]
    names = {option.split("=", 1)[0] for option in given}
    blocked = names.intersection(BLOCKED)
    if blocked:
        raise CommandFailed(f"bootstrap.initdb must not contain {', '.join(sorted(blocked))}; Rivha sets these itself")
    options = [f"--{option}" for option in given]
    if "username" not in names:
        options.append(f"--username={parts.settings.superuser.username}")
    if names.isdisjoint({"data-checksums", "no-data-checksums"}):
        options.append("--data-checksums")
    if pwfile is not None:
        options.append(f"--pwfile={pwfile}")
        if names.isdisjoint({"auth", "auth-local", "auth-host"}):
            options.append("--auth=scram-sha-256")
    return options


def _first_hba(parts: Parts) -> None:
    settings = parts.settings
    own: Sequence[str] | None = settings.bootstrap_pg_hba
    generated = parts.data.of("pg_hba.conf")
    lines = list(own) if own is not None else conf.default_hba(settings)
    if own is not None:
        with open(generated, encoding="utf-8") as file:
            lines += [line.rstrip("\n") for line in file if line.strip() and not line.startswith("#")]
    parts.conf.write_hba(lines)
    if settings.config_dir:
        _move_to_config_dir(parts)


def _move_to_config_dir(parts: Parts) -> None:
    for name in ("postgresql.conf", "pg_ident.conf"):
        source, target = parts.data.of(name), os.path.join(parts.settings.config_dir, name)
        if not os.path.exists(target) and os.path.exists(source):
            with open(source, encoding="utf-8") as file, open(target, "w", encoding="utf-8") as copy:
                copy.write(file.read())


async def _settle(parts: Parts) -> None:
    """Users, then the operator's script, then what both wrote is made durable by a checkpoint of the next stop."""
    file = await asyncio.to_thread(parts.postmaster.look)
    async with parts.link.session(file, fresh=True) as connection:
        try:
            await roles.create(connection, parts.settings)
        except asyncpg.PostgresError as e:
            raise CommandFailed(f"the users could not be created: {e}") from e
    if parts.settings.post_init:
        await _post_init(parts, parts.settings.post_init)


async def _post_init(parts: Parts, command: str) -> None:
    """`command URL`, with PGPASSFILE (REFERENCE 1.18); its failure is the bootstrap's."""
    file = await asyncio.to_thread(parts.postmaster.look)
    if file is None:
        raise CommandFailed("Postgres died before post_init")
    target = parts.link.local_conninfo(file)
    user, host = url_quote(str(target["user"]), safe=""), url_quote(str(target["host"]), safe="")
    url = f"postgres://{user}@{host}:{target['port']}/postgres"
    passfile = await asyncio.to_thread(parts.conf.write_passfile)
    env = clean_environment({"PGPASSFILE": passfile}, c_locale=False)
    await run([*shlex.split(command), url], name=f"post_init ({command})", timeout_s=POST_INIT_S, env=env)
