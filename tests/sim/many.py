"""Many seeds on all cores, and the report of them. Called by `scripts/sim --many N`."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter

from tests.sim.shape import of_seed
from tests.sim.world import World


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
