"""Faults one after the other and into each other, drawn from a seed: what nobody thought of writing down.

Each harm is done to somebody drawn by lot, held for a while drawn by lot, and taken back; now and then everything is mended and the
clients' account is made. The same seed draws the same harms for the same names, not the same instants: real machines are no simulator.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from tests.faults.host import Host
from tests.faults.servers import Database
from tests.faults.site import Site
from tests.faults.trial import Trial, begin, judge
from tests.lab.node import now

HELD_S = (0.05, 14.0)  # longer than a lease lives, and shorter than anything
AT_ONCE = 2
ROUND = 4  # harms between two accounts
CANDIDATE_S = 30.0
PEACE_S = (0.0, 3.0)

Undo = Callable[[], Awaitable[None]]
Harm = Callable[[Site, random.Random], Awaitable[Undo]]
HARMS: dict[str, tuple[int, Harm]] = {}  # name -> (weight, harm)


def harm(weight: int) -> Callable[[Harm], Harm]:
    def named(done: Harm) -> Harm:
        HARMS[done.__name__] = (weight, done)
        return done

    return named


async def nothing() -> None:
    """Nothing to take back: it mends itself."""


async def start_again(node: Database) -> None:
    """Now, or when it has ended: who was asked to end may be handing over still, or be frozen."""
    if node.host.on and not node.agent.alive:
        node.agent.start()
    else:
        node.service.babysit(True)


def some_database(site: Site, lot: random.Random) -> Database:
    return site.database(lot.choice([node.name for node in site.nodes]))


async def likely_primary(site: Site, lot: random.Random) -> Database:
    """The primary, if there is one now; most faults are most interesting there. Draws as often when there is none."""
    somebody, rather_the_primary = some_database(site, lot), lot.random() < 0.7
    leader = await site.leader()
    return site.database(leader.name) if leader is not None and rather_the_primary else somebody


@harm(3)
async def power_off(site: Site, lot: random.Random) -> Undo:
    node = await likely_primary(site, lot)
    await node.host.power_off()

    async def back() -> None:
        await node.host.power_on()
        await start_again(node)

    return back


@harm(3)
async def unplug(site: Site, lot: random.Random) -> Undo:
    host = (await likely_primary(site, lot)).host
    await host.unplug()
    return host.plug_in


@harm(3)
async def kill_postmaster(site: Site, lot: random.Random) -> Undo:
    node = await likely_primary(site, lot)
    if node.postmaster() is not None:
        node.kill_postmaster()
    return nothing


@harm(2)
async def kill_agent(site: Site, lot: random.Random) -> Undo:
    node = await likely_primary(site, lot)
    node.agent.signal(signal.SIGKILL)

    return partial(start_again, node)


@harm(2)
async def freeze_agent(site: Site, lot: random.Random) -> Undo:
    node = await likely_primary(site, lot)
    node.agent.freeze()

    async def back() -> None:
        node.agent.thaw()

    return back


@harm(2)
async def freeze_everything(site: Site, lot: random.Random) -> Undo:
    node = await likely_primary(site, lot)
    node.freeze_everything()

    async def back() -> None:
        node.thaw_everything()

    return back


@harm(1)
async def freeze_postgres(site: Site, lot: random.Random) -> Undo:
    node = await likely_primary(site, lot)
    node.freeze_postgres()

    async def back() -> None:
        node.thaw_postgres()

    return back


@harm(4)
async def cut_somewhere(site: Site, lot: random.Random) -> Undo:
    """Between two random sets of hosts, in one direction or both."""
    hosts = list(site.hosts)
    lot.shuffle(hosts)
    at = lot.randint(1, len(hosts) - 1)
    ones, others = hosts[:at], hosts[at:]
    site.cut(ones, others, both_ways=lot.random() < 0.6)

    async def mended() -> None:
        uncut(ones, others)

    return mended


def uncut(ones: list[Host], others: list[Host]) -> None:
    for host in (*ones, *others):
        host.deaf_to -= {one.address for one in (*ones, *others)}
        host.filter()


@harm(1)
async def power_off_an_etcd(site: Site, lot: random.Random) -> Undo:
    host = lot.choice(site.etcds.members)
    await host.power_off()

    async def back() -> None:
        await host.power_on()
        if not host.services["etcd"].alive:
            host.services["etcd"].start()

    return back


@harm(1)
async def freeze_etcd(site: Site, lot: random.Random) -> Undo:
    """All of it, or the one server that leads or does not."""
    frozen = [host.services["etcd"] for host in (site.etcds.members if lot.random() < 0.4 else [lot.choice(site.etcds.members)])]
    for server in frozen:
        server.freeze()

    async def back() -> None:
        for server in frozen:
            server.thaw()

    return back


@harm(2)
async def switch_over(site: Site, lot: random.Random) -> Undo:
    leader = await site.leader()
    candidate, asked_of = some_database(site, lot), some_database(site, lot)
    if leader is None or leader is candidate:
        return nothing
    body = {"leader": leader.name, "candidate": candidate.name}
    asked = asyncio.create_task(asked_of.ask("POST", "/switchover", body, CANDIDATE_S))

    async def answered() -> None:
        await asyncio.wait({asked}, timeout=CANDIDATE_S)

    return answered


@harm(1)
async def stop_agent(site: Site, lot: random.Random) -> Undo:
    """As `systemctl stop` does it; it hands over."""
    node = await likely_primary(site, lot)
    node.agent.signal(signal.SIGTERM)

    return partial(start_again, node)


@dataclass(slots=True)
class Chaos:
    """`minutes` of it. `told` hears of each step as it happens."""

    site: Site
    seed: int
    minutes: float
    told: Callable[[str], None]
    lot: random.Random = field(init=False)
    trials: list[Trial] = field(default_factory=list)
    harms: int = 0

    def __post_init__(self) -> None:
        self.lot = random.Random(self.seed)

    async def run(self) -> None:
        """Raises LawBrokenError, or GaveUpError when the cluster is not whole again in time after all was mended."""
        until = now() + 60.0 * self.minutes
        while now() < until:
            trial = await begin(self.site, f"seed {self.seed}, round {len(self.trials) + 1}")
            self.told(f"-- {trial.fault}: {trial.leader_before} leads")
            for _ in range(ROUND):
                await self._some_harm()
            self.trials.append(await judge(self.site, trial))
            self.told(f"   {self.trials[-1].line()}")

    def summary(self) -> str:
        """One line for docs/failover.md."""
        changes = sum(trial.leader_before != trial.leader_after for trial in self.trials)
        sums = [sum(getattr(trial, name) for trial in self.trials) for name in ("acknowledged", "unknown", "refused")]
        lost = sum(len(trial.lost) for trial in self.trials)
        counts = f"{sums[0]} acknowledged, {lost} of them lost, {sums[1]} unknown, {sums[2]} refused"
        return f"seed {self.seed}: {self.harms} harms in {self.minutes:g} minutes, {changes} rounds ended with another leader; {counts}"

    async def _some_harm(self) -> None:
        names = self.lot.choices(list(HARMS), [weight for weight, _ in HARMS.values()], k=self.lot.randint(1, AT_ONCE))
        undone = []
        for name in names:
            self.told(f"   {name}")
            self.harms += 1
            undone.append(await HARMS[name][1](self.site, self.lot))
            await asyncio.sleep(self.lot.uniform(0.0, 0.5))
        await asyncio.sleep(self.lot.uniform(*HELD_S) if self.lot.random() < 0.7 else 0.0)
        self.lot.shuffle(undone)
        for undo in undone:
            await undo()
        await asyncio.sleep(self.lot.uniform(*PEACE_S))
