"""scripts/sim: one run with its transcript, many runs with a report, a failing one shrunk, stories told. docs/simulation.md."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

from tests.sim import faults, report, stories, traps
from tests.sim.many import WorkerDiedError, judged, many, world_of
from tests.sim.mutants import MUTANTS
from tests.sim.planting import planted
from tests.sim.shrink import shrink
from tests.sim.world import World

INTERRUPTED = 128 + signal.SIGINT
COMMANDS = ("seed", "many", "shrink", "story", "write_stories", "faults")
BELONGS_TO = {  # what is said beside a command -> the commands that heed it
    "first": ("many",),
    "no_outages": ("many",),
    "mutant": ("seed", "many", "shrink", "story"),
    "script": ("seed",),
    "as_story": ("seed",),
    "nodes": ("seed", "many", "shrink"),
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        self.exit(2, f"{self.prog}: {message}\n")


def main() -> int:
    """The exit code: 0 no law was broken and every story goes as written, 1 else, 2 bad input, 130 Ctrl-C."""
    parser = _parser()
    o = parser.parse_args()
    _check(parser, o)
    try:
        if o.many is not None:
            return many(o.first or 0, o.many, o.nodes, o.mutant or "", with_outages=not o.no_outages)
        with planted(MUTANTS[o.mutant].plant) if o.mutant else nullcontext():
            return _one_of_a_kind(o)
    except (OSError, faults.ScriptError, stories.StoryError) as error:
        parser.error(str(error))
    except WorkerDiedError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _one_of_a_kind(o: argparse.Namespace) -> int:
    if o.faults:
        return list_faults()
    if o.shrink is not None:
        return shrink(o.shrink, o.nodes, o.mutant or "")
    if o.story is not None:
        return tell(o.story)
    if o.write_stories:
        return write_stories()
    world = world_of(o.seed, o.nodes, o.mutant or "", script=_script(o.script) if o.script else None, transcript=True)
    return as_story(world, o.mutant) if o.as_story else one(world)


def _script(path: Path) -> faults.Script:
    """Raises ScriptError, naming the file."""
    try:
        return faults.parse(path.read_text())
    except (OSError, UnicodeDecodeError, faults.ScriptError) as error:
        raise faults.ScriptError(f"{path}: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="scripts/sim", description="Runs the real agent in a simulated world.", allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, metavar="N", help="one run, with its transcript")
    what.add_argument("--many", type=_count, metavar="N", help="that many seeds on all cores, with a report")
    what.add_argument("--shrink", type=int, metavar="N", help="the few faults that a failing seed needs, as a story")
    what.add_argument("--story", type=Path, metavar="FILE", help="tells a story, and shows what differs from how it is written")
    what.add_argument("--write-stories", action="store_true", help="writes down how all stories go now; read the diff before you commit it")
    what.add_argument("--faults", action="store_true", help="what can go wrong, and what each number means")
    parser.add_argument("--from", dest="first", type=int, metavar="N", help="with --many: the first seed")
    parser.add_argument("--no-outages", action="store_true", help="with --many: without the single faults after the seeds")
    parser.add_argument("--mutant", type=_mutant, metavar="NAME", help="with this bug planted into the agent (mutants.py)")
    parser.add_argument("--script", type=Path, metavar="FILE", help="with --seed: these faults instead of the seed's own")
    parser.add_argument("--as-story", action="store_true", help="with --seed: its faults and what comes of them as a story")
    parser.add_argument("--nodes", type=int, choices=(2, 3, 4, 5), help="instead of the seed's own number")
    return parser


def _check(parser: argparse.ArgumentParser, o: argparse.Namespace) -> None:
    """What would be ignored is refused."""
    given = {name for name, value in vars(o).items() if value is not None and value is not False}
    command = next(name for name in COMMANDS if name in given)
    for name, heeded_by in BELONGS_TO.items():
        if name in given and command not in heeded_by:
            option = "--from" if name == "first" else f"--{name.replace('_', '-')}"
            parser.error(f"{option} goes with {' and '.join(f'--{other}' for other in heeded_by)}, not with --{command.replace('_', '-')}")
    if o.nodes and o.mutant and MUTANTS[o.mutant].script and not o.script:
        parser.error(f"--nodes: the mutant {o.mutant} has a script, and a cluster of its own for it")


def _mutant(text: str) -> str:
    if text not in MUTANTS:
        raise argparse.ArgumentTypeError(f"no mutant is called {text!r}{faults.nearest(text, MUTANTS, 'tests/sim/mutants.py')}")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of runs")
    return int(text)


def one(world: World) -> int:
    """What it told by then is printed too when Ctrl-C ends it."""
    broken: list[str] = []
    try:
        broken = judged(world)
    finally:
        sys.stdout.write("\n".join(world.lines) + "\n")
        sys.stdout.write(f"seed {world.seed}: {world.shape}, {world.loop.now:.0f} virtual s, leaders {' '.join(world.laws.leaders)}\n")
    sys.stdout.write(report.of_laws(broken, world.laws.which))
    return 1 if broken else 0


def as_story(world: World, mutant: str | None) -> int:
    """`world` is only asked what it is about."""
    world.loop.close()
    about = f"Seed {world.seed}" + (f" with the mutant {mutant}" if mutant else "")
    story = stories.Story(about, world.seed, world.shape, jitter=True, lasts_s=world.lasts_s, script=tuple(world.script)).told()
    sys.stdout.write(str(story))
    return 1 if story.broken else 0


def tell(path: Path) -> int:
    story = stories.read(path)
    now = story.told()
    sys.stdout.write(str(now))
    if now.broken:
        sys.stderr.write(f"\n{len(now.broken)} times a law is broken, first:\n{now.broken[0]}\n")
    if story.transcript and (diff := story.differs(now)):
        sys.stderr.write(f"\nIt is written otherwise:\n{diff}\n")
        return 1
    return 1 if now.broken else 0


def write_stories() -> int:
    done = stories.rewrite()
    for path in done.changed:
        sys.stdout.write(f"changed: {path}\n")
    for path in done.broken:
        sys.stderr.write(f"a law is broken in {path}\n")
    return 1 if done.broken else 0


def list_faults() -> int:
    """Of the traps only how their names are made: there are too many."""
    for kind, fault in sorted(faults.KINDS.items()):
        if kind not in faults.TRAPS and kind not in faults.SYNC_TRAPS:
            sys.stdout.write(f"{kind:30} {faults.number(fault):8} {faults.about(fault)}\n")
    sys.stdout.write("\nseconds: how long it lasts, where the text says nothing else; -: the number does not matter.\n")
    sys.stdout.write(f"{traps.about()}\n")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    sys.exit(main())
