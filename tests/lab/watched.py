"""`python -m tests.lab.watched CONFIG`: the agent, with every blocking call in its event loop turned into an error.

A tick that waits for a disk or a DNS server renews no lease. blockbuster raises BlockingError where the loop's thread would block; what
Python itself imports lazily, and looking into /proc and the clock, is no waiting.
"""

from __future__ import annotations

import sys

from blockbuster import BlockBuster

from rivha import __main__


def main() -> int:
    guard = BlockBuster(excluded_modules=["importlib", "traceback", "linecache", "inspect"])
    guard.activate()
    return __main__.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
