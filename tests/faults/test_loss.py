"""The fault lab notices a loss on a real cluster: clients that wait for no standby lose what they were told, and it says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.faults import world
from tests.lab.node import REPOSITORY

pytestmark = [pytest.mark.real, pytest.mark.faults]

LAW_BROKEN = 1


def test_rows_that_clients_lose_by_their_own_carelessness_are_found() -> None:
    if why := world.missing():
        pytest.skip(f"no fault lab: {why}")
    argv = [sys.executable, "-m", "tests.faults", "--careless", "--mode", "quorum", "primary_cut_from_standbys_and_lost"]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(argv, cwd="/", env=env, capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == LAW_BROKEN, done.stdout + done.stderr
    assert " is missing, acknowledged at " in done.stderr
