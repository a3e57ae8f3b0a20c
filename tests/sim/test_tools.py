"""What `scripts/sim` tells is true: of runs that break down, are shrunk, are interrupted, and of who plays which run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sim import faults, many, report, shrink, stories
from tests.sim.__main__ import INTERRUPTED, main
from tests.sim.many import Alone, Result, alone, one
from tests.sim.mutants import MUTANTS
from tests.sim.planting import SCRIPT_S
from tests.sim.shape import of_seed
from tests.sim.world import World

ROOT = Path(__file__).parents[2]
SCRIPTED, UNSCRIPTED = "expiry_counted_from_the_reply", "claims_without_comparing"  # mutants that many a seed notices


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["scripts/sim", *arguments])
        return main()

    return run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process, where what the test has planted is."""

    monkeypatch.setattr(many, "spread", map)


# ---- outages


def test_an_outage_that_never_ends_counts_to_the_end_of_the_run():
    world = World(0, script=[])
    world.lasts_s = 30.0
    world.later(12.0, setattr, world.clients, "_answers", lambda host: False)
    world.run()

    assert all(began < 12.0 for began, _ in world.clients.outages)
    assert world.clients.longest_outage_s(world.whole_at) == pytest.approx(world.over_at - 13.0, abs=0.6)


def test_a_commit_that_waits_to_the_end_of_the_run_is_an_outage():
    world = World(0, script=[])
    world.lasts_s = 30.0
    world.later(12.0, setattr, world.clients, "_try", lambda name: None)
    world.run()

    assert world.clients.longest_outage_s(world.whole_at) == pytest.approx(world.over_at - 12.0, abs=0.6)


def test_what_a_single_fault_breaks_is_told_and_is_a_failure(
    sim: Callable[..., int], here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    broken = ["   12.000  LAW BROKEN: a promise"]
    monkeypatch.setattr(many, "alone", lambda task, **_: Alone(*task, 1.5, broken if task[0] == "power_off" else []))

    assert sim("--many", "1") == 1

    told = capsys.readouterr().out
    assert "laws broken in 0 runs" in told
    assert "kind power_off, seed 0: 12.000  LAW BROKEN: a promise" in told
    assert sim("--many", "1", "--no-outages") == 0
    assert "longest write outage" not in capsys.readouterr().out


def test_alone_tells_the_laws_that_its_run_broke(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faults, "KINDS", {**faults.KINDS, "deaf_watch": lambda world, host, number: world.broken("a promise", host.name)})

    assert "LAW BROKEN: a promise db" in alone(("deaf_watch", 0)).broken[0]


# ---- the same run


@pytest.mark.parametrize("mutant", [SCRIPTED, UNSCRIPTED])
def test_a_seed_with_a_mutant_is_the_same_run_by_itself_as_among_many(
    mutant: str, sim: Callable[..., int], capsys: pytest.CaptureFixture[str]
):
    assert bool(MUTANTS[mutant].script) == (mutant == SCRIPTED)
    seed, among_many = _noticed(mutant)

    assert sim("--seed", str(seed), "--mutant", mutant) == 1
    assert capsys.readouterr().out.splitlines()[-1] == among_many[0]


def _noticed(mutant: str) -> tuple[int, list[str]]:
    """The first seed that notices it, and what it broke: which seed that is changes with the world."""
    runs = ((seed, one(seed, mutant=mutant).failed) for seed in MUTANTS[mutant].seeds)
    return next((seed, failed[seed]) for seed, failed in runs if failed)


def test_a_mutants_script_is_shrunk_in_its_own_cluster(
    sim: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(shrink.Shrinker, "shrink", lambda self, script: self._still(script))

    assert sim("--shrink", str(_noticed(SCRIPTED)[0]), "--mutant", SCRIPTED) == 1

    story = stories.parse(capsys.readouterr().out)
    assert [str(fault) for fault in story.script] == ["2.200 suspended_in_renew leader 8.000"]
    assert story.lasts_s == SCRIPT_S
    assert story.shape.nodes == MUTANTS[SCRIPTED].shape.nodes


def test_a_seeds_own_faults_as_a_story_are_the_same_run(sim: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    world = World(9, of_seed(9), transcript=True)
    world.transcript.from_whole = True
    world.run()

    assert sim("--seed", "9", "--as-story") == 0

    story = stories.parse(capsys.readouterr().out)
    assert list(story.script) == world.script
    assert not story.differs(story.told()), "read back, too"
    assert story.transcript.splitlines()[: len(world.lines)] == world.lines


# ---- runs that break down


@pytest.fixture
def breaks_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 1, after 30 virtual seconds."""
    before = World._until_whole

    async def until_whole(self: World, limit_s: float) -> None:
        if self.seed == 1 and self.loop.now > 30.0:
            raise KeyError("of the world's own")
        await before(self, limit_s)

    monkeypatch.setattr(World, "_until_whole", until_whole)


def test_a_seed_in_which_the_world_breaks_down_is_named_and_the_others_go_on(
    sim: Callable[..., int], here: None, breaks_down: None, capsys: pytest.CaptureFixture[str]
):
    assert sim("--many", "3", "--no-outages") == 1

    told = capsys.readouterr().out
    assert "seed 1: the world broke down\nTraceback" in told
    assert 'KeyError: "of the world\'s own"' in told
    assert "3 runs" in told
    assert "laws broken in 1 runs: 1\n" in told


def test_its_transcript_is_printed(sim: Callable[..., int], breaks_down: None, capsys: pytest.CaptureFixture[str]):
    assert sim("--seed", "1") == 1

    told = capsys.readouterr().out
    assert "the cluster is whole" in told
    assert told.index("FAULT") < told.index("the world broke down\nTraceback")


# ---- stories that break a law


@pytest.fixture
def broken_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(faults, "KINDS", {**faults.KINDS, "deaf_watch": lambda world, host, number: world.broken("a promise", host.name)})
    path = tmp_path / "broken.txt"
    path.write_text("faults:\n1 deaf_watch db2 0\ntranscript:\n")
    return path


def test_a_story_that_breaks_a_law_is_a_failure_also_when_it_is_written_so(
    broken_story: Path, sim: Callable[..., int], capsys: pytest.CaptureFixture[str]
):
    assert sim("--story", str(broken_story)) == 1
    assert "1 times a law is broken, first:" in capsys.readouterr().err
    broken_story.write_text(str(stories.read(broken_story).told()))
    assert sim("--story", str(broken_story)) == 1
    assert "otherwise" not in capsys.readouterr().err


def test_writing_such_a_story_is_a_failure_too(
    broken_story: Path, sim: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    before = stories.rewrite
    monkeypatch.setattr(stories, "rewrite", lambda: before(broken_story.parent))

    assert sim("--write-stories") == 1

    told = capsys.readouterr()
    assert (told.out, told.err) == (f"changed: {broken_story}\n", f"a law is broken in {broken_story}\n")


# ---- what is printed


def test_the_first_broken_law_is_the_last_line_and_each_is_counted():
    broken = ["    1.000  LAW BROKEN: a b", "    2.000  LAW BROKEN: c", "    3.000  LAW BROKEN: a d"]

    assert report.of_laws(broken, ["a", "c", "a"]).splitlines() == [
        "law broken: a: 2 times, first at 1.000",
        "law broken: c: once at 2.000",
        "    1.000  LAW BROKEN: a b",
    ]
    assert report.of_laws([], []) == ""


def test_faults_that_no_run_had_are_told_only_of_many_runs():
    total = Result(runs=2)
    total.happened["power_off_in_rewind"] += 3

    assert "no run had" not in report.of_runs(total, 1.0)
    assert "faults that no run had: agent_frozen, " in report.of_runs(total, 1.0, complete=True)
    assert not [kind for kind in faults.WRITTEN if kind in report.of_runs(total, 1.0, complete=True)]  # no seed draws them
    assert f"traps: 3 set, of 1 of the {len(faults.TRAPS)} kinds\n" in report.of_runs(total, 1.0)


def test_every_fault_says_what_it_does(sim: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    assert sim("--faults") == 0

    told = capsys.readouterr().out.splitlines()
    kinds = [kind for kind in faults.KINDS if kind not in faults.TRAPS and kind not in faults.SYNC_TRAPS]
    assert [line.split()[0] for line in told[: told.index("")]] == sorted(kinds)
    assert not [kind for kind in kinds if len(faults.about(faults.KINDS[kind])) < 20]
    assert {line.split()[1] for line in told[: told.index("")]} == {"seconds", "number", "-"}
    assert any("DEED_in_WORK" in line for line in told)


# ---- whoever ends it


def test_many_tells_how_far_it_is(here: None, sim: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(many, "TELLS_EVERY_S", 0.0)

    assert sim("--many", "2", "--no-outages") == 0
    assert capsys.readouterr().err == "1 of 2 seeds\n2 of 2 seeds\n"


@pytest.mark.parametrize("arguments", [("--seed", "2"), ("--many", "3")])
def test_after_ctrl_c_what_there_is_is_told(
    arguments: tuple[str, ...],
    sim: Callable[..., int],
    here: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    before = World._until_whole

    async def until_whole(self: World, limit_s: float) -> None:
        if self.seed == 2 and self.loop.now > 30.0:
            raise KeyboardInterrupt
        await before(self, limit_s)

    monkeypatch.setattr(World, "_until_whole", until_whole)

    assert sim(*arguments) == INTERRUPTED == 130
    told = capsys.readouterr().out
    assert "FAULT" in told if arguments[0] == "--seed" else "2 runs" in told
    assert "Traceback" not in told


def test_ctrl_c_keeps_the_best_story_so_far(sim: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    before, tried = shrink.Shrinker._still, []

    def still(self: shrink.Shrinker, script: faults.Script) -> bool:
        if tried and tried[-1][1]:
            raise KeyboardInterrupt
        tried.append((script, before(self, script)))
        return tried[-1][1]

    monkeypatch.setattr(shrink.Shrinker, "_still", still)

    assert sim("--shrink", str(_noticed(UNSCRIPTED)[0]), "--mutant", UNSCRIPTED) == INTERRUPTED
    assert list(stories.parse(capsys.readouterr().out).script) == tried[-1][0]


def children(process: subprocess.Popen[Any]) -> list[int]:
    return [int(pid) for task in Path(f"/proc/{process.pid}/task").iterdir() for pid in (task / "children").read_text().split()]


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def a_seed_whose_process_is_killed(seed: int) -> int:
    if seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return seed


def test_a_worker_that_is_killed_ends_the_runs_and_is_told(
    sim: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """By the kernel, for want of memory, say: the pool itself would wait for its result for ever."""
    monkeypatch.setattr(many, "results", lambda seeds, *_: (Result(runs=1) for _ in many.spread(a_seed_whose_process_is_killed, seeds)))

    assert sim("--many", "4", "--no-outages") == 1

    told = capsys.readouterr()
    assert "a worker died with exit code -9" in told.err
    assert "3 runs" in told.out, "what was judged is told"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel ends them on Linux only")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(how: signal.Signals):
    """Neither `kill` nor `| head` leaves processes behind that wait for work for ever."""
    command = [sys.executable, "-P", "-m", "tests.sim", "--many", "1000", "--no-outages"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    workers: list[int] = []
    try:
        deadline = time.monotonic() + 60.0
        while len(workers) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
            workers = children(process)
        assert workers
        time.sleep(0.5)
        process.send_signal(how)
        process.wait(timeout=30.0)
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline and not all(ended(pid) for pid in workers):
            time.sleep(0.1)
        assert [pid for pid in workers if not ended(pid)] == []
    finally:
        process.kill()
        process.wait()
        for pid in workers:
            if not ended(pid):
                os.kill(pid, signal.SIGKILL)
