"""Every command in README.md and docs/ is run by a test: here, or where COVERED says. A new one fails until somebody covers it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rivha.agent.brain.leading import FAST_STOP_S
from rivha.agent.perform import CHECKPOINT_WHEN_ENDING_S
from rivha.model import Policy
from rivha.postgres.callbacks import LAST_WORD_S

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What a `$ ` line in a console block begins with -> the test that runs it.
COVERED = {
    "./scripts/demo": "tests/cluster/test_demo.py",
    "./scripts/test": ".ci/run",
    "python3 -m venv /opt/rivha": "tests/docs/test_commands.py",
    "/opt/rivha/bin/pip install .": "tests/docs/test_commands.py",
    "install -m 644 docs/rivha.service": "tests/docs/test_commands.py",
    "systemctl enable": "tests/docs/test_commands.py",  # as a check of the unit: there is no systemd where the tests run
    "./scripts/bench": "tests/cluster/test_benchmarks.py",
    "./scripts/sim": "tests/sim/test_stories.py",
    "python3 docs/model/takeover.py": "tests/docs/test_model.py",
}


def shown() -> list[tuple[str, str]]:
    blocks = [(p, block) for p in PAGES for block in re.findall(r"```console\n(.*?)```", p.read_text(), re.DOTALL)]
    return [(str(p.relative_to(ROOT)), line[2:]) for p, block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize(("page", "command"), shown())
def test_every_command_that_a_page_shows_is_run_by_a_test(page: str, command: str):
    test = next((test for start, test in COVERED.items() if command.startswith(start)), None)

    assert test is not None, f"{page}: no test runs `{command}`"
    assert (ROOT / test).exists()


def test_the_example_configuration_of_the_docs_loads():
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "rivha", "--validate-config", str(ROOT / "docs" / "example.yml")],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # The example names paths of a real node, which are not here; what it says must be about them, not about the file.
    told = [line for line in done.stderr.splitlines() if line.startswith("mistake:")]
    assert all(re.search(r"bin_dir|data_dir|pgpass|cert|key|log\.dir|exist|writ", line) for line in told), done.stderr


def test_systemd_waits_for_a_hand_over():
    """What an agent that ends may take: HAZARDS C 49. A kill in the middle leaves a primary behind whose key runs out."""
    limit = re.search(r"^TimeoutStopSec=(\d+)$", (ROOT / "docs" / "rivha.service").read_text(), re.MULTILINE)
    assert limit is not None
    policy = Policy()
    looks_and_writes_s = 3 * (policy.loop_wait_s + 2 * policy.retry_timeout_s)  # before, between and after the parts below, etcd slow

    assert int(limit[1]) >= CHECKPOINT_WHEN_ENDING_S + FAST_STOP_S + LAST_WORD_S + looks_and_writes_s


def test_the_unit_starts_what_the_package_installs():
    unit = (ROOT / "docs" / "rivha.service").read_text()
    project = (ROOT / "pyproject.toml").read_text()

    assert 'rivha = "rivha.__main__:main"' in project
    assert "ExecStart=/opt/rivha/bin/rivha /etc/rivha/rivha.yml" in unit
    assert "Type=notify" in unit
    assert "KillMode=process" in unit


@pytest.mark.real
def test_the_package_installs_and_its_programs_start(tmp_path: Path):
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "installed"), str(source)]
    subprocess.run(pip, check=True, timeout=300, env={**os.environ, "HOME": str(tmp_path)}, cwd=tmp_path)
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}

    for program, words in (("rivha", "rivha 0."), ("rivhactl", "rivhactl version 0.")):
        arguments = ["--version"] if program == "rivha" else ["version"]
        done = subprocess.run(
            [tmp_path / "installed" / "bin" / program, *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            cwd=tmp_path,
        )
        assert words in done.stdout
    assert (tmp_path / "installed" / "rivha" / "agent" / "brain" / "decide.py").exists()
