"""What scripts/lib.sh fetches for the fault lab: without a compiler its hosts have no clocks, and two faults would be skipped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.lab.node import REPOSITORY

# Everything but what is installed is the script's own; that is only named.
CALL = '. "$1"; can_install() { true; }; locked() { echo "$@"; }; PATH=$2; use_network_tools'


@pytest.mark.parametrize(
    ("present", "fetched"),
    [
        (("ip", "iptables", "cc"), ""),
        (("ip", "iptables"), "programs apt_install gcc libc6-dev"),
        (("cc",), "programs apt_install iproute2 iptables"),
        ((), "programs apt_install iproute2 iptables gcc libc6-dev"),
    ],
)
def test_what_is_missing_is_fetched(present: Collection[str], fetched: str, tmp_path: Path) -> None:
    path = tmp_path / "path"
    path.mkdir()
    for name in present:
        (path / name).write_text("#!/bin/sh\n")
        (path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", CALL, "bash", REPOSITORY / "scripts" / "lib.sh", path],
        env=os.environ | {"RIVHA_CACHE": str(tmp_path / "cache")},
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == fetched
