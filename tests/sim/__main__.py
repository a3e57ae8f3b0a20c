"""scripts/sim: one run with its transcript, many runs with a report, a failing one shrunk, stories told. docs/simulation.md."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

from tests.sim import faults, stories
from tests.sim.many import many
from tests.sim.mutants import MUTANTS
from tests.sim.planting import planted
from tests.sim.shape import of_seed
from tests.sim.shrink import Shrinker
from tests.sim.world import World

OTHER_WORLDS = 3


def main() -> int:
    """The exit code: 0 no law was broken and every story goes as written, 1 else, 2 bad input."""
    parser = _parser()
    o = parser.parse_args()
    if o.mutant and o.write_stories:
        parser.error("--write-stories does not write down what a mutant does")
    try:
        if o.many is not None:
            return many(o.first, o.many, o.nodes, o.mutant or "")
        with planted(MUTANTS[o.mutant].plant) if o.mutant else nullcontext():
            return _one_of_a_kind(o)
    except (OSError, UnicodeDecodeError, faults.ScriptError, stories.StoryError) as error:
        parser.error(str(error))


def _one_of_a_kind(o: argparse.Namespace) -> int:
    if o.shrink is not None:
        return shrink(o.shrink, o.nodes)
    if o.story is not None:
        return tell(o.story)
    if o.write_stories:
        return write_stories()
    return one(o.seed, o.nodes, faults.parse(o.script.read_text()) if o.script else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/sim", description="Runs the real agent in a simulated world.", allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, metavar="N", help="one run, with its transcript")
    what.add_argument("--many", type=_count, metavar="N", help="that many seeds on all cores, with a report")
    what.add_argument("--shrink", type=int, metavar="N", help="the few faults that a failing seed needs, as a story")
    what.add_argument("--story", type=Path, metavar="FILE", help="tells a story, and shows what differs from how it is written")
    what.add_argument("--write-stories", action="store_true", help="writes down how all stories go now; read the diff before you commit it")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="N", help="with --many: the first seed")
    parser.add_argument("--mutant", type=_mutant, metavar="NAME", help="with this bug planted into the agent (mutants.py)")
    parser.add_argument("--script", type=Path, metavar="FILE", help="with --seed: these faults instead of the seed's own")
    parser.add_argument("--nodes", type=int, choices=(2, 3, 4, 5), help="instead of the seed's own number")
    return parser


def _mutant(text: str) -> str:
    if text not in MUTANTS:
        known = "\n".join(f"  {name}: {mutant.what}" for name, mutant in sorted(MUTANTS.items()))
        raise argparse.ArgumentTypeError(f"no mutant is called {text!r}; there are\n{known}")
    return text


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is no number of runs")
    return count


def one(seed: int, nodes: int | None, script: faults.Script | None) -> int:
    shape = of_seed(seed, nodes)
    faults.check_hosts(script or [], shape.names)
    world = World(seed, shape, transcript=True, script=script)
    broken = world.run()
    sys.stdout.write("\n".join(world.lines) + "\n")
    sys.stdout.write(f"seed {seed}: {world.shape}, {world.loop.now:.0f} virtual s, leaders {' '.join(world.laws.leaders)}\n")
    sys.stdout.writelines(f"{law.strip()}\n" for law in broken)
    return 1 if broken else 0


def shrink(seed: int, nodes: int | None) -> int:
    """The story goes to the output, the progress elsewhere.

    Without one fault all messages may take another time, and what was found is missed for that alone: so a script is tried in some worlds.
    """
    shape = of_seed(seed, nodes)
    world = World(seed, shape)
    if not world.run():
        sys.stdout.write(f"seed {seed} breaks no law: there is nothing to shrink\n")
        return 0
    law, found_in = world.laws.which[0], seed
    sys.stderr.write(f"{len(world.script)} faults break: {law}\n")

    def fails(script: faults.Script) -> bool:
        nonlocal found_in
        for other in dict.fromkeys((found_in, seed, *range(OTHER_WORLDS))):
            again = World(other, shape, script=script)
            again.run()
            if law in again.laws.which:
                found_in = other
                sys.stderr.write(f"  so do {len(script)}\n")
                return True
        return False

    shrinker = Shrinker(fails)
    script = shrinker.shrink(world.script)
    sys.stderr.write(f"{len(script)} of {len(world.script)} faults are needed ({shrinker.runs} scripts tried)\n")
    story = stories.Story(f"Seed {seed} broke: {law}", found_in, shape, jitter=True, script=tuple(script))
    sys.stdout.write(str(story.told()))
    return 1


def tell(path: Path) -> int:
    story = stories.read(path)
    now = story.told()
    sys.stdout.write(str(now))
    if story.transcript and (diff := story.differs(now)):
        sys.stderr.write(f"\nIt is written otherwise:\n{diff}\n")
        return 1
    return 0


def write_stories() -> int:
    for path in stories.rewrite():
        sys.stdout.write(f"changed: {path}\n")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    sys.exit(main())
