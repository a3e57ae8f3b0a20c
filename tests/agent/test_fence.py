"""The deadman stops Postgres when nobody vouches, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from rivha.agent.fence import Fence
from rivha.errors import CommandFailed


class Target:
    """What the fence stops: remembers how, and may refuse at first."""

    def __init__(self, refusals: int = 0) -> None:
        self.stopped: list[float] = []
        self.refusals = refusals
        self.changed = asyncio.Event()

    async def stop(self, quit_s: float) -> None:
        self.stopped.append(quit_s)
        self.changed.set()
        if len(self.stopped) <= self.refusals:
            raise CommandFailed("no")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def fenced() -> AsyncIterator[tuple[Fence, Target, Clock]]:
    clock, target = Clock(), Target()
    fence = Fence(clock, target.stop)
    task = asyncio.create_task(fence.run())
    yield fence, target, clock
    task.cancel()
    await asyncio.wait({task})


async def test_it_fires_when_the_instant_vouched_for_has_come(fenced):
    fence, target, clock = fenced
    fence.vouch(110.0, quit_s=0.25)
    await settled()
    assert target.stopped == []

    clock.now = 110.0
    async with asyncio.timeout(5):
        await target.changed.wait()

    assert target.stopped == [0.25]


async def test_a_clock_that_jumps_over_the_instant_fires_too(fenced):
    fence, target, clock = fenced
    fence.vouch(110.0)
    await settled()

    clock.now = 5000.0  # the machine was suspended
    async with asyncio.timeout(5):
        await target.changed.wait()

    assert len(target.stopped) == 1


async def test_vouching_again_moves_the_instant(fenced):
    fence, target, clock = fenced
    fence.vouch(110.0)
    await settled()
    fence.vouch(120.0)
    clock.now = 115.0
    fence.vouch(121.0)
    await settled()

    assert target.stopped == []


async def test_nothing_to_fence_is_never_stopped(fenced):
    fence, target, clock = fenced
    fence.vouch(110.0)
    fence.vouch(None)
    clock.now = 200.0
    await settled()

    assert target.stopped == []


async def test_a_stop_that_fails_is_tried_again():
    clock, target = Clock(), Target(refusals=1)
    fence = Fence(clock, target.stop)
    task = asyncio.create_task(fence.run())
    fence.vouch(99.0)
    async with asyncio.timeout(5):
        while len(target.stopped) < 2:
            clock.now += 1.0
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})

    assert fence.fired == 2


@pytest.mark.parametrize(
    ("late_s", "is_left", "told"),
    [
        (52.0, False, ("warning", "fence: the deadline passed while this agent stood still; Postgres had been stopped already")),
        (52.0, True, ("critical", "fence: nobody vouches for this primary any more, stopping Postgres at once")),
        (0.2, False, ("critical", "fence: nobody vouches for this primary any more, stopping Postgres at once")),
    ],
)
async def test_an_agent_that_was_frozen_says_what_a_guard_had_done_meanwhile_and_stops_all_the_same(late_s, is_left, told):
    clock, target = Clock(), Target()

    async def left() -> bool:
        return is_left

    fence = Fence(clock, target.stop, is_left=left)
    fence.vouch(clock.now - late_s)
    with capture_logs() as logs:
        task = asyncio.create_task(fence.run())
        async with asyncio.timeout(5):
            await target.changed.wait()
        task.cancel()
        await asyncio.wait({task})

    assert (logs[0]["log_level"], logs[0]["event"]) == told
    assert fence.fired == len(target.stopped) == 1


async def test_a_look_that_hangs_does_not_save_postgres():
    clock, target = Clock(), Target()

    async def hangs() -> bool:
        await asyncio.Event().wait()
        return False

    fence = Fence(clock, target.stop, is_left=hangs)
    fence.vouch(clock.now - 52.0)
    task = asyncio.create_task(fence.run())
    async with asyncio.timeout(5):
        await target.changed.wait()
    task.cancel()
    await asyncio.wait({task})
