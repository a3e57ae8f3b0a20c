"""Faults that strike in the middle of a piece of work: `power_off_in_rewind`, `agent_killed_in_win`.

A trap waits until a host begins that work, and strikes it (number / 20)^3 seconds later: mostly at once, sometimes a second after; in a
renewal or an election faster, while the answer is on its way. `source_..._in_...` strikes the leader instead, whom the others copy from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World

DEEDS = ("agent_killed", "agent_frozen", "suspended", "power_off", "postmaster_killed", "cut_from_all", "cut_from_etcd", "cut_one_way")
WORK = ("renew", "pledge", "win", "promote", "start", "stop", "resign", "clone", "rewind", "set_aside")
SYNC_WORK = ("sync", "synchronize")  # who may elect is written, or the names that commits wait for come into force; synchronous only
SOURCE = ("power_off", "postmaster_killed", "cut_from_all")
SPREAD_S = {"renew": 0.003, "resign": 0.003, "win": 0.02}  # while the answer is on its way; between the answer and what it leads to
LASTS_S = (4.0, 24.0)  # of what a trap does, where it lasts


@dataclass(frozen=True, slots=True)
class Trap:
    work: str
    deed: Callable[[World, Host, float], None]
    after_s: float
    lasts_s: float
    on_leader: bool


def kinds(
    deeds: Mapping[str, Callable[[World, Host, float], None]], works: tuple[str, ...] = WORK
) -> dict[str, Callable[[World, Host, float], None]]:
    made = {f"{deed}_in_{work}": _setter(work, deeds[deed], on_leader=False) for deed in DEEDS for work in works}
    for work in (work for work in ("clone", "rewind") if work in works):
        made |= {f"source_{deed}_in_{work}": _setter(work, deeds[deed], on_leader=True) for deed in SOURCE}
    return made


def _setter(work: str, deed: Callable[[World, Host, float], None], *, on_leader: bool) -> Callable[[World, Host, float], None]:
    def set_trap(world: World, _: Host, number: float) -> None:
        least, most = LASTS_S
        lasts_s = least + number * 977.0 % (most - least)  # as if it were drawn anew
        world.traps.append(Trap(work, deed, (number / 20.0) ** 3 * SPREAD_S.get(work, 1.0), lasts_s, on_leader))

    return set_trap


def about() -> str:
    """How their names are made, for people."""
    return (
        f"Traps wait until a host begins a piece of work. DEED_in_WORK strikes it there, source_DEED_in_WORK the leader instead.\n"
        f"  DEED  {', '.join(DEEDS)}\n"
        f"  WORK  {', '.join(WORK)}; in the synchronous modes also {', '.join(SYNC_WORK)}\n"
        f"  source_DEED  {', '.join(SOURCE)}, in clone and rewind"
    )


def spring(world: World, host: str, work: str) -> None:
    """`host` has just begun `work`."""
    for trap in [t for t in world.traps if t.work == work]:
        world.traps.remove(trap)
        world.loop.call_later(trap.after_s, _strike, world, trap, host, context=world.context)


def _strike(world: World, trap: Trap, worker: str) -> None:
    if world.healed:
        return
    target = (world.store.value("leader") or worker) if trap.on_leader else worker
    world.note("", f"TRAP {trap.deed.__name__} {target}, {worker} in {trap.work}")
    trap.deed(world, world.hosts[target], trap.lasts_s)
