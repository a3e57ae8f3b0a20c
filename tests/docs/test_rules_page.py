"""docs/rules.md is what the code says. Mend with: rivhactl rules > docs/rules.md"""

from __future__ import annotations

from pathlib import Path

from rivha.agent.rules import page

ROOT = Path(__file__).parent.parent.parent


def test_the_page_of_rules_is_what_the_code_says():
    assert (ROOT / "docs" / "rules.md").read_text() == page()


def test_every_rule_says_why():
    assert "` |  |" not in page()
