"""Which processes are Postgres on a given directory, as the kernel tells it: program and working directory, never a number in a file.

It reads /proc alone, so that a hanging disk cannot hold it up, and imports next to nothing: the guard, a process of a few megabytes,
uses it too. It must never say yes of a process that it cannot see into.
"""

from __future__ import annotations

import os


def is_postgres_at(pid: int, real_dir: str) -> bool:
    """Does the process run the postgres program in this directory, given as `os.path.realpath` gives it? (HAZARDS E 67)"""
    try:
        exe = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # deleted: the package was upgraded under it
        if not os.path.basename(exe).startswith(("postgres", "postmaster")):
            return False
        return os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)") == real_dir
    except OSError:
        return False


def postgres_at(real_dir: str) -> list[int]:
    """Every Postgres process that works in the directory: the postmaster and its children, or what a dead one left behind."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and is_postgres_at(int(name), real_dir)]


def parent_of(pid: int) -> int:
    """0 when there is no such process. Unlike its command line, this can be read of a process that is stuck in the kernel."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])  # the name in the parentheses may hold anything
    except (OSError, IndexError, ValueError):
        return 0
