"""How long clients cannot write: `./scripts/bench failover [--rounds 5] [--only postmaster,host] [--without-patroni] [--page docs]`.

Three databases, three etcds, HAProxy and a client, each in a network namespace of its own (tests/faults): Rivha with its defaults, then the
newest Patroni from PyPI, in one run, with the same Postgres, the same HAProxy file and the same faults. One client writes one row per
transaction through HAProxy, reconnecting after 20 ms; a fault's outage is the longest time between two acknowledged writes around it.
`--page docs` writes the tables of docs/failover.md and its plot, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import failover_page, patroni
from benchmarks.report import Figure, Machine, parser, prepare, say, show
from tests.faults import world
from tests.faults.ledger import ACKNOWLEDGED, REFUSED, UNKNOWN
from tests.faults.servers import Database
from tests.faults.site import MEASURED, Site
from tests.faults.trial import begin, judge
from tests.lab.binaries import NotFoundError
from tests.lab.cluster import GaveUpError
from tests.lab.node import Wishes, now

CALM_S = 5.0  # agents' ticks are spread as they happen to be
BEFORE_S, AFTER_S, SLICE_S = 2.0, 45.0, 0.1  # of the plot, around the fault
HELD_S = 30.0  # cut off from etcd only: as long as Patroni's lease
QUORUM_LOST_S = 45.0
WRITES_AGAIN_S = 180.0
SWITCHOVER_S = 120.0
RESTARTED_S = 8.0
CLIENT = ({"kind": "insert", "pace_s": 0.005},)

Harm = Callable[[Site, Database], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`target_s`: for Rivha's median; its worst is to be within twice that."""

    title: str
    target_s: float
    harm: Harm
    held_s: float = 0.0  # the fault lasts so long whatever happens; 0: until writes go on
    outlived: bool = False  # Postgres writes on at first: it is over when somebody else leads
    unnoticed: bool = False  # nobody is to take over, and Postgres refuses nothing
    unfailing: bool = False  # and no statement fails otherwise


async def nothing(_site: Site, _old: Database) -> None:
    """What the longest time between two writes is by itself, on this machine, as busy as it is."""


async def kill_postmaster(_site: Site, old: Database) -> None:
    old.kill_postmaster()


async def power_off(_site: Site, old: Database) -> None:
    await old.host.power_off()


async def unplug(_site: Site, old: Database) -> None:
    await old.host.unplug()


async def kill_agent(_site: Site, old: Database) -> None:
    await old.kill_agent()


async def freeze_agent(_site: Site, old: Database) -> None:
    old.agent.freeze()


async def restart_agent(_site: Site, old: Database) -> None:
    """As systemd does it with Restart= and RestartSec=0."""
    old.service.babysit(True)
    old.agent.signal(signal.SIGKILL)


async def cut_from_etcd(site: Site, old: Database) -> None:
    site.cut([old.host], site.etcds.members)


async def lose_quorum(site: Site, _old: Database) -> None:
    for host in site.etcds.members[:2]:
        await host.power_off()


async def freeze_postgres(_site: Site, old: Database) -> None:
    old.freeze_postgres()


async def switch_over(site: Site, old: Database) -> None:
    candidate = next(node for node in site.nodes if node is not old)
    code, text = await old.ask("POST", "/switchover", {"leader": old.name, "candidate": candidate.name}, SWITCHOVER_S)
    if code != 200:
        raise GaveUpError(f"{old.name} refuses the switchover: {code} {text}")


HANG_S = 10.0  # Rivha's hang_timeout
# 0 s, as far as a client can tell: a checkpoint, or somebody else's work on the machine, holds up a commit for a few tenths of a second.
# The row "no fault" shows how long, and has the same target: where that misses it, the others say nothing. Less than HAProxy needs to give
# a server up and take it back (0.25 s after 1.2 s at the soonest), so a median beyond it means that clients were sent away.
JITTER_S = 0.5
FAULTS: Mapping[str, Fault] = {
    "postmaster": Fault("postmaster kill -9", 0.6, kill_postmaster),
    "host": Fault("primary's host powered off", 3.0, power_off),
    "partition": Fault("primary's host partitioned", 3.0, unplug),
    "agent": Fault("agent killed, not restarted", 3.5, kill_agent, outlived=True),
    "frozen": Fault("agent frozen", 3.5, freeze_agent, outlived=True),
    "restart": Fault("agent killed, restarted at once", JITTER_S, restart_agent, RESTARTED_S, unnoticed=True),
    "etcd-cut": Fault("primary cut off from etcd only for 30 s", JITTER_S, cut_from_etcd, HELD_S, unnoticed=True, unfailing=True),
    "quorum": Fault("etcd without quorum for 45 s", JITTER_S, lose_quorum, QUORUM_LOST_S, unnoticed=True, unfailing=True),
    "hung": Fault("Postgres frozen", HANG_S + 2.0, freeze_postgres),
    "switchover": Fault("switchover", 0.6, switch_over),
    "nothing": Fault("no fault, for 30 s", JITTER_S, nothing, HELD_S, unnoticed=True, unfailing=True),
}


@dataclass(slots=True)
class Round:
    """One fault, and what the client saw of it."""

    system: str
    fault: str
    outage_s: float
    whole_s: float  # until every node streamed again; what was lost is mended once writes go on
    acknowledged: int
    unknown: int
    refused: int
    lost: int
    failed_over: bool
    writable: int  # Postgres servers out of recovery when writes went on: more than one is a primary that nobody fenced
    writes: list[int] = field(default_factory=list)  # acknowledged per SLICE_S, from BEFORE_S before the fault on


@dataclass(frozen=True, slots=True)
class System:
    """Who is measured, and with which settings."""

    name: str
    dynamic: Mapping[str, object]
    node: type[Database]
    rounds: int


def systems(mode: str, rounds: int, patroni_rounds: int) -> list[System]:
    found = [System("Rivha", {"synchronous_mode": mode}, Database, rounds)]
    if patroni_rounds:
        found.append(System("Patroni", {**patroni.DEFAULTS, "synchronous_mode": mode}, patroni.PatroniDatabase, patroni_rounds))
        found.append(System("Patroni, fastest", {**patroni.FASTEST, "synchronous_mode": mode}, patroni.PatroniDatabase, patroni_rounds))
    return found


async def suffer(site: Site, system: str, name: str) -> Round:
    fault = FAULTS[name]
    trial = await begin(site, name, CALM_S)
    old = await site.primary_database()
    trial.began = now()
    await fault.harm(site, old)
    await asyncio.sleep(fault.held_s)
    if fault.outlived:
        await site.another_leads(old, WRITES_AGAIN_S)
    if fault.harm is not lose_quorum:
        await site.writing(now(), WRITES_AGAIN_S)
    writable = len(await site.primaries())
    await judge(site, trial)
    until = now()
    ledger = site.ledger
    heard = [entry.heard - trial.began + BEFORE_S for entry in ledger.acknowledged(trial.began - BEFORE_S, MEASURED)]
    writes = [0] * round((BEFORE_S + AFTER_S) / SLICE_S)
    for at in heard:
        if at < BEFORE_S + AFTER_S:
            writes[int(at / SLICE_S)] += 1
    return Round(
        system=system,
        fault=name,
        outage_s=trial.outage_s,
        whole_s=trial.ended - trial.began,
        acknowledged=ledger.count(ACKNOWLEDGED, trial.began, until),
        unknown=ledger.count(UNKNOWN, trial.began, until),
        refused=ledger.count(REFUSED, trial.began, until),
        lost=len(trial.lost),
        failed_over=trial.leader_after != trial.leader_before,
        writable=writable,
        writes=writes,
    )


async def measure(system: System, faults: Sequence[str], postgres: int | None) -> tuple[list[Round], list[str]]:
    """What was seen, and which trials failed: a cluster that did not come back in time, or that broke a promise."""
    found: list[Round] = []
    failures: list[str] = []
    wishes = Wishes(dynamic=system.dynamic)
    async with Site(wishes=wishes, clients=CLIENT, postgres=postgres, node=system.node) as site:
        await site.up()
        say(f"{system.name} is up, {await site.mode()}")
        for number in range(1, system.rounds + 1):
            for name in faults:
                try:
                    seen = await suffer(site, system.name, name)
                except AssertionError as failure:
                    failures.append(f"{system.name}, round {number}, {name}: {str(failure).splitlines()[0]}")
                    say(f"{failure}\n{failures[-1]}")
                    continue
                found.append(seen)
                times = f"no write for {seen.outage_s:.2f} s, whole after {seen.whole_s:.1f} s"
                say(f"{system.name}, round {number}, {name}: {times}, failed {seen.unknown + seen.refused}, lost {seen.lost}")
    return found, failures


def figures(rounds: Sequence[Round], faults: Sequence[str]) -> list[Figure]:
    found = []
    for name in faults:
        for system in dict.fromkeys(r.system for r in rounds):
            mine = [r for r in rounds if (r.system, r.fault) == (system, name)]
            if not mine:  # each of its trials failed, and a note says why
                continue
            target = FAULTS[name].target_s if system == "Rivha" else None
            found.append(Figure(f"{FAULTS[name].title}: {system}", "s", tuple(r.outage_s for r in mine), target))
    for name in faults:
        fault, mine = FAULTS[name], [r for r in rounds if (r.system, r.fault) == ("Rivha", name)]
        if not mine:
            continue
        outages = tuple(r.outage_s for r in mine)
        found.append(Figure(f"{fault.title}: within twice the target, Rivha", "s", outages, 2 * fault.target_s, "worst"))
        if fault.unnoticed:
            found.append(Figure(f"{fault.title}: writes that Postgres refused, Rivha", "", tuple(r.refused for r in mine), 0, "worst"))
            found.append(Figure(f"{fault.title}: other leaders, Rivha", "", tuple(r.failed_over for r in mine), 0, "worst"))
        if fault.unfailing:
            failed = tuple(r.unknown + r.refused for r in mine)
            found.append(Figure(f"{fault.title}: statements that failed, Rivha", "", failed, 0, "worst"))
    for system in dict.fromkeys(r.system for r in rounds):
        lost = tuple(r.lost for r in rounds if r.system == system)
        found.append(Figure(f"acknowledged rows lost: {system}", "", lost, 0 if system == "Rivha" else None, "worst"))
    return found


def options() -> argparse.Namespace:
    asked = parser(__doc__ or "")
    asked.add_argument("--only", default=",".join(FAULTS), help="which faults, in this order")
    asked.add_argument("--without-patroni", action="store_true", help="Rivha alone")
    asked.add_argument("--patroni-rounds", type=int, metavar="N", help="fewer, because its outages are long (default: as many)")
    asked.add_argument("--mode", choices=("off", "on", "quorum"), default="quorum", help="synchronous_mode of both")
    asked.add_argument("--page", type=Path, metavar="FOLDER", help="renew failover.md's tables and failover.svg there")
    found = asked.parse_args()
    if unknown := set(found.only.split(",")) - set(FAULTS):
        asked.error(f"no such fault: {', '.join(sorted(unknown))}")
    if found.without_patroni:
        found.patroni_rounds = 0
    elif found.patroni_rounds is None:
        found.patroni_rounds = found.rounds
    return found


async def run(found: argparse.Namespace) -> int:
    faults = found.only.split(",")
    machine = Machine.here(found.postgres)
    rounds: list[Round] = []
    failures: list[str] = []
    for system in systems(found.mode, found.rounds, found.patroni_rounds):
        seen, failed = await measure(system, faults, found.postgres)
        rounds += seen
        failures += failed
        if found.page:  # already now: what comes takes long, and may be interrupted
            failover_page.write(found.page, machine, titles(), unnoticed(), rounds, notes(rounds, failures, found.mode))
    status = show(machine, figures(rounds, faults), found.json, notes(rounds, failures, found.mode))
    if found.json:
        content = json.loads(found.json.read_text())
        found.json.write_text(json.dumps(content | {"rounds": [asdict(r) for r in rounds]}, indent=1) + "\n")
    return status or int(any(failure.startswith("Rivha") for failure in failures))


async def main() -> int:
    found = options()
    try:
        if os.environ.get(world.INSIDE) != "1":
            prepare()
            if found.patroni_rounds:
                say(f"Patroni {patroni.fetch()}")
        world.enter("benchmarks.failover", sys.argv[1:])
        task = asyncio.create_task(run(found))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a world's first process gets only what it asks for
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task
    except (world.CannotMakeNamespacesError, NotFoundError) as why:
        say(str(why))
        return 3
    except asyncio.CancelledError:
        say("interrupted: everything was ended and removed")
        return 130


def notes(rounds: Sequence[Round], failures: Sequence[str], mode: str) -> list[str]:
    """What stands below the tables."""
    counted = ("acknowledged", "unknown", "refused", "lost")
    found = []
    for system in dict.fromkeys(r.system for r in rounds):
        sums = [f"{sum(getattr(r, what) for r in rounds if r.system == system)} {what}" for what in counted]
        found.append(f"{system}'s rows: {', '.join(sums)}")
    found.append(f"synchronous_mode {mode} everywhere" + (f"; Patroni {patroni.version()}" if len(found) > 1 else ""))
    return found + [f"failed: {failure}" for failure in failures]


def titles() -> dict[str, str]:
    return {name: fault.title for name, fault in FAULTS.items()}


def unnoticed() -> list[str]:
    """The faults that no client is to notice."""
    return [name for name, fault in FAULTS.items() if fault.unnoticed]


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
