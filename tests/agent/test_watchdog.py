"""The watchdog is fed by what was vouched for and nothing else, fires before the lease's end, and is stopped when nothing can be lost.

The device is a pseudo-terminal: a character device whose other end shows what was written to it. Only the answers to ioctls are made up.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import struct
import tty
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rivha.agent.fence import FENCE_SHARE
from rivha.agent.watchdog import GET_SUPPORT, GET_TIMEOUT, SET_TIMEOUT, Device, Watchdog
from rivha.errors import CommandFailed
from rivha.model import Policy


class Driver:
    """What a driver answers, and what it was told."""

    def __init__(self, sysfs: Path) -> None:
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self._slave = slave  # kept: a terminal forgets what was written once nobody has it open
        self.path = os.ttyname(slave)
        self.sysfs = sysfs
        self.fixed_s = 0  # a device that has this timeout only
        self.step_s = 1  # a device that counts in such steps
        self.timeouts: list[int] = []

    def ioctl(self, fd: int, request: int, argument: bytes) -> bytes:
        assert os.path.samestat(os.fstat(fd), os.stat(self.path))
        if request == GET_SUPPORT:
            return struct.pack("II32s", 0x8180, 0, b"Model")
        if request == SET_TIMEOUT and not self.fixed_s:
            [seconds] = struct.unpack("i", argument)
            self.timeouts.append(seconds)
            return struct.pack("i", -(-seconds // self.step_s) * self.step_s)
        if request == GET_TIMEOUT and self.fixed_s:
            return struct.pack("i", self.fixed_s)
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    def written(self) -> bytes:
        """Since it was asked last. The kernel brings it to this end in its own time, and in order: so up to a mark of ours."""
        os.write(self._slave, b"|")
        found = b""
        while not found.endswith(b"|"):
            readable, _, _ = select.select([self.master], [], [], 30.0)
            assert readable
            found += os.read(self.master, 1000)
        return found[:-1]

    def close(self) -> None:
        os.close(self.master)
        os.close(self._slave)


class World:
    """A leader whose lease is `ttl_s` long, by its own clock."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.now = 1000.0
        self.policy = Policy()
        self.may_stop = True
        self.dog = self.another("automatic")

    def another(self, mode: str, margin_s: float | None = None, path: str = "") -> Watchdog:
        device = Device(path or self.driver.path, self.driver.ioctl, self.driver.sysfs)
        self.dog = Watchdog(mode, device, margin_s, lambda: self.policy, lambda: self.now, lambda: self.may_stop)
        return self.dog

    def vouch(self, *, renewed_s_ago: float = 0.0, earned: bool = True) -> None:
        """As the tick does for a lease that was renewed so long ago."""
        ttl_s = self.policy.ttl_s
        self.dog.vouched(self.now - renewed_s_ago + ttl_s * (1 - FENCE_SHARE), ttl_s * FENCE_SHARE / 2, earned)

    async def fed(self) -> bytes:
        """What was written to the device since the last time, once the thread is through with all it was given."""
        await asyncio.get_running_loop().run_in_executor(self.dog._thread, lambda: None)
        for _ in range(3):
            await asyncio.sleep(0)
        return self.driver.written()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    driver = Driver(tmp_path)
    yield World(driver)
    driver.close()


async def test_it_is_armed_by_the_time_that_postgres_may_be_promoted(world: World):
    world.vouch()
    await world.dog.arm()
    assert world.dog.armed
    assert world.driver.timeouts == [9]
    assert await world.fed() == b"1"


@pytest.mark.parametrize(
    ("ttl_s", "margin_s", "seconds"),
    [(10, None, 9), (30, None, 28), (100, None, 93), (10, 5, 5), (30, 5, 25), (10, 0, 9), (10, -1, 5), (25, -1, 12)],
)
async def test_the_timeout_is_the_ttl_less_the_margin_and_never_outlasts_the_fence(
    world: World, ttl_s: float, margin_s: float | None, seconds: int
):
    world.another("automatic", margin_s)
    world.policy = replace(world.policy, ttl_s=ttl_s)
    world.vouch()
    await world.dog.arm()
    assert world.driver.timeouts == [seconds]


async def test_only_a_renewal_feeds_it(world: World):
    world.vouch()
    assert await world.fed() == b"1"
    world.now += 1
    world.vouch(renewed_s_ago=1)
    assert await world.fed() == b""
    world.vouch()
    assert await world.fed() == b"1"
    world.now += 1
    world.vouch(earned=False)
    assert await world.fed() == b""


async def test_nothing_is_armed_for_a_primary_that_nobody_vouches_for(world: World):
    world.vouch(earned=False)
    assert await world.fed() == b""
    assert not world.dog.armed


async def test_fed_late_it_still_fires_before_the_leases_end(world: World):
    world.vouch(renewed_s_ago=1.5)
    assert await world.fed() == b"1"
    assert world.driver.timeouts == [7]
    world.now += 1
    world.vouch()
    assert await world.fed() == b"1"
    assert world.driver.timeouts == [7, 9]


async def test_a_word_that_comes_late_does_not_make_it_give_up(world: World):
    world.another("required")
    world.policy = replace(world.policy, loop_wait_s=3.0)
    world.vouch(renewed_s_ago=7.5)
    assert (await world.fed(), world.dog.armed) == (b"", False)
    world.vouch()
    assert await world.fed() == b"1"
    world.driver.step_s = 4
    world.now += 10
    world.vouch(renewed_s_ago=7.5)
    assert await world.fed() == b"1"
    assert world.driver.timeouts == [9, 1]


async def test_fed_too_late_it_is_not_fed(world: World):
    world.vouch()
    assert await world.fed() == b"1"
    world.now += 60
    world.vouch(renewed_s_ago=9)
    assert await world.fed() == b""


async def test_another_ttl_is_another_timeout(world: World):
    world.vouch()
    await world.fed()
    world.policy = replace(world.policy, ttl_s=30)
    world.vouch()
    await world.fed()
    assert world.driver.timeouts == [9, 28]


async def test_it_runs_until_no_process_of_the_primary_is_left(world: World):
    world.vouch()
    await world.fed()
    world.may_stop = False
    world.dog.vouched(None, 0.6, True)
    assert await world.fed() == b""
    assert world.dog.armed
    world.may_stop = True
    world.dog.vouched(None, 0.6, True)
    assert await world.fed() == b"V"
    assert not world.dog.armed


async def test_it_can_be_armed_again(world: World):
    for _ in range(2):
        world.vouch()
        await world.dog.arm()
        assert await world.fed() == b"1"
        world.dog.vouched(None, 0.6, True)
        assert await world.fed() == b"V"
    assert world.driver.timeouts == [9, 9]


async def test_one_that_cannot_be_stopped_is_fed_while_there_is_nothing_to_lose(world: World):
    folder = world.driver.sysfs / os.path.basename(world.driver.path)
    folder.mkdir()
    (folder / "nowayout").write_text("1\n")
    world.vouch()
    assert await world.fed() == b"1"
    for _ in range(2):
        world.dog.vouched(None, 0.6, True)
        assert await world.fed() == b"1"
    assert world.dog.armed


async def test_the_agents_end_stops_it_and_a_crash_does_not(world: World):
    world.vouch()
    await world.fed()
    await world.dog.close()
    assert world.driver.written() == b""

    world.another("automatic")
    world.vouch()
    await world.fed()
    world.dog.vouched(None, 0.6, True)
    await world.dog.close()
    assert world.driver.written() == b"V"


async def test_off_touches_nothing(world: World):
    world.another("off")
    world.vouch()
    await world.dog.arm()
    assert (await world.fed(), world.dog.armed, world.dog.unfit()) == (b"", False, "")


# ---- devices that do not do


async def test_required_and_missing_nobody_stands_or_promotes(world: World, tmp_path: Path):
    dog = world.another("required", path=str(tmp_path / "watchdog"))
    assert "does not exist" in dog.unfit()
    world.vouch()
    with pytest.raises(CommandFailed, match="No such file"):
        await dog.arm()


async def test_required_and_usable_the_node_may_lead(world: World):
    world.another("required")
    assert world.dog.unfit() == ""
    world.vouch()
    await world.dog.arm()
    assert world.dog.unfit() == ""


async def test_required_and_not_vouched_for_there_is_no_promotion(world: World):
    world.another("required")
    with pytest.raises(CommandFailed, match="nobody vouches"):
        await world.dog.arm()


async def test_a_failure_keeps_the_node_from_standing_for_a_while(world: World):
    world.another("required")
    world.driver.fixed_s = 60
    world.vouch()
    with pytest.raises(CommandFailed, match="60 s outlasts the lease"):
        await world.dog.arm()
    assert (await world.fed()).strip(b"V") == b""
    assert "outlasts" in world.dog.unfit()
    world.now += 60
    assert world.dog.unfit() == ""


async def test_automatic_and_missing_the_node_leads_without(world: World, tmp_path: Path):
    dog = world.another("automatic", path=str(tmp_path / "watchdog"))
    world.vouch()
    await dog.arm()
    assert (dog.armed, dog.unfit()) == (False, "")


async def test_automatic_takes_what_fires_too_late(world: World):
    world.driver.fixed_s = 60
    world.vouch()
    await world.dog.arm()
    assert await world.fed() == b"1"


async def test_a_device_that_would_reset_a_healthy_machine_is_left_alone(world: World):
    world.policy = replace(world.policy, loop_wait_s=5.0, ttl_s=30.0)
    world.driver.fixed_s = 4
    world.vouch()
    await world.dog.arm()
    assert (await world.fed()).strip(b"V") == b""
    assert not world.dog.armed
    world.now += 1
    world.vouch()
    assert await world.fed() == b""


async def test_a_margin_that_leaves_no_time_for_a_beat_is_refused(world: World):
    dog = world.another("required", margin_s=9.5)
    assert "loop_wait" in dog.unfit()
    world.vouch()
    with pytest.raises(CommandFailed, match="loop_wait"):
        await dog.arm()
    assert await world.fed() == b""


async def test_a_device_that_rounds_up_within_the_lease_will_do(world: World):
    world.another("required", margin_s=3)
    world.driver.step_s = 8
    world.vouch()
    await world.dog.arm()
    assert world.dog.armed


async def test_what_is_no_device_is_not_written_to(world: World, tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("precious")
    dog = world.another("automatic", path=str(file))
    world.vouch()
    await dog.arm()
    assert (dog.armed, file.read_text()) == (False, "precious")


async def test_a_device_without_a_timeout_is_no_watchdog():
    device = Device("/dev/null")  # with the real ioctl
    dog = Watchdog("required", device, None, Policy, lambda: 1000.0, lambda: True)
    dog.vouched(1008.0, 0.6, True)
    with pytest.raises(CommandFailed, match="/dev/null cannot be used"):
        await dog.arm()
    assert not dog.armed
