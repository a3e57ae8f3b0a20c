"""Faults at random, into each other: `RIVHA_FAULTS_SEED=7 RIVHA_FAULTS_MINUTES=10 ./scripts/test faults -k random`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.faults import world
from tests.lab.node import REPOSITORY

pytestmark = [pytest.mark.real, pytest.mark.faults]

SEED = int(os.environ.get("RIVHA_FAULTS_SEED", "1"))
MINUTES = float(os.environ.get("RIVHA_FAULTS_MINUTES", "3"))
BEYOND_S = 600.0  # the cluster's making, and the way back after the last faults


def test_nothing_acknowledged_is_lost_by_random_faults() -> None:
    if why := world.missing():
        pytest.skip(f"no fault lab: {why}")
    argv = [sys.executable, "-m", "tests.faults", "--mode", "quorum", "--seed", str(SEED), "--minutes", str(MINUTES)]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        argv, cwd="/", env=env, capture_output=True, text=True, timeout=60 * MINUTES + BEYOND_S, check=False, stdin=subprocess.DEVNULL
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
