"""What the benchmarks share: arguments, the machine, and a table of figures with their targets."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tests.lab import binaries
from tests.lab.node import REPOSITORY

BUSY_LOAD = 0.7  # of each core: above it somebody else is working on this machine, and the figures are too high


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what was measured in each round, and what it must reach."""

    name: str
    unit: str
    values: tuple[float, ...]
    target: float | None = None  # at most; None: shown for comparison only
    judged_by: Literal["median", "worst"] = "median"

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def worst(self) -> float:
        return max(self.values)

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "met" if getattr(self, self.judged_by) <= self.target else "MISSED"

    def cells(self) -> tuple[str, ...]:
        target = "" if self.target is None else f"{'every one ' if self.judged_by == 'worst' else ''}<= {self.target:g}"
        each = " ".join(f"{value:.4g}" for value in self.values[:10])
        return (self.name, self.unit, f"{self.median:.4g}", f"{self.worst:.4g}", target, self.verdict, each)


HEAD = ("figure", "unit", "median", "worst", "target", "", "each")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the figures come from."""

    system: str
    processor: str
    python: str
    postgres: str
    etcd: str
    haproxy: str
    load_before: float  # of the last minute

    @staticmethod
    def here(postgres: int | None = None) -> Machine:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        return Machine(
            system=f"{platform.freedesktop_os_release().get('PRETTY_NAME', '?')}, Linux {platform.release()}",
            processor=f"{len(os.sched_getaffinity(0))} x {_processor()}, {memory:.0f} GB",
            python=platform.python_version(),
            postgres=_says(binaries.postgres(postgres) / "postgres", "--version"),
            etcd=_says(binaries.etcd(), "--version"),
            haproxy=_says(binaries.haproxy(), "-v"),
            load_before=round(os.getloadavg()[0], 2),
        )

    def text(self) -> str:
        programs = f"{self.postgres}; {self.etcd}; {self.haproxy}; Python {self.python}"
        return f"{self.system}; {self.processor}\n{programs}\nload before: {self.load_before}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _says(program: Path, option: str) -> str:
    env = os.environ | binaries.haproxy_environment()
    done = subprocess.run([program, option], capture_output=True, text=True, timeout=20, check=True, env=env)
    return done.stdout.splitlines()[0].partition(" https:")[0]


def parser(doc: str) -> argparse.ArgumentParser:
    """The options that all of them have."""
    found = argparse.ArgumentParser(description=doc.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    found.add_argument("--rounds", type=int, default=5, metavar="N", help="how often each thing is measured")
    found.add_argument("--postgres", type=int, metavar="MAJOR", help="14 to 18 (default: the newest that Debian's packages installed)")
    found.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return found


def prepare() -> None:
    """What an installation does once: byte code. A lab writes none, and would compile the agent at every start."""
    if not compileall.compile_dir(REPOSITORY / "rivha", quiet=2):
        say(f"no byte code can be written below {REPOSITORY}: each start of an agent takes half a second more")
    if os.getloadavg()[0] > BUSY_LOAD * len(os.sched_getaffinity(0)):
        say(f"the load of this machine is {os.getloadavg()[0]:.1f}: somebody else is working, expect worse figures")


def say(text: str) -> None:
    """Progress, for whoever waits; the table alone goes to standard output."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def show(machine: Machine, figures: Sequence[Figure], json_file: Path | None, notes: Sequence[str] = ()) -> int:
    """Prints the table, writes the file. 1 when a target was missed, else 0: the program's exit code."""
    command = " ".join(["./scripts/bench", Path(sys.argv[0]).stem, *sys.argv[1:]])
    print(f"{command}\n{machine.text()}\n")
    rows = [HEAD, *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for note in notes:
        print(f"\n{note}")
    if json_file is not None:
        content = {
            "command": command,
            "machine": asdict(machine),
            "figures": [asdict(f) | {"median": f.median, "worst": f.worst, "verdict": f.verdict} for f in figures],
            "notes": list(notes),
        }
        json_file.write_text(json.dumps(content, indent=1) + "\n")
    return int(any(figure.verdict == "MISSED" for figure in figures))
