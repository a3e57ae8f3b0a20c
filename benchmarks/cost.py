"""What an agent costs: `./scripts/bench cost [--seconds 60] [--profile]`.

Three nodes at loop_wait 1 that nobody uses, checked by HAProxy: memory and processor time of each agent from /proc, and the requests that
etcd served. Then 200 health requests a second to every agent, in peace and while the primary's postmaster is killed. `--profile` shows, by
cProfile inside the agents, where the time goes (it costs some itself: do not compare its figures with the others).
"""

from __future__ import annotations

import asyncio
import os
import pstats
import re
import signal
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Figure, Machine, parser, prepare, say, show
from tests.lab.cluster import Lab
from tests.lab.node import Node, now
from tests.lab.ports import LOOPBACK
from tests.lab.processes import give_away

SETTLE_S = 15.0  # after the cluster is whole: first histories, slots and member keys are written by then
ETCD_REQUESTS_PER_S = 3.0  # at most, of one agent
REQUESTS_PER_S = 200
ASKED_S = 10.0
REQUEST = b"GET /primary HTTP/1.1\r\nHost: rivha\r\nConnection: close\r\n\r\n"
HANDLED = re.compile(r'^grpc_server_handled_total\{grpc_code="OK",grpc_method="(\w+)".*\} (\d+)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Used:
    """Of one agent, between two looks."""

    node: Node
    leader: bool
    cpu_percent: float  # of one core, its programs (psql, pg_controldata) included
    resident_mb: float


def cpu_s(pid: int) -> float:
    """User and system time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


async def served(lab: Lab) -> Counter[str]:
    """What etcd has answered since its start, by gRPC method; the gateway's JSON requests become such calls."""
    async with lab.session.get(f"{lab.etcd.url}/metrics") as answer:
        return Counter({method: int(number) for method, number in HANDLED.findall(await answer.text())})


async def idle(lab: Lab, seconds: float) -> tuple[list[Used], Counter[str]]:
    """Nobody but the agents, HAProxy and Postgres' own replication does anything meanwhile."""
    leader = await lab.primary()
    before, asked = {node.name: cpu_s(node.agent.pid) for node in lab.nodes}, await served(lab)
    began = now()
    await asyncio.sleep(seconds)
    took = now() - began
    after = {node.name: cpu_s(node.agent.pid) for node in lab.nodes}
    share = {name: 100 * (after[name] - before[name]) / took for name in after}
    return [Used(n, n is leader, share[n.name], resident_mb(n.agent.pid)) for n in lab.nodes], await served(lab) - asked


# ---- health requests


async def one_request(port: int, waits: list[float]) -> None:
    """On a connection of its own, as HAProxy does it; any status is an answer."""
    began = now()
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        waits.append(now() - began)
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503")):
            raise RuntimeError(f"a health request was answered with {head!r}")
        await reader.read()
    finally:
        writer.close()


async def ask(node: Node, seconds: float) -> list[float]:
    """Seconds that each answer took. Requests leave on time, whatever became of those before."""
    waits: list[float] = []
    begun, number = now(), 0
    async with asyncio.timeout(seconds + 10), asyncio.TaskGroup() as group:
        while (due := begun + number / REQUESTS_PER_S) < begun + seconds:
            await asyncio.sleep(max(0.0, due - now()))
            group.create_task(one_request(node.rest_port, waits))
            number += 1
    return waits


async def asked(lab: Lab, disturb: Callable[[Node], object]) -> tuple[list[float], list[float]]:
    """(milliseconds of all answers by standbys, and by the node that led); `disturb` gets the leader, two seconds after the start."""
    leader = await lab.primary()

    async def later() -> None:
        await asyncio.sleep(2.0)
        disturb(leader)

    waits, _ = await asyncio.gather(asyncio.gather(*(ask(node, ASKED_S) for node in lab.nodes)), later())
    of = {node.name: [1000 * wait for wait in each] for node, each in zip(lab.nodes, waits, strict=True)}
    return [wait for node in lab.nodes if node is not leader for wait in of[node.name]], of[leader.name]


# ---- profiles


def profile(lab: Lab) -> None:
    """Before the start: each agent runs under cProfile, which writes its findings when the agent ends."""
    for node in lab.nodes:
        give_away(node.folder)
        node.agent.argv = [sys.executable, "-m", "cProfile", "-o", str(node.folder / "profile"), "-m", "rivha", str(node.config)]


async def show_profiles(lab: Lab, leader: Node) -> None:
    """The standby ends first: after the leader there would be another."""
    for node in [next(node for node in lab.nodes if node is not leader), leader]:
        node.agent.signal(signal.SIGTERM)
        await node.agent.ended(60.0)
        print(f"---- {node.name}, {'the leader' if node is leader else 'a standby'}")
        pstats.Stats(str(node.folder / "profile")).sort_stats("tottime").print_stats(35)


# ---- the whole


def figures(
    rounds: list[list[Used]], requests_per_s: float, calm: tuple[list[float], list[float]], storm: tuple[list[float], list[float]]
) -> list[Figure]:
    """`requests_per_s`: of one agent to etcd. `calm`, `storm`: milliseconds of the answers of a standby, and of the leader."""
    leaders = [used for each in rounds for used in each if used.leader]
    standbys = [used for each in rounds for used in each if not used.leader]
    found = [
        Figure("resident memory, leader", "MB", tuple(used.resident_mb for used in leaders), 64, "worst"),
        Figure("resident memory, standby", "MB", tuple(used.resident_mb for used in standbys), 64, "worst"),
        Figure("idle, leader", "% of a core", tuple(used.cpu_percent for used in leaders), 1.5),
        Figure("idle, standby", "% of a core", tuple(used.cpu_percent for used in standbys), 1.5),
        Figure("etcd requests per agent", "/s", (requests_per_s,), ETCD_REQUESTS_PER_S),
    ]
    for when, (others, leader) in (("in peace", calm), ("during a failover", storm)):
        for whose, waits in (("a standby", others), ("the leader", leader)):
            found.append(Figure(f"health, 200/s, {when}, {whose}: median", "ms", (statistics.median(waits),), 2.0))
            found.append(Figure(f"health, 200/s, {when}, {whose}: 99th percentile", "ms", (statistics.quantiles(waits, n=100)[98],)))
    return found


async def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.set_defaults(rounds=1)
    arguments.add_argument("--seconds", type=float, default=60.0, help="of idleness in each round")
    arguments.add_argument("--profile", action="store_true", help="only show where an idle agent's time goes")
    options = arguments.parse_args()
    prepare()
    machine = Machine.here(options.postgres)
    async with Lab(3, postgres=options.postgres) as lab:
        if options.profile:
            profile(lab)
        await lab.up()
        await asyncio.sleep(min(SETTLE_S, options.seconds))
        rounds, requests = [], Counter[str]()
        for number in range(1, options.rounds + 1):
            used, handled = await idle(lab, options.seconds)
            rounds.append(used)
            requests += handled
            shares = ", ".join(
                f"{u.node.name}{' (leader)' if u.leader else ''} {u.cpu_percent:.2f} %, {u.resident_mb:.1f} MB" for u in used
            )
            say(f"round {number}: {shares}")
        if options.profile:
            await show_profiles(lab, await lab.primary())
            return 0
        calm = await asked(lab, lambda _leader: None)
        storm = await asked(lab, lambda leader: leader.kill_postmaster())
        await lab.heal()
    spent_s = options.seconds * options.rounds
    each = ", ".join(f"{method} {number / spent_s:.2f}" for method, number in requests.most_common())
    found = figures(rounds, requests.total() / spent_s / len(lab.nodes), calm, storm)
    return show(machine, found, options.json, [f"etcd answered, per second for all three agents: {each}"])


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
