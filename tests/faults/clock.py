"""A wall clock for each host that can be stepped, by a library that is preloaded into its programs: tests/faults/clock.c.

A time namespace has no wall clock of its own, and the machine's is not ours to set. Without a C compiler there are no such clocks.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.lab.processes import give_away

SOURCE = Path(__file__).with_name("clock.c")
BUILD_S = 60.0


def missing() -> str | None:
    """Why no host can have a clock of its own; None: it can."""
    return None if shutil.which("cc") else "a host's own clock needs a C compiler: apt-get install gcc libc6-dev"


def build(folder: Path) -> Path:
    """The library, compiled into this folder. Raises subprocess.CalledProcessError with the compiler's words on stderr."""
    library = folder / "clock.so"
    argv = ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(argv, check=True, timeout=BUILD_S, stdin=subprocess.DEVNULL)
    library.chmod(0o755)
    return library


class Clock:
    """Of one host. Its step is seen by all the host's programs at once."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._file = folder / "clock"
        self._library = library
        self.step(0)
        give_away(self._file)

    def step(self, seconds: float) -> None:
        """So far from the machine's own clock, from now on: whole seconds. Written in place, because it is mapped."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", int(seconds)))

    @property
    def environment(self) -> Mapping[str, str]:
        return {"LD_PRELOAD": str(self._library), "RIVHA_FAULTS_CLOCK": str(self._file)}
