"""The newest Patroni from PyPI, as the agent of a fault lab: the same hosts, the same Postgres, the same HAProxy file.

It is fetched into a folder of its own below the cache (`fetch`), because inside a lab's world there is no way out to PyPI.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.faults.servers import Database
from tests.lab.binaries import NotFoundError, cache_folder
from tests.lab.processes import Process

WANTED = ("patroni[etcd3]", "psycopg2-binary")
FETCH_S = 600.0

# Patroni's own (docs: ttl 30, loop_wait 10, retry_timeout 10), and the shortest that it lets one set.
DEFAULTS: Mapping[str, object] = {"ttl": 30, "loop_wait": 10, "retry_timeout": 10}
FASTEST: Mapping[str, object] = {"ttl": 20, "loop_wait": 2, "retry_timeout": 3}


def folder() -> Path:
    return cache_folder() / "patroni"


def fetch() -> str:
    """The newest Patroni, fetched unless it lies there already; its version. Raises NotFoundError with pip's words."""
    newest = _newest()
    if newest and version() == newest:
        return newest
    fresh = folder().with_name("patroni-new")
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(fresh), *WANTED]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=FETCH_S, check=False)
    if done.returncode and not version():
        raise NotFoundError(f"Patroni cannot be had from PyPI:\n{done.stderr.strip()[-800:]}")
    if not done.returncode:
        subprocess.run(["rm", "-rf", str(folder())], check=True, timeout=60)
        fresh.rename(folder())
        subprocess.run(["chmod", "-R", "a+rX", str(folder())], check=True, timeout=60)
    return version()


def _newest() -> str:
    """What PyPI has; "" when it does not answer."""
    argv = [sys.executable, "-m", "pip", "index", "versions", "patroni"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.partition("(")[2].partition(")")[0]


def version() -> str:
    """Of what lies in the cache; "" when nothing does."""
    found = sorted(folder().glob("patroni-*.dist-info"))
    return found[0].name.removeprefix("patroni-").removesuffix(".dist-info") if found else ""


class PatroniDatabase(Database):
    """Its configuration is the one that Rivha gets, in what both understand."""

    def _agent_process(self) -> Process:
        return self.host.service("agent", [sys.executable, "-m", "patroni", str(self.config)], env={"PYTHONPATH": str(folder())})

    def write_config(self, **changes: object) -> None:
        super().write_config(**changes)
        settings = yaml.safe_load(self.config.read_text())
        settings["log"] = {"level": "INFO"}  # its JSON needs another package
        self.config.write_text(yaml.safe_dump(settings, sort_keys=False))
