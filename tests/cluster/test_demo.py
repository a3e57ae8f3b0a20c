"""scripts/demo does what the README promises, with a terminal and without, and leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.node import REPOSITORY
from tests.lab.processes import working_below

pytestmark = pytest.mark.real

# The environment that runs the tests has all that the demo needs; what scripts/lib.sh sets up is for a machine without one.
ENVIRONMENT = os.environ | {"RIVHA_VENV": sys.prefix, "TERM": "dumb", "COLUMNS": "200"}
PATIENCE_S = 300


class Demo:
    """A running scripts/demo and everything that it has said."""

    def __init__(self, *, terminal: bool) -> None:
        self.said = ""
        if terminal:
            self.output, theirs = pty.openpty()
        else:
            self.output, theirs = os.pipe()
        self.child = subprocess.Popen(
            [REPOSITORY / "scripts" / "demo"],
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        os.close(theirs)
        os.set_blocking(self.output, False)

    def read(self) -> None:
        try:
            self.said += os.read(self.output, 1 << 16).decode(errors="replace")
        except (BlockingIOError, OSError):  # nothing now; EIO: a terminal whose other side is closed
            return

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.said
            self.read()
            time.sleep(0.05)

    def says(self, text: str) -> None:
        self.until(lambda: text in self.said or self.child.poll() is not None)
        assert text in self.said, self.said

    def ended(self) -> int:
        self.until(lambda: self.child.poll() is not None)
        self.read()
        os.close(self.output)
        return self.child.returncode

    @property
    def root(self) -> Path:
        found = re.search(r"everything lies in (/tmp/rivha-\w+)", self.said)
        assert found, self.said
        return Path(found[1])

    def nothing_is_left(self) -> bool:
        return not self.root.exists() and not working_below(self.root)


def test_with_a_terminal_it_tells_the_story_stays_up_and_goes_at_ctrl_c() -> None:
    demo = Demo(terminal=True)
    demo.says("Ctrl-C ends it")
    assert re.search(r"acknowledged \d+ rows, lost 0\b", demo.said), demo.said
    assert demo.said.count("writes stood still for") == 3
    assert "synchronous replication (`quorum`)" in demo.said
    assert len(working_below(demo.root)) > 6, "it stays up"
    demo.child.send_signal(signal.SIGINT)
    assert demo.ended() == 0, demo.said
    assert demo.nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_in_the_middle_it_leaves_nothing_behind(number: signal.Signals) -> None:
    demo = Demo(terminal=False)
    demo.says("a client writes through HAProxy")
    demo.child.send_signal(number)
    assert demo.ended() == 130, demo.said
    assert "interrupted" in demo.said
    assert demo.nothing_is_left()


def test_without_a_terminal_it_ends_by_itself() -> None:
    demo = Demo(terminal=False)
    assert demo.ended() == 0, demo.said
    assert re.search(r"acknowledged \d+ rows, lost 0\b", demo.said), demo.said
    assert demo.nothing_is_left()
