"""How long clients cannot write: `./scripts/bench failover [--rounds 5] [--faults host,switchover]`.

Three nodes, one etcd, one HAProxy on loopback; asynchronous, ttl 10, loop_wait 1. A client writes one row per transaction through HAProxy
and reconnects after 20 ms (tests/lab/writer.py). A fault's outage is the longest time between two acknowledged writes around it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.report import Figure, Machine, parser, prepare, say, show
from tests.lab.cluster import PATIENCE_S, Lab
from tests.lab.node import Node, now
from tests.lab.writer import Account, Writer

CALM_S = 3.0  # a healthy cluster before each fault: standbys have caught up and the agents' ticks are spread as they happen to be
AFTER_S = 5.0  # errors later than this after an agent's restart are not its doing


@dataclass(slots=True)
class Trial:
    """One fault: when it came, and what a client saw of it."""

    fault: str
    at: float
    outage_s: float = 0.0
    errors: int = 0  # statements that failed, and connections that were refused, or broke
    streaming_s: float = 0.0  # until every node streamed again; a lost host is switched on after writes go on
    same_postmaster: bool = True
    lost: int = 0


@dataclass(slots=True)
class Bench:
    lab: Lab
    writer: Writer
    trials: list[Trial] = field(default_factory=list)

    async def postmaster(self, old: Node, _trial: Trial) -> None:
        old.kill_postmaster()

    async def host(self, old: Node, _trial: Trial) -> None:
        await old.kill_everything()

    async def switchover(self, old: Node, _trial: Trial) -> None:
        candidate = next(node for node in self.lab.nodes if node is not old)
        code, text = await old.ask("POST", "/switchover", {"leader": old.name, "candidate": candidate.name}, PATIENCE_S)
        if code != 200:
            raise RuntimeError(f"{old.name} refuses the switchover: {code} {text}")

    async def agent(self, old: Node, trial: Trial) -> None:
        """As with systemd's Restart=on-failure and RestartSec=0 (docs/rivha.service)."""
        before = old.postmaster()
        await old.kill_agent()
        old.start()
        await asyncio.sleep(AFTER_S)
        trial.same_postmaster = old.postmaster() == before

    async def suffer(self, fault: str) -> Trial:
        """The fault, and the way back to a whole cluster."""
        hurt: Callable[[Node, Trial], Awaitable[None]] = getattr(self, fault)
        await asyncio.sleep(CALM_S)
        old = await self.lab.primary()
        trial = Trial(fault, now())
        complaints = len(self.writer.complaints)
        await hurt(old, trial)

        async def writes_go_on() -> bool:
            leader = await self.lab.leader()
            return leader is not None and leader.postmaster() is not None and self.writer.writing_since(now() - 0.5)

        await self.lab.wait_for(writes_go_on, "writes go on", 2 * PATIENCE_S)
        await self.lab.heal()
        trial.streaming_s = now() - trial.at
        trial.outage_s = self.writer.longest_gap(trial.at).seconds
        trial.errors = len(self.writer.complaints) - complaints
        self.trials.append(trial)
        return trial

    async def settle(self) -> Account:
        """Each lost row is put down to the first fault after its acknowledgement."""
        account = await self.lab.account(self.writer)
        for number in account.lost:
            at = self.writer.acknowledged[number]
            trial = min((t for t in self.trials if t.at + t.streaming_s >= at), key=lambda t: t.at)
            trial.lost += 1
        return account

    def of(self, fault: str, value: Callable[[Trial], float]) -> tuple[float, ...]:
        return tuple(value(trial) for trial in self.trials if trial.fault == fault)


# fault -> what people call it, and the most that its outage may last
FAULTS = {
    "postmaster": ("postmaster kill -9: write outage", 2.0),
    "host": ("all of the primary's host killed: write outage", 13.0),
    "switchover": ("switchover: write outage", 2.0),
    "agent": ("agent kill -9, restarted: longest gap", None),
}


def figures(bench: Bench, faults: Sequence[str], account: Account) -> list[Figure]:
    found = [Figure(FAULTS[fault][0], "s", bench.of(fault, lambda t: t.outage_s), FAULTS[fault][1]) for fault in faults]
    if "agent" in faults:
        found.append(Figure("agent kill -9, restarted: errors", "", bench.of("agent", lambda t: t.errors), 0, "worst"))
        found.append(
            Figure("agent kill -9, restarted: other postmaster", "", bench.of("agent", lambda t: not t.same_postmaster), 0, "worst")
        )
    if "switchover" in faults:
        found.append(Figure("switchover: acknowledged rows lost", "", bench.of("switchover", lambda t: t.lost), 0, "worst"))
    found += [
        Figure(f"{fault}: until the cluster is whole again", "s", bench.of(fault, lambda t: t.streaming_s))
        for fault in faults
        if fault != "agent"
    ]
    for fault in ("postmaster", "host"):
        if fault in faults:
            found.append(Figure(f"{fault}: acknowledged rows lost (asynchronous)", "", bench.of(fault, lambda t: t.lost)))
    found.append(Figure("rows refused, and there nevertheless", "", (len(account.ghosts),), 0, "worst"))
    return found


async def main() -> int:
    asked = parser(__doc__ or "")
    asked.add_argument("--faults", default=",".join(FAULTS), help="which, in this order")
    options = asked.parse_args()
    faults = options.faults.split(",")
    if unknown := set(faults) - set(FAULTS):
        asked.error(f"no such fault: {', '.join(sorted(unknown))}")
    prepare()
    machine = Machine.here(options.postgres)
    async with Lab(3, postgres=options.postgres) as lab:
        await lab.up()
        bench = Bench(lab, lab.writer())
        await bench.writer.prepare()
        bench.writer.start()
        for number in range(1, options.rounds + 1):
            for fault in faults:
                trial = await bench.suffer(fault)
                say(f"round {number}, {fault}: outage {trial.outage_s:.3f} s, all stream after {trial.streaming_s:.1f} s")
        account = await bench.settle()
    rows = (
        f"rows: {account.acknowledged} acknowledged, {len(account.lost)} of them lost; {account.unknown} unknown, {account.refused} refused"
    )
    return show(machine, figures(bench, faults, account), options.json, [rows])


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
