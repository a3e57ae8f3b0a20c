"""What goes wrong: a fault is (instant, kind, target, number), a script is a list of them, made from a seed or written by hand.

`docs/simulation.md` tells how to add one: a function in one of the `wrong_...` modules, and its undoing in `heal` if it leaves something
behind. `traps` makes more of them: a fault that strikes in the middle of a piece of work.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sim import traps, wrong_machines, wrong_network, wrong_people, wrong_synchronous, wrong_written
from tests.sim.server import Trouble

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World

Kind = Callable[["World", "Host", float], None]
MACHINES: Mapping[str, Kind] = {f.__name__: f for f in wrong_machines.KINDS}
NETWORK: Mapping[str, Kind] = {f.__name__: f for f in wrong_network.KINDS}
PEOPLE: Mapping[str, Kind] = {f.__name__: f for f in wrong_people.KINDS}
TRAPS: Mapping[str, Kind] = traps.kinds({**MACHINES, **NETWORK})
SYNCHRONOUS: Mapping[str, Kind] = {f.__name__: f for f in wrong_synchronous.KINDS}
SYNC_TRAPS: Mapping[str, Kind] = traps.kinds({**MACHINES, **NETWORK}, traps.SYNC_WORK)
WRITTEN: Mapping[str, Kind] = {f.__name__: f for f in wrong_written.KINDS}  # no seed draws these
KINDS: Mapping[str, Kind] = {**MACHINES, **NETWORK, **PEOPLE, **TRAPS, **SYNCHRONOUS, **SYNC_TRAPS, **WRITTEN}
Shares = tuple[tuple[int, Mapping[str, Kind]], ...]
SHARES: Shares = ((35, MACHINES), (30, NETWORK), (20, PEOPLE), (15, TRAPS))  # of a random script, in per cent
SYNC_SHARES: Shares = (*SHARES, (20, SYNCHRONOUS), (10, SYNC_TRAPS))  # where commits wait for standbys


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    at: float  # seconds after the cluster was whole
    kind: str
    host: str  # a host, or LEADER: whoever leads then
    number: float  # kind-dependent: mostly how long, in seconds

    def __str__(self) -> str:
        return f"{self.at:.3f} {self.kind} {self.host} {self.number:.3f}"


Script = list[Fault]
_REINIT = ((0.1, "reinit_asked", "", 1.0),)
PROVOKERS: Mapping[str, tuple[tuple[float, str, str, float], ...]] = {  # work -> so much later, the kind, whom ("": anybody), its number
    "rewind": ((0.1, "cut_from_standbys", "leader", 10.0), (2.1, "power_off", "leader", 15.0)),
    "clone": _REINIT,
    "set_aside": _REINIT,
    "resign": ((0.1, "switchover", "", 1.0),),
}
LEADER = "leader"
LONGEST_S = 3600.0


class ScriptError(ValueError):
    """A script that does not parse, or names an unknown fault; the text says which line."""


def parse(text: str, first: int = 1) -> Script:
    """One fault a line: `instant kind host number`; empty lines and # comments are skipped. `first`: the number of the first line."""
    script = []
    for n, line in enumerate(text.splitlines(), first):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 4:
            raise ScriptError(f"line {n}: should be `instant kind host number`, is {line!r}")
        at, kind, host, number = words
        if kind not in KINDS:
            raise ScriptError(f"line {n}: no fault is called {kind!r}{nearest(kind, KINDS, 'scripts/sim --faults')}")
        try:
            script.append(Fault(_seconds(at), kind, host, _seconds(number)))
        except ValueError as error:
            raise ScriptError(f"line {n}: {error}") from error
    return sorted(script)


def nearest(word: str, known: Collection[str], all_of_them: str) -> str:
    """For the end of an error's text: what a slip of the pen may have meant, or where they are listed."""
    near = difflib.get_close_matches(word, known, cutoff=0.75)
    return f"; did you mean {' or '.join(near)}?" if near else f"; {all_of_them} lists them"


def _seconds(text: str) -> float:
    """ValueError unless it is finite and not negative; nor more than an hour, lest a slip of the pen run for days."""
    if not 0.0 <= float(text) <= LONGEST_S:
        raise ValueError(f"instants and numbers go from 0 to {LONGEST_S:g}, {text} does not")
    return float(text)


def about(kind: Kind) -> str:
    """Its first sentence or so: what happens, and what its number means."""
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def number(kind: Kind) -> str:
    """What its number is: seconds, a number that the text explains, or `-` where it does not matter."""
    name = list(inspect.signature(kind).parameters)[2]
    return "-" if name.startswith("_") else name


def check_hosts(script: Script, names: Collection[str]) -> None:
    """ScriptError when a fault is to strike a host that this cluster does not have."""
    for fault in script:
        if fault.host not in (*names, LEADER):
            raise ScriptError(f"there is no host {fault.host}; there are {', '.join((*names, LEADER))}")


def random_script(
    rng: random.Random, hosts: list[str], seconds: float, without: frozenset[str] = frozenset(), shares: Shares = SHARES
) -> Script:
    """Faults come in bursts: the second one while the first is being dealt with is what finds bugs. Some runs are quiet, some wild.

    `without`: kinds that are left out, traps of them included.
    """
    script, at, pace = [], 1.0, rng.choice((0.5, 1.0, 1.0, 2.0))
    weights, groups = [share for share, _ in shares], [sorted(group) for _, group in shares]
    while at < seconds:
        kind = rng.choice(rng.choices(groups, weights)[0])
        host = LEADER if rng.random() < 0.6 else rng.choice(hosts)
        fault = Fault(round(at, 3), kind, host, round(rng.uniform(0.1, 20.0), 3))  # as it is written: a story of it is the same run
        if not any(kind.startswith(name) for name in without):
            script += [fault, *provoking(fault, hosts)]
        at += pace * rng.choice((0.02, 0.1, 0.5, 2.0, 5.0, 12.0, 20.0)) * rng.uniform(0.5, 1.5)
    return sorted(script)


def provoking(trap: Fault, hosts: list[str]) -> Script:
    """What brings about the work that a trap waits for, where that is rare."""
    one = hosts[int(trap.number * 31) % len(hosts)]
    brings = next((faults for work, faults in PROVOKERS.items() if trap.kind in TRAPS and trap.kind.endswith(f"_in_{work}")), ())
    return [Fault(round(trap.at + after_s, 3), kind, host or one, number) for after_s, kind, host, number in brings]


async def play(world: World, script: Script) -> None:
    began = world.loop.now
    for fault in script:
        await asyncio.sleep(max(0.0, began + fault.at - world.loop.now))
        name = fault.host
        if name == LEADER:
            name = world.store.value("leader") or world.rng.choice(sorted(world.hosts))
        strike(world, fault.kind, name, fault.number)
    await asyncio.sleep(1.0)


def strike(world: World, kind: str, name: str, number: float) -> None:
    world.happened[kind] += 1
    world.note("", f"FAULT {kind} {name} {number:.3f}")
    KINDS[kind](world, world.hosts[name], number)


def heal(world: World) -> None:
    """The end of all faults."""
    world.note("", "HEAL")
    world.healed = True
    world.traps.clear()
    world.network.heal()
    world.store.heal()
    for host in world.hosts.values():
        host.instance.trouble = Trouble()
        host.instance.disk.full = False
        host.rate, host.offset, host.wall_step = 1.0, host.clock() - world.loop.now, 0.0
        if host.frozen_agent:
            host.thaw_agent()
        if host.dcs is not None:
            host.dcs.deaf = False
        if not host.on:
            host.power_on()
    world.loop.spawn("", wrong_people.tidy_up(world))
