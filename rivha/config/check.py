"""`rivha --validate-config`: what can be found out on this machine without starting anything. Called by `rivha.__main__` only.

Looks and never writes; runs one program, `postgres --version`. What is wrong in the file itself was said by `rivha.config.load`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import ssl
import stat
import subprocess
from collections.abc import Iterator, Mapping

from rivha.config import Config
from rivha.config.judge import shut_out
from rivha.config.shared import judged, rule_broken

PROGRAMS = ("postgres", "pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind", "pg_waldump")
OLDEST = 14  # PostgreSQL; older ones cannot change primary_conninfo and restore_command by a reload
VERSION_S = 5.0


def check(config: Config) -> list[str]:
    """Every mistake that this machine or the file as a whole shows."""
    return [
        *timing(config),
        *replication_access(config),
        *programs(config),
        *data_directory(config),
        *other_places(config),
        *certificates(config),
        *commands(config),
    ]


def timing(config: Config) -> Iterator[str]:
    broken = rule_broken(judged(config.bootstrap_dcs)[0])
    if broken:
        yield f"bootstrap.dcs.{broken}"


def replication_access(config: Config) -> Iterator[str]:
    pg = config.postgres
    lists = {
        "postgresql.pg_hba": pg.pg_hba,
        "bootstrap.dcs.postgresql.pg_hba": judged(config.bootstrap_dcs)[0].postgresql.pg_hba,
        "bootstrap.pg_hba": pg.bootstrap_pg_hba,
    }
    yield from shut_out(lists, pg.replication.username)


# ---- programs


def programs(config: Config) -> Iterator[str]:
    pg = config.postgres
    if pg.bin_dir and not os.path.isdir(pg.bin_dir):
        yield f"postgresql.bin_dir: {pg.bin_dir} is no directory; PostgreSQL's programs could not be started"
        return
    where = f"in {pg.bin_dir}" if pg.bin_dir else "in PATH"
    for name in PROGRAMS:
        if located(config, name) is None:
            yield f"postgresql.bin_dir: {pg.bin_names.get(name, name)} is not {where}; install PostgreSQL, or name its directory"
    yield from versions(config)


def located(config: Config, name: str) -> str | None:
    wanted = config.postgres.bin_names.get(name, name)
    return shutil.which(os.path.join(config.postgres.bin_dir, wanted) if config.postgres.bin_dir else wanted)


def versions(config: Config) -> Iterator[str]:
    """The server's own version, and the version that made the data."""
    server = located(config, "postgres")
    if server is None:
        return
    try:
        answer = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=VERSION_S, check=False, env={"LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired) as error:
        yield f"postgresql.bin_dir: {server} does not run: {error}"
        return
    found = re.search(r"\(PostgreSQL\)\D*(\d+)", answer.stdout)
    if found is None:
        yield f"postgresql.bin_dir: {server} --version answers {answer.stdout.strip()[:60]!r}, which is not PostgreSQL's"
        return
    major = int(found[1])
    if major < OLDEST:
        yield f"postgresql.bin_dir: {server} is PostgreSQL {major}; Rivha needs {OLDEST} or newer"
    made_by = first_line(os.path.join(config.postgres.data_dir, "PG_VERSION"))
    if made_by is not None and made_by != str(major):
        yield f"postgresql.bin_dir: holds PostgreSQL {major}, but {config.postgres.data_dir} was made by {made_by}; it would not start"


def first_line(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return None


# ---- places


def data_directory(config: Config) -> Iterator[str]:
    path = config.postgres.data_dir
    try:
        found = os.stat(path)
    except FileNotFoundError:
        parent = nearest(path)
        if not os.access(parent, os.W_OK | os.X_OK):
            yield f"postgresql.data_dir: {path} cannot be made: {parent} is not writable for this user"
        return
    except OSError as error:
        yield f"postgresql.data_dir: {path} cannot be looked at: {error.strerror}"
        return
    if not stat.S_ISDIR(found.st_mode):
        yield f"postgresql.data_dir: {path} is no directory"
        return
    if os.geteuid() not in (0, found.st_uid):
        yield f"postgresql.data_dir: {path} belongs to another user (uid {found.st_uid}); PostgreSQL refuses it"
        return
    yield from contents(path, stat.S_IMODE(found.st_mode))


def contents(path: str, mode: int) -> Iterator[str]:
    try:
        names = {name for name in os.listdir(path) if name != "lost+found" and not name.startswith(".")}
    except OSError as error:
        yield f"postgresql.data_dir: {path} cannot be read: {error.strerror}"
        return
    if not names:
        return
    if not {"PG_VERSION", "global"} <= names:
        yield f"postgresql.data_dir: {path} holds files but no database; Rivha never writes into it, empty it or name another"
    elif mode & 0o027:
        yield f"postgresql.data_dir: {path} has the mode {mode:04o}; PostgreSQL wants 0700 or 0750"


def nearest(path: str) -> str:
    """The innermost parent that exists."""
    parent = os.path.dirname(path)
    while not os.path.exists(parent) and parent != os.path.dirname(parent):
        parent = os.path.dirname(parent)
    return parent or "/"


def other_places(config: Config) -> Iterator[str]:
    pg = config.postgres
    if pg.config_dir and not os.access(pg.config_dir, os.W_OK | os.X_OK):
        yield f"postgresql.config_dir: {pg.config_dir} is not a directory that this user may write; postgresql.conf goes there"
    if pg.pgpass and not os.access(nearest(pg.pgpass), os.W_OK | os.X_OK):
        yield f"postgresql.pgpass: {nearest(pg.pgpass)} is not writable for this user; Rivha writes the password file there"
    if config.log.dir and not (os.path.isdir(config.log.dir) and os.access(config.log.dir, os.W_OK | os.X_OK)):
        yield f"log.dir: {config.log.dir} is not a directory that this user may write; nothing would be logged"
    for directory in str(pg.parameters.get("unix_socket_directories", "")).split(","):
        place = directory.strip()
        if os.path.isabs(place) and not os.access(place, os.W_OK | os.X_OK):
            yield f"postgresql.parameters.unix_socket_directories: {place} is not writable for this user; PostgreSQL would not start"


# ---- certificates and commands


def certificates(config: Config) -> Iterator[str]:
    api, etcd = config.restapi, config.etcd
    yield from pair("restapi", "certfile", api.certfile, "keyfile", api.keyfile, api.keyfile_password)
    yield from authority("restapi.cafile", api.cafile)
    yield from pair("etcd3", "cert", etcd.cert, "key", etcd.key, None)
    yield from authority("etcd3.cacert", etcd.cacert)
    yield from pair("ctl", "certfile", config.ctl.certfile, "keyfile", config.ctl.keyfile, config.ctl.keyfile_password)


def pair(section: str, cert_name: str, cert: str | None, key_name: str, key: str | None, password: str | None) -> Iterator[str]:
    named = {cert_name: cert, key_name: key}
    unreadable = [
        f"{section}.{name}: {path} cannot be read; TLS would not work" for name, path in named.items() if path and not legible(path)
    ]
    yield from unreadable
    if cert is None or unreadable:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password or "")
    except (ssl.SSLError, OSError, ValueError) as error:
        yield f"{section}.{cert_name}: {cert} and its key do not fit together or are no PEM files ({error})"


def authority(name: str, path: str | None) -> Iterator[str]:
    if path is None:
        return
    if not legible(path):
        yield f"{name}: {path} cannot be read; nobody could be verified"
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        yield f"{name}: {path} holds no certificates in PEM form ({error})"


def legible(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)


def commands(config: Config) -> Iterator[str]:
    """A script that is not there fails silently until the day it is needed."""
    lines = {f"postgresql.callbacks.{name}": line for name, line in config.callbacks.items()}
    if config.postgres.post_init:
        lines["bootstrap.post_init"] = config.postgres.post_init
    for method, section in config.postgres.replica_methods.items():
        if isinstance(section, Mapping) and isinstance(section.get("command"), str):
            lines[f"postgresql.{method}.command"] = section["command"]
    for name, line in lines.items():
        program = (shlex.split(line) or [""])[0]
        if shutil.which(program) is None:
            yield f"{name}: {program} cannot be run (not found, or not executable for this user)"
