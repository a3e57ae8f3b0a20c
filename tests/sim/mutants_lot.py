"""Three mutants out of HAZARDS that a lot chose after the others were written (docs/simulation.md tells which lot). See mutants.py."""

from __future__ import annotations

from dataclasses import replace

from rivha.agent import perform
from rivha.agent.brain import election
from rivha.agent.brain.view import View
from rivha.dcs import writes
from rivha.model import Pledge, Role
from tests.sim.planting import Garden


def pledges_the_timeline_it_once_received(g: Garden) -> None:
    """A pledge's timeline is the one that the node's first stream began on, as received_tli says it, not what lies here (HAZARDS B 31)."""
    received: dict[str, int] = {}  # by node

    async def pledge(self: perform.Performer, v: View, term: int) -> str:
        end = await self.postgres.freeze()
        timeline = received.setdefault(self.me, end.timeline)
        mine = Pledge(self.me, term, timeline, end.lsn)
        return (await self._told(self._cluster(v), lambda c: writes.pledge(c, mine), v.policy.retry_timeout_s)).value

    g.put(pledge, "_pledge", perform.Performer)


def only_members_of_now_are_awaited(g: Garden) -> None:
    """A candidate whose member key went with the leader's is forgotten, and who is still published wins without it (HAZARDS A 17)."""
    before = election.awaited
    g.put(lambda v: before(replace(v, memory=replace(v.memory, last_members=frozenset()))), "awaited", election)


def silence_taken_for_no_primary(g: Garden) -> None:
    """A Postgres that does not answer counts as no primary: neither fence nor step-down guards what it goes on to do (HAZARDS E 71)."""
    g.put(property(lambda v: v.running and v.postgres.role is not Role.STANDBY), "is_primary", View)
