"""The commands of docs/performance.md run and print their tables. What the figures are is not a test's business: machines differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.node import REPOSITORY

pytestmark = pytest.mark.real

TARGET_MISSED = 1  # an answer, too
CANNOT_RUN = 3  # no namespaces here


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("bootstrap", ("--rounds", "1"), "three nodes streaming"),
        ("failover", ("--rounds", "1", "--only", "switchover", "--without-patroni"), "switchover"),
        ("cost", ("--seconds", "2"), "resident"),
        ("throughput", ("--rounds", "1", "--seconds", "12"), "agents frozen"),
    ],
)
def test_a_benchmark_prints_its_table_and_keeps_its_figures(name: str, options: tuple[str, ...], expected: str, tmp_path: Path):
    kept = tmp_path / "figures.json"
    done = subprocess.run(
        [REPOSITORY / "scripts" / "bench", name, *options, "--json", str(kept)],
        env=os.environ | {"RIVHA_VENV": sys.prefix, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    if done.returncode == CANNOT_RUN:
        pytest.skip(done.stderr)
    assert done.returncode in (0, TARGET_MISSED), done.stdout + done.stderr
    assert expected in done.stdout
    assert json.loads(kept.read_text())


def test_the_health_benchmark_prints_its_table():
    done = subprocess.run(
        [REPOSITORY / "scripts" / "bench", "health", "rivha", "--seconds", "1"],
        env=os.environ | {"RIVHA_VENV": sys.prefix},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )

    assert "64 connections" in done.stdout


def test_an_unknown_benchmark_is_refused_in_words():
    done = subprocess.run([REPOSITORY / "scripts" / "bench", "speed"], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode != 0
    assert "bootstrap | failover | cost | health | throughput" in done.stderr
