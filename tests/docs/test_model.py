"""docs/model/takeover.py: the protocol loses nothing within small bounds, and each single mistake in it loses a write."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = Path(__file__).parent.parent.parent / "docs" / "model" / "takeover.py"
BUGS = re.findall(r'"([a-z-]+)",?', MODEL.read_text().partition("BUGS = (")[2].partition(")  # fmt")[0])


def explore(*arguments: str) -> tuple[int, str]:
    ran = subprocess.run([sys.executable, str(MODEL), *arguments], capture_output=True, text=True, timeout=900, check=False)
    assert not ran.stderr
    return ran.returncode, ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--late",), ("--outsider", "strange"), ("--outsider", "idle")], ids=" ".join)
def test_nothing_is_lost_in_any_history(options: tuple[str, ...]):
    code, said = explore("--writes", "1", "--terms", "2", *options)

    assert "(all of them)" in said
    assert code == 0


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_mistake_loses_a_write(bug: str):
    code, said = explore("--bug", bug, "--writes", "1", "--limit", "1000000")

    assert "LOST after" in said
    assert code == 0


def test_the_list_of_mistakes_is_found():
    assert len(BUGS) == 19
