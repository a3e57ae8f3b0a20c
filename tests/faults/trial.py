"""One fault after another on one site, and what clients saw of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.faults.ledger import ACKNOWLEDGED, REFUSED, UNKNOWN, broken_promises
from tests.faults.site import MEASURED, Site
from tests.lab.node import now

CALM_S = 1.5  # a healthy cluster before each fault
Fault = Callable[[Site], Awaitable[None]]


class LawBrokenError(AssertionError):
    """The cluster did what it must never do; the text has the times, and the logs are kept."""


@dataclass(slots=True)
class Trial:
    """Instants are time.monotonic(), the rest seconds and counts."""

    fault: str
    mode: str
    leader_before: str
    began: float
    leader_after: str = ""
    ended: float = 0.0  # the cluster was whole again
    outage_s: float = 0.0
    outage_ended: float | None = None
    acknowledged: int = 0
    unknown: int = 0
    refused: int = 0
    broken: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # acknowledged and gone; only asynchronous replication is forgiven for it

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        role = self.leader_before if self.leader_before == self.leader_after else f"{self.leader_before} -> {self.leader_after}"
        times = f"no write for {self.outage_s:.2f} s, whole after {self.ended - self.began:.1f} s"
        counts = f"{self.acknowledged} acknowledged, {self.unknown} unknown, {self.refused} refused, {len(self.lost)} lost"
        return f"{self.fault} ({self.mode}): {role}, {times}; {counts}"


async def suffer(site: Site, name: str, fault: Fault, calm_s: float = CALM_S) -> Trial:
    """The fault, the way back to a whole cluster, and the account. Raises GaveUpError or LawBrokenError."""
    trial = await begin(site, name, calm_s)
    await fault(site)
    return await judge(site, trial)


async def begin(site: Site, name: str, calm_s: float = CALM_S) -> Trial:
    await site.heal()
    for node in site.nodes:
        site.database(node.name).service.babysit(False)
    await asyncio.sleep(calm_s)
    await site.writing(now())
    return Trial(name, await site.mode(), (await site.primary()).name, now())


async def judge(site: Site, trial: Trial) -> Trial:
    """Mends everything, and asks for all that clients were ever told; in asynchronous mode, since the last account."""
    trial.leader_after = (await site.heal()).name
    trial.ended = now()
    await site.writing(trial.ended)
    ledger = site.ledger.read()
    entries = [entry for entry in ledger.entries if entry.sent >= site.judged_until]
    asked_at = now()
    broken = broken_promises(entries, await site.holdings())
    # Only until it is whole: reading all tables on all nodes costs time, too, and that is the judge's doing.
    gap = ledger.longest_gap(trial.began, trial.ended, MEASURED)
    trial.outage_s, trial.outage_ended = gap.seconds, gap.end
    trial.acknowledged, trial.unknown, trial.refused = (ledger.count(kind, trial.began) for kind in (ACKNOWLEDGED, UNKNOWN, REFUSED))
    trial.lost = [text for text in broken if " is missing, " in text]
    if trial.mode == "off":  # a lost primary takes its last commits along. Two primaries are wrong in any mode
        broken = [text for text in broken if text not in set(trial.lost) and " began otherwise " not in text]
        site.judged_until = asked_at
    trial.broken = broken
    if broken:
        raise LawBrokenError(f"{trial.line()}\n" + "\n".join(broken[:40]) + f"\n{await site.describe()}")
    return trial
