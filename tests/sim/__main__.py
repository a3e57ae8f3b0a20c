"""python -m tests.sim --seed N: one run, with its transcript. --many N: N runs on all cores, with a report."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path

from tests.sim import faults
from tests.sim.shape import of_seed
from tests.sim.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/sim", description="Runs the real agent in a simulated world.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="one run, with its transcript")
    what.add_argument("--many", type=int, metavar="N", help="seeds 0 to N-1 on all cores")
    parser.add_argument("--from", dest="first", type=int, default=0, help="with --many: the first seed")
    parser.add_argument("--script", type=Path, help="with --seed: these faults instead of the seed's own")
    parser.add_argument("--nodes", type=int, choices=(2, 3, 4, 5), help="instead of the seed's own number")
    options = parser.parse_args()
    if options.many is not None:
        return many(options.first, options.many, options.nodes)
    try:
        script = faults.parse(options.script.read_text()) if options.script else None
    except (OSError, faults.ScriptError) as error:
        parser.error(str(error))
    world = World(options.seed, of_seed(options.seed, options.nodes), transcript=True, script=script)
    broken = world.run()
    sys.stdout.write("\n".join(world.lines) + "\n")
    sys.stdout.write(f"seed {options.seed}: {world.loop.now:.0f} virtual s, leaders {world.laws.leaders}, broken laws: {len(broken)}\n")
    return 1 if broken else 0


def one(arguments: tuple[int, int | None]) -> tuple[int, list[str], float, int, Counter[str], Counter[str], int]:
    seed, nodes = arguments
    world = World(seed, of_seed(seed, nodes))
    broken = world.run()
    return seed, broken, world.loop.now, len(world.laws.leaders) - 1, world.happened, world.rules, len(world.clients.acknowledged)


def many(first: int, count: int, nodes: int | None) -> int:
    began = time.monotonic()
    failed: list[tuple[int, list[str]]] = []
    virtual_s, takeovers, rows = 0.0, 0, 0
    happened: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    with multiprocessing.Pool(maxtasksperchild=25) as pool:
        for seed, broken, seconds, changes, events, fired, acknowledged in pool.imap_unordered(
            one, [(first + n, nodes) for n in range(count)]
        ):
            virtual_s, takeovers, rows = virtual_s + seconds, takeovers + changes, rows + acknowledged
            happened.update(events)
            rules.update(fired)
            if broken:
                failed.append((seed, broken))
                sys.stdout.write(f"seed {seed}: {broken[0]}\n")
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"{count} runs, {virtual_s / 3600:.1f} virtual hours in {seconds:.0f} s ({virtual_s / seconds:.0f} virtual seconds a second), "
        f"{takeovers} changes of leader, {rows} acknowledged rows, {len(failed)} failing seeds: {sorted(s for s, _ in failed)[:20]}\n"
    )
    sys.stdout.write("faults: " + ", ".join(f"{k} {n}" for k, n in sorted(happened.items())) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
