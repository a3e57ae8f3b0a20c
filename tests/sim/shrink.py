"""From a failing run to the few faults that it needs: delta debugging over the list, shorter waits, rounder numbers; `--shrink`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from tests.sim import stories
from tests.sim.faults import Fault, Script
from tests.sim.many import BREAKDOWN, judged, world_of
from tests.sim.world import World

SOON_S = 3.0
OTHER_WORLDS = 3
Fails = Callable[[Script], bool]


class Shrinker:
    """`fails`: does a run with this script still break the law? Each script is run once; at most `most_runs` are."""

    def __init__(self, fails: Fails, most_runs: int = 300) -> None:
        self._fails, self._most = fails, most_runs
        self.runs = 0
        self.best: Script = []  # the last script that still failed, whatever ends the work

    def _still(self, script: Script) -> bool:
        if self.runs >= self._most:
            return False
        self.runs += 1
        if not self._fails(script):
            return False
        self.best = script
        return True

    def shrink(self, script: Script) -> Script:
        """The script itself must fail. What comes out does too, and without any single one of its faults it does not."""
        self.best = script
        return self._rounder(self._fewer(self._closer(self._fewer(script))))

    def _fewer(self, script: Script) -> Script:
        """Leaves out halves, quarters, ..., single faults, for as long as that helps."""
        size = max(len(script) // 2, 1)
        while script:
            at, left_out = 0, False
            while at < len(script):
                rest = script[:at] + script[at + size :]
                if self._still(rest):
                    script, left_out = rest, True
                else:
                    at += size
            if size == 1 and not left_out:
                break
            size = max(size // 2, 1)
        return script

    def _closer(self, script: Script) -> Script:
        """Less time between one fault and the next."""
        for n in range(1, len(script)):
            gap = script[n].at - script[n - 1].at
            for least in (SOON_S, gap / 2):
                if gap > least and self._still(nearer := script[:n] + [replace(f, at=round(f.at - gap + least, 3)) for f in script[n:]]):
                    script = nearer
                    break
        return script

    def _rounder(self, script: Script) -> Script:
        """An early beginning and numbers that people can read."""
        if script and (earlier := [replace(f, at=round(f.at - script[0].at + 1.0, 3)) for f in script]) != script and self._still(earlier):
            script = earlier
        for n in range(len(script)):
            for change in (_whole_number, _one_place):
                tried = [change(f) if i == n else f for i, f in enumerate(script)]
                if tried[n] == script[n] or (tried == sorted(tried) and self._still(tried)):
                    script = tried
                    break
        return script


def _whole_number(fault: Fault) -> Fault:
    return replace(fault, at=round(fault.at, 1), number=float(round(fault.number)))


def _one_place(fault: Fault) -> Fault:
    return replace(fault, at=round(fault.at, 2), number=round(fault.number, 1))


def shrink(seed: int, nodes: int | None, mutant: str) -> int:
    """The story goes to the output, the progress elsewhere; Ctrl-C ends the work with the best story so far.

    Without one fault all messages may take another time, and what was found is missed for that alone: so a script is tried in some worlds.
    A mutant is planted by the caller.
    """
    world = world_of(seed, nodes, mutant)
    broken = judged(world)
    if not broken:
        sys.stdout.write(f"seed {seed} breaks no law: there is nothing to shrink\n")
        return 0
    law, found_in = (*world.laws.which, BREAKDOWN)[0], seed
    sys.stderr.write(f"{len(world.script)} faults break: {law}\n")

    def fails(script: Script) -> bool:
        nonlocal found_in
        for other in dict.fromkeys((found_in, seed, *range(OTHER_WORLDS))):
            again = World(other, world.shape, script=script)
            again.lasts_s = world.lasts_s
            if law in (*(line.partition("\n")[0] for line in judged(again)), *again.laws.which):
                found_in = other
                sys.stderr.write(f"  so do {len(script)}\n")
                return True
        return False

    shrinker = Shrinker(fails)
    try:
        shrinker.shrink(world.script)
    finally:
        script = tuple(shrinker.best)
        sys.stderr.write(f"{len(script)} of {len(world.script)} faults are enough ({shrinker.runs} scripts tried)\n")
        story = stories.Story(f"Seed {seed} broke: {law}", found_in, world.shape, jitter=True, lasts_s=world.lasts_s, script=script)
        sys.stdout.write(str(story.told()))
    return 1
