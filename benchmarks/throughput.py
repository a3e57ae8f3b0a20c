"""What agents cost the database's users: `./scripts/bench throughput [--rounds 5] [--seconds 30]`.

pgbench's TPC-B with 8 clients on a synchronous cluster (`quorum`), straight to the primary, with the agents at work and with every agent
frozen (SIGSTOP, so that nobody starts them anew and nothing but they is missing), in turns, so that what changes on the machine changes
both. All of it shares one machine: on hosts of their own, two of the three agents would cost the primary nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys

from benchmarks.report import Figure, Machine, parser, prepare, say, show
from tests.lab.cluster import Lab
from tests.lab.node import Node, Wishes
from tests.lab.ports import LOOPBACK

CLIENTS, THREADS, SCALE = 8, 2, 20
TARGET_PERCENT = 3.0
PARAMETERS = {"shared_buffers": "256MB", "max_wal_size": "4GB"}  # no checkpoint falls into a run by itself
TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


async def pgbench(lab: Lab, primary: Node, *options: str) -> str:
    """What it says. Raises RuntimeError with its words when it fails."""
    where = ("-h", LOOPBACK, "-p", str(primary.postgres_port), "-U", "postgres", "postgres")
    child = await asyncio.create_subprocess_exec(
        str(lab.bin_dir / "pgbench"),
        *options,
        *where,
        env=os.environ | {"PGPASSWORD": lab.passwords.superuser},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await child.communicate())[0].decode()
    if child.returncode != 0:
        raise RuntimeError(f"pgbench ended with {child.returncode}:\n{said}")
    return said


async def transactions_per_s(lab: Lab, primary: Node, seconds: int) -> float:
    """Raises RuntimeError when pgbench fails, or when the primary did not stay the primary."""
    timeline = "SELECT timeline_id FROM pg_control_checkpoint()"
    await primary.fetch("CHECKPOINT", timeout_s=60.0)
    before = await primary.fetch(timeline)
    said = await pgbench(lab, primary, "-n", "-c", str(CLIENTS), "-j", str(THREADS), "-T", str(seconds))
    if await primary.fetch(timeline) != before or len(await lab.primaries()) != 1:
        raise RuntimeError("somebody was promoted meanwhile")
    found = TPS.search(said)
    if found is None:
        raise RuntimeError(f"pgbench told no tps:\n{said}")
    return float(found[1])


async def without_agents(lab: Lab, primary: Node, seconds: int) -> float:
    """The lease ends meanwhile, and nobody acts on it: agents are frozen, and guards have been told of a pause before."""
    await lab.pause(True)
    for node in lab.nodes:
        node.agent.freeze()
    try:
        return await transactions_per_s(lab, primary, seconds)
    finally:
        for node in lab.nodes:
            node.agent.thaw()
        await lab.pause(False)


def keep_apart(lab: Lab, primary: Node) -> None:
    """As if the primary had a host of its own: its Postgres and its agent on core 0, everything else on core 1."""
    os.sched_setaffinity(0, {1})  # pgbench, too
    cores = {pid: {0} if node is primary else {1} for node in lab.nodes for pid in (node.agent.pid, *node.processes())}
    for pid, core in (cores | {lab.etcd.process.pid: {1}, lab.proxy.process.pid: {1}}).items():
        with contextlib.suppress(OSError):  # it has ended
            for task in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(task), core)


async def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--seconds", type=int, default=30, metavar="N", help="of each run of pgbench; one round is two runs")
    arguments.add_argument("--apart", action="store_true", help="the primary and its agent on one core, all else on another")
    options = arguments.parse_args()
    prepare()
    machine = Machine.here(options.postgres)
    with_them: list[float] = []
    alone: list[float] = []
    async with Lab(3, postgres=options.postgres, wishes=Wishes(dynamic={"synchronous_mode": "quorum"}, parameters=PARAMETERS)) as lab:
        await pgbench(lab, await lab.up(), "-i", "-q", "-s", str(SCALE))
        await transactions_per_s(lab, await lab.heal(), options.seconds)  # the first one is slower: files grow
        for number in range(1, options.rounds + 1):
            runs = [(with_them, transactions_per_s), (alone, without_agents)]
            for found, run in runs if number % 2 else reversed(runs):
                primary = await lab.heal()
                if options.apart:
                    keep_apart(lab, primary)
                found.append(await run(lab, primary, options.seconds))
            say(f"round {number}: {with_them[-1]:.0f} transactions a second with agents, {alone[-1]:.0f} with all of them frozen")
    cost = tuple(100 * (1 - ours / theirs) for ours, theirs in zip(with_them, alone, strict=True))
    figures = [
        Figure("pgbench, 8 clients, TPC-B, quorum: agents at work", "tps", tuple(with_them)),
        Figure("pgbench, 8 clients, TPC-B, quorum: agents frozen", "tps", tuple(alone)),
        Figure("what the agents cost, round by round", "%", cost, TARGET_PERCENT),
    ]
    return show(machine, figures, options.json)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
