"""What `scripts/sim` tells of its runs: `--many N` of all together, `--seed N` of the laws that one broke."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rivha.agent.brain.decide import LEASE, POSTGRES
from tests.sim import faults

if TYPE_CHECKING:
    from tests.sim.many import Result

ENOUGH = 200  # runs: with fewer, faults that none had tell nothing


def of_laws(broken: Sequence[str], which: Sequence[str]) -> str:
    """How often each law was broken, and last the first of all, which the others may follow from."""
    if not broken:
        return ""
    counted = Counter(which)  # in the order of their first time
    first = {law: next(line.split()[0] for line in broken if f"LAW BROKEN: {law}" in line) for law in counted}
    lines = [f"law broken: {law}: {'once' if n == 1 else f'{n} times, first'} at {first[law]}" for law, n in counted.items()]
    return "\n".join([*lines, broken[0]]) + "\n"


def of_runs(r: Result, seconds: float, *, complete: bool = False) -> str:
    """`seconds`: of the machine's time. `complete`: so many runs of all kinds that a fault which none had is worth telling."""
    synchronous = any(r.happened[kind] for kind in faults.SYNCHRONOUS)
    own = {**faults.SYNCHRONOUS, **faults.SYNC_TRAPS}
    possible = [kind for kind in sorted(faults.KINDS) if kind not in faults.WRITTEN and (synchronous or kind not in own)]
    traps = [kind for kind in possible if kind in faults.TRAPS or kind in faults.SYNC_TRAPS]
    changes = ", ".join(f"{r.changes[kind]} {word}" for kind, word in _CHANGES)
    speed = f"{r.virtual_s / seconds:.0f} virtual seconds a second"
    lines = [
        f"{r.runs} runs, {r.virtual_s / 3600:.1f} virtual hours in {seconds:.0f} s ({speed})",
        f"{changes}; {r.rows} rows acknowledged",
        f"laws broken in {len(r.failed)} runs: {' '.join(str(seed) for seed in sorted(r.failed)[:20])}".rstrip(": "),
        "",
        "faults: " + ", ".join(f"{kind} {r.happened[kind]}" for kind in possible if kind not in traps),
        f"traps: {sum(r.happened[kind] for kind in traps)} set, of {sum(r.happened[kind] > 0 for kind in traps)} of the {len(traps)} kinds",
    ]
    if complete and (missing := [kind for kind in possible if not r.happened[kind]]):
        lines.append("faults that no run had: " + ", ".join(missing))
    return "\n".join(lines) + "\n"


_CHANGES = (("failover", "failovers"), ("switchover", "switchovers"), ("regained", "times the same node led again"))


def of_rules(r: Result) -> str:
    """Which of the brain's rules decided in some run, and which in none."""
    rules = sorted({rule.__name__ for table in (LEASE, *POSTGRES.values()) for rule in table})
    idle = [rule for rule in rules if not r.rules[rule]]
    return f"\nrules of the brain that decided: {len(rules) - len(idle)} of {len(rules)}; in no run: {', '.join(idle) or 'none is left'}\n"


def of_outages(found: Mapping[str, Sequence[float]]) -> str:
    """A table; in virtual seconds, so it is the same on every machine."""
    runs = max((len(seconds) for seconds in found.values()), default=0)
    lines = [f"\nlongest write outage around a single fault on the leader ({runs} runs each), virtual seconds: median, 95 %, worst"]
    for kind, seconds in sorted(found.items(), key=lambda item: (-percentile(item[1], 50), item[0])):
        lines.append(f"  {kind:30} {percentile(seconds, 50):7.2f} {percentile(seconds, 95):7.2f} {max(seconds):7.2f}")
    return "\n".join(lines) + "\n"


def percentile(numbers: Sequence[float], per_cent: int) -> float:
    """The smallest number that so many per cent do not exceed."""
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * per_cent // 100) - 1))]
