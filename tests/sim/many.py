"""Many seeds on all cores, and the faults one by one. Called by `scripts/sim --many N` and by test_seeds.py; report.py tells the result."""

from __future__ import annotations

import functools
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

from tests.sim import faults, mutants, report
from tests.sim.faults import LEADER, Fault
from tests.sim.planting import planted
from tests.sim.shape import QUORUM, SYNCHRONOUS, Shape, of_seed
from tests.sim.world import World

ALONE_S = 45.0  # how long a single fault is watched
SCRIPT_S = 60.0  # and a mutant's script
LASTS_S = 8.0  # a single fault that lasts
RUNS_A_PROCESS = 25  # killed agents' tasks stay in memory until their process ends


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


def one(seed: int, nodes: int | None = None, mutant: str = "") -> Result:
    m = mutants.MUTANTS[mutant] if mutant else None
    if m is not None and m.script:
        world = World(seed, m.shape, script=faults.parse(m.script.replace(";", "\n")))
        world.lasts_s = SCRIPT_S
    else:
        world = World(seed, of_seed(seed, nodes))
    with planted(m.plant) if m is not None else nullcontext():
        broken = world.run()
    failed = {seed: broken} if broken else {}
    return Result(1, world.loop.now, len(world.clients.acknowledged), world.laws.changes, world.happened, world.rules, failed)


def results(seeds: Iterable[int], nodes: int | None = None, mutant: str = "") -> Iterator[Result]:
    """In the order in which they end."""
    with multiprocessing.Pool(maxtasksperchild=RUNS_A_PROCESS) as pool:
        yield from pool.imap_unordered(functools.partial(one, nodes=nodes, mutant=mutant), seeds)


def alone(task: tuple[str, int], *, synchronous: bool = False, lasts_s: float = LASTS_S) -> tuple[str, float]:
    """One fault in a quiet cluster of three: the longest time in which no write was acknowledged, in virtual seconds.

    The bootstrap, in which nobody can write either, does not count. A client writes every quarter of a second.
    """
    kind, seed = task
    at = 2.0 + random.Random(seed).random()  # somewhere between two beats
    world = World(seed, Shape(settings=dict(QUORUM)) if synchronous else Shape(), script=[Fault(at, kind, LEADER, lasts_s)])
    world.lasts_s = ALONE_S
    world.run()
    return kind, world.clients.longest_outage_s(world.whole_at)


def outages(each: int, *, synchronous: bool = False) -> dict[str, list[float]]:
    """Of every kind but the traps, which wait for what may not come."""
    kinds = sorted({**faults.MACHINES, **faults.NETWORK, **faults.PEOPLE, **(faults.SYNCHRONOUS if synchronous else {})})
    task = functools.partial(alone, synchronous=synchronous)
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    with multiprocessing.Pool(maxtasksperchild=RUNS_A_PROCESS) as pool:
        for kind, seconds in pool.imap_unordered(task, [(kind, seed) for kind in kinds for seed in range(each)]):
            found[kind].append(seconds)
    return found


def many(first: int, count: int, nodes: int | None, mutant: str = "") -> int:
    began, total = time.monotonic(), Result()
    for result in results(range(first, first + count), nodes, mutant):
        total.add(result)
        for seed, broken in result.failed.items():
            sys.stdout.write(f"seed {seed}: {broken[0].strip()}\n")
    sys.stdout.write(report.of_runs(total, time.monotonic() - began))
    if not mutant:
        found = outages(min(20, max(1, count // 20)), synchronous=first >= SYNCHRONOUS)
        sys.stdout.write(report.of_rules(total) + report.of_outages(found))
    return 1 if total.failed else 0
