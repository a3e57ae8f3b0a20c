"""Leases and deadlines are counted while the machine is suspended, too (HAZARDS H 8), in a time namespace that was asleep for an hour."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.real  # the kernel's own clocks

REPOSITORY = Path(__file__).resolve().parents[2]
ASLEEP_S = 3600
USER = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
AS_IF_SUSPENDED = ["unshare", *USER, "--time", "--fork", "--boottime", str(ASLEEP_S)]  # CLOCK_MONOTONIC stays as it is


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.fixture(scope="module")
def suspended() -> list[str]:
    if shutil.which("unshare") is None:
        pytest.skip("no `unshare` here (util-linux): suspend cannot be imitated")
    trial = subprocess.run([*AS_IF_SUSPENDED, "true"], capture_output=True, text=True, timeout=30, check=False)
    if trial.returncode != 0:
        pytest.skip(f"no time namespace can be made here (Linux 5.6, root or user namespaces): {trial.stderr.strip()}")
    return AS_IF_SUSPENDED


@pytest.mark.parametrize(
    "code",
    [
        "from rivha.agent.main import boottime; print(boottime())",
        "from rivha.agent.guard import now_ns; print(now_ns() / 1e9)",
    ],
    ids=["the agent's", "the guard's"],
)
def test_a_suspend_counts(suspended: list[str], code: str):
    before = boottime()
    argv = [*suspended, sys.executable, "-P", "-c", code]
    told = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=60, check=True)

    assert before <= float(told.stdout) - ASLEEP_S <= boottime()
