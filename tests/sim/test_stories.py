"""The stories go as they are written; the commands around them take bad input for what it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim import stories
from tests.sim.__main__ import main
from tests.sim.faults import Fault, Script
from tests.sim.shape import SYNCHRONOUS
from tests.sim.shrink import Shrinker

WRITTEN = sorted(stories.FOLDER.glob("*.txt"))
STORY = "# about\nnodes 3\nlasts 2\nfaults:\n1 postmaster_killed leader 0\ntranscript:\n"


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_a_story_goes_as_it_is_written(path: Path):
    story = stories.read(path)
    now = story.told()

    assert not (diff := story.differs(now)), f"if that is right: scripts/sim --write-stories\n{diff}"
    assert "laws broken: 0" in now.transcript


def test_the_classic_cases_are_told():
    names = {path.stem for path in WRITTEN}

    assert {"postgres_dies", "host_dies", "partition", "switchover", "etcd_silent_shortly", "etcd_silent_for_long", "agent_frozen"} <= names
    assert {"slow_rewind", "both_standbys_lag", "both_others_diverge", "switchover_while_a_host_dies", "pause", "reinit"} <= names


def test_a_story_is_read_back_as_it_was_written():
    for path in WRITTEN:
        assert str(stories.read(path)) == path.read_text()


def test_what_may_be_left_out_of_a_story():
    """Comments, header, faults, and the transcript of one that was never told; the last line needs no end."""
    assert stories.parse("faults:\ntranscript:") == stories.Story("")
    assert stories.parse("faults:\n1 power_off db1 3").script == (Fault(1.0, "power_off", "db1", 3.0),)


def test_stories_that_differ_are_written_anew(tmp_path: Path):
    told = tmp_path / "told.txt"
    told.write_text(STORY)
    broken = tmp_path / "broken.txt"
    broken.write_text("no story")

    with pytest.raises(stories.StoryError, match=r"broken\.txt"):
        stories.rewrite(tmp_path)
    assert told.read_text() == STORY
    broken.unlink()

    assert stories.rewrite(tmp_path) == ([told], [])
    assert "Postgres died" in told.read_text()
    assert stories.rewrite(tmp_path) == ([], [])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# about\n", "has a line `faults:`"),
        ("seed one\nfaults:\ntranscript:\n", "seed: invalid literal for int"),
        ("knots 3\nfaults:\ntranscript:\n", "line 2: should be a comment or one of seed, nodes"),
        ("nodes 3\nnodes 4\nfaults:\ntranscript:\n", "given twice"),
        ("nodes 30\nfaults:\ntranscript:\n", "one to seven"),
        ("lasts -1\nfaults:\ntranscript:\n", "up to an hour"),
        ("jitter maybe\nfaults:\ntranscript:\n", "on or off"),
        ("settings {\nfaults:\ntranscript:\n", "settings: Expecting property name"),
        ("tags {]\nfaults:\ntranscript:\n", "tags: Expecting property name"),
        ("settings []\nfaults:\ntranscript:\n", "settings: names and values"),
        ('settings {"tttl": 5}\nfaults:\ntranscript:\n', r"settings: tttl is none of them \(did you mean ttl\?\)"),
        ('tags {"db1": {"nofailovr": true}}\nfaults:\ntranscript:\n', "tags of db1: nofailovr is none of"),
        ('tags {"db1": {"failover_priority": "x"}}\nfaults:\ntranscript:\n', "tags of db1: failover_priority must be a whole number"),
        ('settings {"ttl": "long"}\nfaults:\ntranscript:\n', "settings: ttl"),
        ('tags {"db9": {}}\nfaults:\ntranscript:\n', "a host of db1"),
        ("nodes 3\nfaults:\n1 earthquake db1 0\ntranscript:\n", "line 4: no fault is called 'earthquake'; scripts/sim --faults lists them"),
        ("nodes 3\nfaults:\n1 power_of db1 0\ntranscript:\n", "no fault is called 'power_of'; did you mean power_off"),
        ("nodes 3\nfaults:\n1 power_off db1 0 transcript:\n", "should be `instant kind host number`"),
        ("nodes 3\nfaults:\n1 power_off\ntranscript:\n", "should be `instant kind host number`"),
        ("nodes 3\nfaults:\nsoon power_off db1 3\ntranscript:\n", "could not convert"),
        ("nodes 3\nfaults:\n1 power_off db4 3\ntranscript:\n", "there is no host db4"),
        ("nodes 3\nfaults:\ninf power_off db1 3\ntranscript:\n", "from 0 to 3600, inf does not"),
        ("nodes 3\nfaults:\n1 power_off db1 nan\ntranscript:\n", "from 0 to 3600, nan does not"),
        ("nodes 3\nfaults:\n-1 power_off db1 3\ntranscript:\n", "from 0 to 3600, -1 does not"),
        ('settings {"retry_timeout": 2.5}\nfaults:\n', "retry_timeout: a whole number in a story, not 2.5"),
        ('settings {"ttl": "10"}\nfaults:\n', 'ttl: a whole number in a story, not "10"'),
        ('settings {"synchronous_mode": false}\nfaults:\n', "synchronous_mode: one of off, on, quorum in a story, not false"),
        ('settings {"synchronous_mode_strict": "on"}\nfaults:\n', "synchronous_mode_strict: true or false in a story"),
        ('traffic {"write_every_s": 1e-9}\nfaults:\n', "write_every_s is 0.01 at the least"),
    ],
)
def test_a_story_that_does_not_parse_says_why(text: str, complaint: str):
    with pytest.raises(stories.StoryError, match=complaint):
        stories.parse("# about\n" + text)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required"),
        (["--seed", "eleven"], "invalid int value: 'eleven'"),
        (["--many", "0"], "0 is no number of runs"),
        (["--many", "few"], "few is no number of runs"),
        (["--many", "3", "--mutant", "thinking"], "no mutant is called 'thinking'; tests/sim/mutants.py lists them"),
        (["--many", "3", "--mutant", "no_fense"], "no mutant is called 'no_fense'; did you mean no_fence"),
        (["--write-stories", "--mutant", "no_fence"], "--mutant goes with --seed and --many and --shrink and --story, not with --write"),
        (["--seed", "0", "--from", "0"], "--from goes with --many, not with --seed"),
        (["--many", "3", "--script", "FILE"], "--script goes with --seed, not with --many"),
        (["--shrink", "3", "--script", "FILE"], "--script goes with --seed"),
        (["--story", "FILE", "--nodes", "3"], "--nodes goes with --seed and --many and --shrink, not with --story"),
        (["--shrink", "3", "--no-outages"], "--no-outages goes with --many"),
        (["--many", "3", "--as-story"], "--as-story goes with --seed"),
        (["--seed", "1", "--nodes", "4", "--mutant", "expiry_counted_from_the_reply"], "has a script, and a cluster of its own"),
        (["--shrink", ""], "invalid int value"),
        (["--seed", "1", "--nodes", "9"], "invalid choice"),
        (["--seed", "1", "--script", "FILE"], "bad.txt: line 1: no fault is called 'earthquake'"),
        (["--seed", "1", "--script", "NOWHERE"], "there is no host db9; there are db1"),
        (["--story", "FILE"], "has a line `faults:`"),
        (["--story", "/nowhere/to/be/found"], "No such file"),
        (["--many", "3", "--seed", "1"], "not allowed with"),
    ],
)
def test_bad_input_is_refused_with_a_reason(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    bad = tmp_path / "bad.txt"
    bad.write_text("1 earthquake db1 3\n")
    nowhere = tmp_path / "nowhere.txt"
    nowhere.write_text("1 power_off db9 3\n")
    files = {"FILE": str(bad), "NOWHERE": str(nowhere)}
    monkeypatch.setattr(sys, "argv", ["scripts/sim", *(files.get(a, a) for a in arguments)])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert complaint in told
    assert told.count("\n") == 1, "one line says it"


def test_the_script_hands_its_arguments_on_and_the_exit_code_back(tmp_path: Path):
    """Bad input is 2, a story as it is written 0."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "RIVHA_VENV": sys.prefix, "RIVHA_CACHE": str(tmp_path)}

    def sim(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([root / "scripts/sim", *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False)

    refused = sim("--seed", "eleven")
    assert (refused.returncode, "invalid int value" in refused.stderr) == (2, True)
    told = sim("--story", str(stories.FOLDER / "switchover.txt"))
    assert (told.returncode, "is promoted, timeline 2" in told.stdout) == (0, True)


def test_a_planted_bug_shows_in_a_story(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    path = stories.FOLDER / "etcd_silent_for_long.txt"
    monkeypatch.setattr(sys, "argv", ["scripts/sim", "--story", str(path), "--mutant", "neither_fence_nor_step_down"])

    assert main() == 1
    assert "It is written otherwise" in capsys.readouterr().err
    assert not stories.read(path).differs(stories.read(path).told()), "the bug is taken out again"


def test_a_story_told_differently_from_how_it_is_written_is_an_error_and_shows_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "story.txt"
    path.write_text(str(stories.parse(STORY).told()).replace("Postgres died", "Postgres dozed off"))
    monkeypatch.setattr(sys, "argv", ["scripts/sim", "--story", str(path)])

    assert main() == 1
    assert "dozed off" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seed", "5"], b"FAULT"),
        (["--seed", str(SYNCHRONOUS), "--mutant", "electors_first"], b" of ['db1', 'db2'"),
    ],
    ids=["seed", "synchronous mutant"],
)
def test_a_seed_is_the_same_run_whatever_the_hashes_are(arguments: list[str], expected: bytes):
    """The texts of laws that name voters, too."""
    root = Path(__file__).parents[2]
    runs = [
        subprocess.run(
            [sys.executable, "-m", "tests.sim", *arguments],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=120,
            check=False,
        ).stdout
        for seed in ("1", "3")
    ]

    assert runs[0] == runs[1]
    assert expected in runs[0]


# ---- shrinking


def fault(at: float, kind: str, number: float = 3.337) -> Fault:
    return Fault(at, kind, "db1", number)


def test_what_does_not_matter_is_left_out_and_what_does_is_made_round():
    noise = [fault(n * 1.111, "deaf_watch") for n in range(40)]
    needed = [fault(13.131, "power_off", 7.77), fault(29.292, "switchover")]

    def fails(script: Script) -> bool:
        kinds = [f.kind for f in script]
        return "power_off" in kinds and "switchover" in kinds and kinds.index("power_off") < kinds.index("switchover")

    shrinker = Shrinker(fails)
    assert shrinker.shrink(sorted([*noise, *needed])) == [fault(1.0, "power_off", 8.0), fault(4.0, "switchover", 3.0)]
    assert shrinker.runs < 100


def test_an_exact_number_that_matters_is_kept():
    assert Shrinker(lambda script: any(f.number == 3.337 for f in script)).shrink([fault(1.0, "pause")]) == [fault(1.0, "pause")]


def test_shrinking_ends_after_as_many_runs_as_allowed():
    shrinker = Shrinker(lambda script: len(script) > 3, most_runs=10)

    assert len(shrinker.shrink([fault(float(n), "pause") for n in range(64)])) > 3
    assert shrinker.runs == 10
