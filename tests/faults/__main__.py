"""`python -m tests.faults FAULT...`: a cluster in namespaces of its own, these faults one after another, and what clients saw.

`--list` names them; `all` is every one. `--serve` takes fault names as lines on standard input and answers each with a line of JSON: that
is how tests/faults/conftest.py drives it. Exit codes: 0 all well, 1 a law was broken or the cluster did not come back, 3 it cannot run
here, 130 interrupted.
RIVHA_LAB_KEEP=1 keeps the directory with all logs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from typing import Any

from tests.faults import world
from tests.faults.catalogue import FAULTS
from tests.faults.chaos import Chaos
from tests.faults.site import Site
from tests.faults.trial import suffer
from tests.lab.binaries import NotFoundError
from tests.lab.node import Wishes


def options(argv: list[str]) -> argparse.Namespace:
    asked = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("faults", nargs="*", metavar="FAULT")
    asked.add_argument("--list", action="store_true", help="name the faults")
    asked.add_argument("--serve", action="store_true", help="faults as lines on standard input, answers as lines of JSON")
    asked.add_argument("--mode", choices=("off", "on", "quorum"), help="synchronous_mode (default: the cluster's own default)")
    asked.add_argument("--postgres", type=int, metavar="MAJOR", help="14 to 18 (default: the newest that Debian's packages installed)")
    asked.add_argument("--disk", default="", metavar="SIZE", help="each database on a file system of its own of this size, in memory")
    asked.add_argument("--clocks", action="store_true", help="each database host with a wall clock of its own")
    asked.add_argument("--careless", action="store_true", help="clients wait for no standby: what they lose must be noticed")
    asked.add_argument("--seed", type=int, metavar="N", help="no single faults, but those that this seed draws")
    asked.add_argument("--minutes", type=float, default=10.0, metavar="M", help="for so long (with --seed)")
    found = asked.parse_args(argv)
    found.faults = list(FAULTS) if found.faults == ["all"] else found.faults
    if unknown := set(found.faults) - set(FAULTS):
        asked.error(f"no such fault: {', '.join(sorted(unknown))}; --list names them")
    return found


def site(found: argparse.Namespace) -> Site:
    dynamic = {"synchronous_mode": found.mode} if found.mode else {}
    return Site(wishes=Wishes(dynamic=dynamic), postgres=found.postgres, disk=found.disk, clocks=found.clocks, careless=found.careless)


async def run(found: argparse.Namespace) -> int:
    async with site(found) as lab:
        print(f"the lab is {lab.root}", flush=True)
        try:
            await lab.up()
            for name in found.faults:
                print((await suffer(lab, name, FAULTS[name])).line(), flush=True)
            if found.seed is not None:
                chaos = Chaos(lab, found.seed, found.minutes, lambda text: print(text, flush=True))
                await chaos.run()
                print(chaos.summary())
        except AssertionError:
            lab.keep()
            print(f"its logs are kept in {lab.root}", flush=True)
            raise
    return 0


async def serve(found: argparse.Namespace) -> int:
    """One site for all that is asked; a fault that fails says why, and the next begins with a whole cluster or fails, too."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with site(found) as lab:
        await lab.up()
        answer(root=str(lab.root))
        while name := (await reader.readline()).decode().strip():
            try:
                trial = await suffer(lab, name, FAULTS[name])
            except AssertionError as failure:
                lab.keep()
                answer(failure=f"{name}: {failure}\nkept: {lab.root}")
            else:
                answer(trial=trial.as_json(), line=trial.line())
    return 0


def answer(**content: Any) -> None:
    print(json.dumps(content), flush=True)


async def main(argv: list[str]) -> int:
    found = options(argv)
    if found.list:
        for name, harm in FAULTS.items():
            print(f"{name:32} {(harm.__doc__ or '').strip()}")
        return 0
    try:
        world.enter("tests.faults", argv)
    except world.CannotMakeNamespacesError as why:
        print(why, file=sys.stderr)
        return 3
    task = asyncio.create_task(serve(found) if found.serve else run(found))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        print("interrupted: everything was ended and removed", file=sys.stderr)
        return 130
    except AssertionError as failure:
        print(failure, file=sys.stderr)
        return 1
    except NotFoundError as why:
        print(why, file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
