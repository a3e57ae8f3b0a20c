"""Cleans up after a lab, whatever became of the program that ran it: Ctrl-C, a crash, kill -9.

A process of its own, in a session of its own. It waits for the end of its standard input, which comes when its parent closes the pipe or
dies; then it kills every program of the lab (known by program and working directory, HAZARDS 67) and removes the lab's directory.
`python -m tests.lab.janitor ROOT PROGRAM_OR_FOLDER...`
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.lab.processes import guards_below, signal_all, sweep, working_below

REPOSITORY = Path(__file__).resolve().parents[2]


class Janitor:
    """The parent's side: hire it before anything is started, dismiss it last."""

    def __init__(self, root: Path, programs: Sequence[Path]) -> None:
        argv = [sys.executable, "-m", "tests.lab.janitor", str(root), *map(str, programs)]
        env = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ.get("PATH", ""), "RIVHA_LAB_KEEP": os.environ.get("RIVHA_LAB_KEEP", "")}
        self._child = subprocess.Popen(argv, stdin=subprocess.PIPE, cwd="/", env=env, start_new_session=True)

    def dismiss(self, deadline_s: float = 60.0) -> None:
        """Returns when nothing of the lab is left. Raises subprocess.TimeoutExpired, or RuntimeError when it could not clean up."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        if self._child.wait(deadline_s):
            raise RuntimeError("the lab's janitor could not clean up; its message is above")


async def clean(root: Path, programs: Sequence[Path]) -> None:
    """Agents first: they would start Postgres again."""
    agents = [pid for pid in working_below(root) if _is_agent(pid)]
    signal_all(agents + guards_below(root), signal.SIGKILL)
    for program in programs:
        await sweep(root, programs=program)
    for pid_file in root.glob("**/postmaster.pid"):
        forget_shared_memory(pid_file)
    if not os.environ.get("RIVHA_LAB_KEEP"):
        shutil.rmtree(root, ignore_errors=True)
        if root.exists():  # something was still being written
            await asyncio.sleep(0.5)
            shutil.rmtree(root)


def forget_shared_memory(pid_file: Path) -> None:
    """A killed postmaster leaves a System V segment behind until Postgres starts there again, and a kernel has but 4096 of them."""
    words = pid_file.read_text(errors="replace").split("\n")[6:7]
    shared = words[0].split() if words else []
    if len(shared) == 2 and shared[1].isdigit():  # its key and its number; one that others are attached to stays until they are gone
        subprocess.run(["ipcrm", "-m", shared[1]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=10, check=False)


def _is_agent(pid: int) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"rivha" in argv and b"-m" in argv


def main(argv: Sequence[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    asyncio.run(clean(Path(argv[0]), [Path(program) for program in argv[1:]]))


if __name__ == "__main__":
    main(sys.argv[1:])
