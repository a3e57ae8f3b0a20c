"""docs/failover.md and its plot, from one run of `./scripts/bench failover --page`. What is written by hand outside the marks stays."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Protocol

from benchmarks.report import Machine

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
WIDTH, HEIGHT, GAP, LEFT, TOP = 470, 74, 34, 34, 40  # of one panel, in SVG units
COLOURS = ("#0b6e4f", "#c8553d", "#8d99ae")


class Seen(Protocol):
    """What the page needs of a benchmark's round."""

    system: str
    fault: str
    outage_s: float
    acknowledged: int
    unknown: int
    refused: int
    lost: int
    failed_over: bool
    writable: int
    writes: list[int]


def write(
    folder: Path, machine: Machine, titles: Mapping[str, str], unnoticed: Sequence[str], rounds: Sequence[Seen], notes: Sequence[str]
) -> None:
    """`unnoticed`: the faults of which no client is to notice anything."""
    page = folder / "failover.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table(machine, titles, unnoticed, rounds, notes)}\n{END}{after}")
    (folder / "failover.svg").write_text(plot(titles, rounds))


def table(machine: Machine, titles: Mapping[str, str], unnoticed: Sequence[str], rounds: Sequence[Seen], notes: Sequence[str]) -> str:
    systems = list(dict.fromkeys(r.system for r in rounds))
    counts = {system: sum(r.system == system and r.fault == rounds[0].fault for r in rounds) for system in systems}
    head = ["no write for, in seconds: median (worst)", *systems, *(f"{name} / {systems[0]}" for name in systems[1:])]
    lines = [
        f"{machine.text()}\n",
        f"Rounds: {', '.join(f'{system} {count}' for system, count in counts.items())}.\n",
        _row(head),
        _row(["---"] * len(head)),
    ]
    for fault in dict.fromkeys(r.fault for r in rounds):
        each = [[r for r in rounds if (r.system, r.fault) == (system, fault)] for system in systems]
        medians = [statistics.median(r.outage_s for r in mine) if mine else 0.0 for mine in each]
        ratios = [f"{median / max(medians[0], 0.01):.1f}" for median in medians[1:]]
        lines.append(_row([titles[fault], *map(_cell, each), *ratios]))
    for fault in (name for name in unnoticed if any(r.fault == name for r in rounds)):
        each = [[r for r in rounds if (r.system, r.fault) == (system, fault)] for system in systems]
        for what, count in (("statements that failed", _failed), ("other leaders", _other_leaders)):
            cells = [" ".join(str(count(r)) for r in mine) or "-" for mine in each]
            lines.append(_row([f"{what}: {titles[fault]}", *cells, *([""] * (len(systems) - 1))]))
    for what in ("acknowledged", "lost"):
        sums = [str(sum(getattr(r, what) for r in rounds if r.system == system)) for system in systems]
        lines.append(_row([f"rows {what}", *sums, *([""] * (len(systems) - 1))]))
    second = (
        "\\* Two Postgres servers were out of recovery when writes went on. The old one could not acknowledge any: nobody confirmed it."
    )
    return "\n".join([*lines, "", *(f"{note}.  " for note in notes), "", second])


def _failed(seen: Seen) -> int:
    return seen.unknown + seen.refused


def _other_leaders(seen: Seen) -> int:
    return int(seen.failed_over)


def _cell(mine: Sequence[Seen]) -> str:
    if not mine:
        return "-"
    outages = [r.outage_s for r in mine]
    mark = " \\*" if any(r.writable > 1 for r in mine) else ""
    return f"{statistics.median(outages):.2f} ({max(outages):.2f}){mark}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plot(titles: Mapping[str, str], rounds: Sequence[Seen]) -> str:
    """Per fault the first round of each system: acknowledged writes per 100 ms, from two seconds before the fault on."""
    faults = list(dict.fromkeys(r.fault for r in rounds))
    systems = list(dict.fromkeys(r.system for r in rounds))
    height = TOP + len(faults) * (HEIGHT + GAP)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 12} {height}" font-family="sans-serif" font-size="10">']
    lines.append(
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text x="{LEFT}" y="14">writes acknowledged per 100 ms; seconds from the fault</text>'
    )
    for number, system in enumerate(systems):
        lines.append(f'<text x="{LEFT + 120 * number}" y="28" fill="{COLOURS[number % 3]}">{escape(system)}</text>')
    for number, fault in enumerate(faults):
        firsts = [next((r for r in rounds if (r.system, r.fault) == (system, fault)), None) for system in systems]
        lines += _panel(titles[fault], firsts, TOP + number * (HEIGHT + GAP))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _panel(title: str, firsts: Sequence[Seen | None], top: float) -> Iterator[str]:
    slices = max(len(r.writes) for r in firsts if r)
    peak = max(1, *(max(r.writes) for r in firsts if r))
    yield f'<text x="{LEFT}" y="{top + 8}" font-weight="bold">{escape(title)}</text>'
    floor = top + 12 + HEIGHT
    yield f'<line x1="{LEFT}" y1="{floor}" x2="{LEFT + WIDTH}" y2="{floor}" stroke="#999"/>'
    yield f'<text x="{LEFT - 4}" y="{top + 20}" text-anchor="end">{peak}</text>'
    for second in range(0, round(slices / 10) - 1, 5):
        x = LEFT + (second + 2) * 10 * WIDTH / slices
        yield f'<line x1="{x:.1f}" y1="{floor}" x2="{x:.1f}" y2="{floor + 3}" stroke="#999"/>'
        yield f'<text x="{x:.1f}" y="{floor + 12}" text-anchor="middle">{second}</text>'
    for number, seen in enumerate(firsts):
        if seen is None:
            continue
        points = [f"{LEFT + i * WIDTH / slices:.1f},{floor - HEIGHT * n / peak:.1f}" for i, n in enumerate(seen.writes)]
        yield f'<polyline fill="none" stroke="{COLOURS[number % 3]}" stroke-width="1" points="{" ".join(points)}"/>'
