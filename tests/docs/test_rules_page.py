"""docs/rules.md is what the code says. Mend with: rivhactl rules > docs/rules.md"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_page_of_rules_is_what_the_code_says():
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = subprocess.run(
        [sys.executable, "-m", "rivha.cli", "rules"], env=environ, capture_output=True, text=True, timeout=60, check=True
    ).stdout

    assert (ROOT / "docs" / "rules.md").read_text() == printed


def test_every_rule_says_why():
    assert "` |  |" not in (ROOT / "docs" / "rules.md").read_text()
