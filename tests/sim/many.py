"""Many seeds on all cores, and the faults one by one. Called by `scripts/sim --many N` and by test_seeds.py; report.py tells the result."""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.pool
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing.context import ForkContext, ForkProcess
from typing import ClassVar, TypeVar

from tests.sim import faults, mutants, report
from tests.sim.faults import LEADER, Fault
from tests.sim.planting import planted
from tests.sim.shape import QUORUM, SYNCHRONOUS, Shape, of_seed
from tests.sim.world import World

ALONE_S = 45.0  # how long a single fault is watched
LASTS_S = 8.0  # a single fault that lasts
RUNS_A_PROCESS = 25  # killed agents' tasks stay in memory until their process ends
TELLS_EVERY_S = 10.0  # how far it is
ORPHANED_S = 0.5  # how often a worker looks whether its parent lives
BEREAVED_S = 2.0  # and how often the parent looks whether one was killed, when no result comes
BREAKDOWN = "the world broke down"
T = TypeVar("T")
R = TypeVar("R")


class WorkerDiedError(Exception):
    """A process that ran seeds was killed, by the kernel for want of memory, say: what it had in hand is not judged."""


@dataclass(slots=True)
class Result:
    """What one run came to; of many added together, `failed` says which."""

    runs: int = 0
    virtual_s: float = 0.0
    rows: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    failed: dict[int, list[str]] = field(default_factory=dict)

    def add(self, other: Result) -> None:
        self.runs, self.virtual_s, self.rows = self.runs + other.runs, self.virtual_s + other.virtual_s, self.rows + other.rows
        for mine, theirs in ((self.changes, other.changes), (self.happened, other.happened), (self.rules, other.rules)):
            mine.update(theirs)
        self.failed |= other.failed


@dataclass(frozen=True, slots=True)
class Alone:
    """One fault in a quiet cluster, and what it cost."""

    kind: str
    seed: int
    outage_s: float
    broken: list[str]


def world_of(
    seed: int, nodes: int | None = None, mutant: str = "", *, script: faults.Script | None = None, transcript: bool = False
) -> World:
    """What a seed plays, for --seed, --many and --shrink alike: by itself, for a mutant, or with a script in place of its own faults.

    The mutant is not planted by that. Raises ScriptError when the script names a host that the seed's cluster does not have.
    """
    if script is not None:
        shape = of_seed(seed, nodes)
        faults.check_hosts(script, shape.names)
        world = World(seed, shape, script=script)
    elif mutant:
        world = mutants.MUTANTS[mutant].world(seed, nodes)
    else:
        world = World(seed, of_seed(seed, nodes))
    world.transcript.keep = transcript
    return world


def judged(world: World) -> list[str]:
    """The laws that its run broke. An error of the world's own is told as one more: other runs go on, and the transcript is kept."""
    try:
        return world.run()
    except Exception:  # noqa: BLE001 - whatever it is, it is this run's failure
        return [f"{BREAKDOWN}\n{traceback.format_exc()}", *world.laws.broken]


def one(seed: int, nodes: int | None = None, mutant: str = "") -> Result:
    world = world_of(seed, nodes, mutant)
    with planted(mutants.MUTANTS[mutant].plant) if mutant else nullcontext():
        broken = judged(world)
    failed = {seed: broken} if broken else {}
    return Result(1, world.loop.now, len(world.clients.acknowledged), world.laws.changes, world.happened, world.rules, failed)


class Worker(ForkProcess):
    """It ends with 0 after RUNS_A_PROCESS, or else somebody killed it: the pool starts another, and waits for the lost result for ever."""

    killed: ClassVar[list[int]] = []  # exit codes, of this parent's

    def join(self, timeout: float | None = None) -> None:
        """The pool's, as soon as it has ended."""
        super().join(timeout)
        if self.exitcode:
            self.killed.append(self.exitcode)


class Workers(ForkContext):
    Process = Worker


def spread(task: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """On all cores; results in the order in which they end. Raises WorkerDiedError."""
    Worker.killed.clear()
    with multiprocessing.pool.Pool(
        initializer=_end_with, initargs=(os.getpid(),), maxtasksperchild=RUNS_A_PROCESS, context=Workers()
    ) as pool:
        found = pool.imap_unordered(task, items)
        while True:
            try:
                yield found.next(timeout=BEREAVED_S)
            except StopIteration:
                return
            except multiprocessing.TimeoutError:
                if Worker.killed:
                    raise WorkerDiedError(f"a worker died with exit code {Worker.killed[0]}: is there too little memory?") from None


def _end_with(parent: int) -> None:
    """A worker that waits for work would wait for ever when its parent is killed. Ctrl-C is the parent's to tell of.

    Not by PR_SET_PDEATHSIG: for that the parent is the thread that forked. The pool's own forks the later workers and ends before them: a
    worker that was killed with it while it held the queue's lock left the pool waiting for that lock for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHANED_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def results(seeds: Iterable[int], nodes: int | None = None, mutant: str = "") -> Iterator[Result]:
    """In the order in which they end."""
    yield from spread(functools.partial(one, nodes=nodes, mutant=mutant), seeds)


def alone(task: tuple[str, int], *, synchronous: bool = False, lasts_s: float = LASTS_S) -> Alone:
    """One fault in a quiet cluster of three: the longest time in which no write was acknowledged, in virtual seconds.

    The bootstrap, in which nobody can write either, does not count. A client writes every quarter of a second.
    """
    kind, seed = task
    at = 2.0 + random.Random(seed).random()  # somewhere between two beats
    world = World(seed, Shape(settings=dict(QUORUM)) if synchronous else Shape(), script=[Fault(at, kind, LEADER, lasts_s)])
    world.lasts_s = ALONE_S
    broken = judged(world)
    return Alone(kind, seed, world.clients.longest_outage_s(world.whole_at), broken)


def outages(each: int, *, synchronous: bool = False) -> Iterator[Alone]:
    """Of every kind but the traps, which wait for what may not come."""
    kinds = sorted({**faults.MACHINES, **faults.NETWORK, **faults.PEOPLE, **(faults.SYNCHRONOUS if synchronous else {})})
    yield from spread(functools.partial(alone, synchronous=synchronous), [(kind, seed) for kind in kinds for seed in range(each)])


class Progress:
    """A line on stderr every TELLS_EVERY_S of the machine's time."""

    def __init__(self, what: str) -> None:
        self._what, self._done, self._next_at = what, 0, time.monotonic() + TELLS_EVERY_S

    def step(self) -> None:
        self._done += 1
        if time.monotonic() >= self._next_at:
            sys.stderr.write(f"{self._done} {self._what}\n")
            self._next_at = time.monotonic() + TELLS_EVERY_S


def many(first: int, count: int, nodes: int | None = None, mutant: str = "", *, with_outages: bool = True) -> int:
    """The exit code. After Ctrl-C, too, what there is by then is told."""
    began, total = time.monotonic(), Result()
    try:
        _run_seeds(range(first, first + count), nodes, mutant, total)
    finally:
        _tell(report.of_runs(total, time.monotonic() - began, complete=not mutant and count >= report.ENOUGH))
        if not mutant:
            _tell(report.of_rules(total))
    failed = bool(total.failed)
    if with_outages and not mutant:
        failed |= _run_outages(min(20, max(1, count // 20)), synchronous=first >= SYNCHRONOUS)
    return int(failed)


def _run_seeds(seeds: range, nodes: int | None, mutant: str, total: Result) -> None:
    progress = Progress(f"of {len(seeds)} seeds")
    for result in results(seeds, nodes, mutant):
        progress.step()
        total.add(result)
        for seed, broken in result.failed.items():
            _tell(f"seed {seed}: {broken[0].strip()}")


def _run_outages(each: int, *, synchronous: bool) -> bool:
    """Whether one of them broke a law."""
    progress = Progress("single faults, for the outages (--no-outages leaves them out)")
    found, failed = defaultdict[str, list[float]](list), False
    try:
        for a in outages(each, synchronous=synchronous):
            progress.step()
            found[a.kind].append(a.outage_s)
            if a.broken:
                failed = True
                _tell(f"kind {a.kind}, seed {a.seed}: {a.broken[0].strip()}")
    finally:
        _tell(report.of_outages(found))
    return failed


def _tell(text: str) -> None:
    """At once, also to a pipe."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()
