"""docs/rules.md is what the code says. Mend with: rivhactl rules > docs/rules.md"""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from rivha.cli import cli

ROOT = Path(__file__).parent.parent.parent


def test_the_page_of_rules_is_what_the_code_says():
    printed = CliRunner().invoke(cli, ["rules"])

    assert printed.exit_code == 0
    assert (ROOT / "docs" / "rules.md").read_text() == printed.output


def test_every_rule_says_why():
    assert "` |  |" not in (ROOT / "docs" / "rules.md").read_text()
