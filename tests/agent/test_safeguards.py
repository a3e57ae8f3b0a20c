"""The real agent on the simulator's world, with a safeguard that watches or refuses: nothing becomes a primary without it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from rivha.agent.safeguards import nothing_to_lose
from rivha.errors import CommandFailed
from rivha.model import Role, State
from rivha.postgres.kin import postgres_at
from tests.sim.host import Host
from tests.sim.test_probing import told, whole
from tests.sim.world import World


class Safeguard:
    """Stands where rivha.agent.safeguards stands, and remembers what it saw."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.why_not = self.why_unfit = ""
        self.word: tuple[float | None, float, bool] = (None, 0.0, False)
        self.armed: list[tuple[float | None, bool, Role]] = []  # at each call: the last word, and what Postgres was
        core = host.core
        assert core is not None
        core.fence._safeguards = self
        core.tick.unfit = self.unfit
        core.tick.performer.arm = self.arm

    def vouched(self, until: float | None, quit_s: float, earned: bool) -> None:
        self.word = until, quit_s, earned

    async def arm(self) -> None:
        self.armed.append((self.word[0], self.word[2], self.role))
        if self.why_not:
            raise CommandFailed(self.why_not)

    def unfit(self) -> str:
        return self.why_unfit

    @property
    def role(self) -> Role:
        latest = self.host.core.desk.latest if self.host.core else None
        return latest.postgres.role if latest else Role.UNKNOWN


def primaries(world: World) -> set[str]:
    return {name for name, i in world.instances.items() if i.state is State.RUNNING and i.role is Role.PRIMARY}


def test_postgres_is_promoted_only_once_the_safeguard_is_armed_and_knows_the_deadline():
    world = World(1)

    async def story() -> None:
        leader = await whole(world)
        safeguards = {name: Safeguard(host) for name, host in world.hosts.items()}
        leader.power_off()
        while not (elected := primaries(world) - {leader.name}):
            await asyncio.sleep(0.05)
        [name] = elected
        [(until, earned, role)] = safeguards[name].armed
        assert until is not None
        assert (earned, role) == (True, Role.STANDBY)
        others = [s for n, s in safeguards.items() if n not in (name, leader.name)]
        assert [(s.armed, s.word[0]) for s in others] == [([], None)]

    told(world, story())


def test_a_node_whose_required_safeguard_cannot_be_had_does_not_stand_and_says_why():
    world = World(1)

    async def story() -> None:
        leader = await whole(world)
        safeguards = {name: Safeguard(host) for name, host in world.hosts.items() if host is not leader}
        for safeguard in safeguards.values():
            safeguard.why_unfit = "a watchdog is required, and there is none"
        leader.power_off()
        await asyncio.sleep(60.0)
        assert primaries(world) == set()
        assert world.laws.cluster().leader is None
        latest = world.hosts["db3"].core.desk.latest  # type: ignore[union-attr]
        assert latest is not None
        reasons = [entry.decision.lease.reason for entry in world.hosts["db3"].core.journal]  # type: ignore[union-attr]
        assert any("a watchdog is required, and there is none" in reason for reason in reasons)

        safeguards["db3"].why_unfit = ""
        await asyncio.sleep(10.0)
        assert primaries(world) == {"db3"}

    told(world, story())


def test_a_promotion_fails_while_the_safeguard_refuses():
    world = World(1)

    async def story() -> None:
        leader = await whole(world)
        safeguards = {name: Safeguard(host) for name, host in world.hosts.items() if host is not leader}
        for safeguard in safeguards.values():
            safeguard.why_not = "the device is busy"
        leader.power_off()
        await asyncio.sleep(60.0)
        assert primaries(world) == set()
        assert any(safeguard.armed for safeguard in safeguards.values())
        for safeguard in safeguards.values():
            safeguard.why_not = ""
        await asyncio.sleep(20.0)
        assert len(primaries(world)) == 1

    told(world, story())


def test_backends_that_lost_their_postmaster_are_something_to_lose(tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy("/bin/sleep", tmp_path / "postgres")
    assert nothing_to_lose(str(data))
    backend = subprocess.Popen(["postgres: checkpointer", "600"], executable=tmp_path / "postgres", cwd=data)
    try:
        poll_until(lambda: postgres_at(str(data)) == [backend.pid])
        assert not nothing_to_lose(str(data))
        postmaster = subprocess.Popen([str(tmp_path / "postgres"), "600"], cwd=data)
        try:
            poll_until(lambda: len(postgres_at(str(data))) == 2)
            poll_until(lambda: nothing_to_lose(str(data)))  # nobody vouches for it, and it lives: a standby
        finally:
            postmaster.kill()
            postmaster.wait()
    finally:
        backend.kill()
        backend.wait()


def poll_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)
