"""What docs/operations.md tells that Rivha says, Rivha says: in these very words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text()
SECTION = PAGE.partition("## Synchronous replication: what it says")[2].partition("\n## ")[0]
SOURCE = "\n".join(path.read_text() for path in sorted((ROOT / "rivha").rglob("*.py")))
ROWS = [line for line in SECTION.splitlines() if line.startswith(("| `", "| WARNING"))]
# The constant part of each message in the table's first column, in its order; the rest are names and numbers.
SAID = (
    ("who may elect",),
    ("nobody: only I may lead",),
    ("commits wait", "commits seem to wait", " confirms them"),
    ("commits are to wait for ",),
    ("commits are to wait for ",),
    ("commits are to wait until a standby comes", "commits wait: there is no synchronous standby, and synchronous_mode_strict is on"),
    ("there is no synchronous standby: what ", " acknowledges now only ", " holds, and nobody else may lead"),
    (" is lost", " and I rank first", ": standing for election"),
    ("not standing: ", "not a voter ("),
    ("holding back: ", " needed pledges", ", waiting for "),
    ("only ", " holds all commits: waiting for it, or for "),
    (" may still be alive: suspected after ",),
    ("synchronous, but etcd has lost who held the commits",),
    ("etcd holds what I cannot read: ",),
    (" is no synchronous standby and may lack acknowledged commits",),
    (" must stream from ",),
)


def test_every_row_of_ours_is_looked_up():
    assert len(ROWS) == len(SAID) + 1, "the last one is PostgreSQL's"


@pytest.mark.parametrize(("row", "parts"), list(zip(ROWS, SAID, strict=False)))
def test_it_is_said_in_these_words(row: str, parts: tuple[str, ...]):
    for part in parts:
        assert part in row.split("|")[1]
        assert part in SOURCE


# What a person greps for, and what stands about it in the other tables: all of it is said by Rivha.
ELSEWHERE = (
    "my history cannot be compared with that of ",
    "what streams here cannot be compared with the leader's history",
    "streaming from nobody until etcd answers",
    "Postgres has not answered in time",
    "etcd holds what cannot be read",
    "fence: nobody vouches for this primary any more, stopping Postgres at once",
    "fence: Postgres has stopped",
    "fence: Postgres could not be stopped, trying again",
    "fence: the deadline passed while this agent stood still; Postgres had been stopped already",
)


@pytest.mark.parametrize("words", ELSEWHERE)
def test_what_an_operator_meets_has_its_row(words: str):
    assert words in SOURCE
    assert any(words in line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))


def test_every_line_of_the_fence_has_its_row():
    assert {words for words in ELSEWHERE if words.startswith("fence: ")} == set(re.findall(r'"(fence: [^"]+)"', SOURCE))


def test_every_kind_of_directory_that_is_moved_aside_has_its_row():
    table = PAGE.partition("## Directories that were moved aside")[2].partition("\n## ")[0]
    made = re.findall(r'(?:SetAside\(|set_aside\(|set_aside, )"([a-z-]+)"', SOURCE)

    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == set(made)
