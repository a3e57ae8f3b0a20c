"""The kernel's watchdog, /dev/watchdog: resets the whole machine when nobody feeds it. The last safeguard of asynchronous mode.

It is armed before Postgres becomes a primary, fed only when the leadership was vouched for anew (the lease was renewed, or the voters
have proven it), and stopped by the magic `V` only when no process of a primary is left (REFERENCE 1.11, HAZARDS C 46). It must never be
fed by the mere passing of time, and never reset a machine that has nothing to lose. Fed later than usual, it gets a shorter timeout: it
fires before the lease's end in any case. Called by `rivha.agent.safeguards`; the device is only touched in a thread of its own, as a
driver may be slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import platform
import stat
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import structlog

from rivha.agent.fence import FENCE_SHARE
from rivha.errors import CommandFailed
from rivha.model import Policy

log = structlog.get_logger(__name__)

MARGIN_S = 5.0  # Patroni's
MARGIN_SHARE = (
    FENCE_SHARE / 2
)  # of the ttl, at the most: any earlier, and it resets a machine whose fence is about to have stopped Postgres
ARM_S = 5.0  # a device that needs longer is none
UNFIT_S = 30.0  # after a failure, before it is tried again, and before a node that needs it may stand for election
SYSFS = Path("/sys/class/watchdog")

# linux/watchdog.h. The direction of an ioctl is coded in other bits on these machines (asm/ioctl.h).
_READ, _WRITE, _SHIFT = (2, 4, 29) if platform.machine().startswith(("ppc", "powerpc", "mips", "sparc")) else (2, 1, 30)
GET_SUPPORT = _READ << _SHIFT | 40 << 16 | ord("W") << 8
SET_TIMEOUT = (_READ | _WRITE) << _SHIFT | 4 << 16 | ord("W") << 8 | 6
GET_TIMEOUT = _READ << _SHIFT | 4 << 16 | ord("W") << 8 | 7


class Ioctl(Protocol):
    def __call__(self, fd: int, request: int, argument: bytes, /) -> bytes: ...


def _ioctl(fd: int, request: int, argument: bytes, /) -> bytes:
    return fcntl.ioctl(fd, request, argument)


class Device:
    """The device itself: opening it starts its clock. Every method may block, and raises OSError."""

    def __init__(self, path: str, ioctl: Ioctl = _ioctl, sysfs: Path = SYSFS) -> None:
        self.path = path
        self._ioctl, self._sysfs = ioctl, sysfs
        self._fd: int | None = None
        self.asked_s = self.timeout_s = 0  # what was asked for, and what the device made of it; 0: nothing yet

    @property
    def is_open(self) -> bool:
        return self._fd is not None

    def open(self) -> None:
        if not stat.S_ISCHR(os.stat(self.path).st_mode):
            raise OSError(errno.ENOTTY, "not a device")
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
        self.asked_s = self.timeout_s = 0

    def identity(self) -> str:
        """What the driver calls itself; "" when it does not say."""
        try:
            name: bytes = struct.unpack("II32s", self._ask(GET_SUPPORT, bytes(40)))[2]
        except OSError:
            return ""
        return name.partition(b"\0")[0].decode(errors="replace")

    def set_timeout(self, seconds: int) -> None:
        """Some drivers round, some have one timeout only."""
        try:
            answer = self._ask(SET_TIMEOUT, struct.pack("i", seconds))
        except OSError:
            answer = self._ask(GET_TIMEOUT, bytes(4))
        self.asked_s, self.timeout_s = seconds, struct.unpack("i", answer)[0]

    def feed(self) -> None:
        os.write(self._open_fd, b"1")

    def close(self, *, stop: bool) -> None:
        """Without `stop` the clock runs on."""
        fd, self._fd = self._open_fd, None
        try:
            if stop:
                os.write(fd, b"V")
        finally:
            os.close(fd)

    def cannot_be_stopped(self) -> bool:
        """`nowayout`: the kernel was told so. False when it does not say."""
        name = os.path.basename(os.path.realpath(self.path))
        try:
            return (self._sysfs / ("watchdog0" if name == "watchdog" else name) / "nowayout").read_text().strip() == "1"
        except OSError:
            return False

    @property
    def _open_fd(self) -> int:
        if self._fd is None:
            raise OSError(f"{self.path} is not open")
        return self._fd

    def _ask(self, request: int, argument: bytes) -> bytes:
        return self._ioctl(self._open_fd, request, argument)


class Watchdog:
    def __init__(
        self,
        mode: str,
        device: Device,
        margin_s: float | None,
        policy: Callable[[], Policy],
        clock: Callable[[], float],
        may_stop: Callable[[], bool],
    ) -> None:
        """`mode`: off, automatic or required. `margin_s`: before the ttl's end; -1: half the ttl; None: chosen here.

        `may_stop()`, asked in the thread: no process of a primary is left, given that nobody vouches for one.
        """
        self._mode, self._device, self._margin_s = mode, device, margin_s
        self._policy, self._clock, self._may_stop = policy, clock, may_stop
        self._thread = ThreadPoolExecutor(1, "watchdog")
        self._working: asyncio.Future[None] | None = None
        self._until: float | None = None  # as vouched for
        self._quit_s = 0.0
        self._fed_until = 0.0
        self._problem = ""
        self._problem_at = 0.0
        self._nowayout = False

    @property
    def _failed_lately(self) -> bool:
        return bool(self._problem) and self._clock() < self._problem_at + UNFIT_S

    @property
    def armed(self) -> bool:
        return self._device.is_open

    def vouched(self, until: float | None, quit_s: float, earned: bool) -> None:
        """As Safeguards.vouched."""
        if self._mode == "off":
            return
        if until is None:
            self._until, self._fed_until = None, 0.0
            if self.armed:
                self._begin(self._leave)
        elif earned:
            self._until, self._quit_s = until, quit_s
            if until > self._fed_until and (self.armed or not self._failed_lately):
                self._begin(self._feed)

    def _begin(self, work: Callable[[], None]) -> None:
        """One at a time: the next word follows at the next tick."""
        if self._working is None:
            self._working = asyncio.get_running_loop().run_in_executor(self._thread, work)
            self._working.add_done_callback(self._ended)

    def _ended(self, working: asyncio.Future[None]) -> None:
        self._working = None
        if not working.cancelled():
            working.result()

    async def arm(self) -> None:
        """As Safeguards.arm."""
        if self._mode == "off":
            return
        try:
            async with asyncio.timeout(ARM_S):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._feed)
        except TimeoutError:
            self._fail(f"{self._device.path} does not answer")
        if self._mode == "required" and not self.armed:
            why = self._problem or "nobody vouches for this leadership any more"
            raise CommandFailed(f"a watchdog is required (watchdog.mode), and {why}: not becoming a primary")

    def unfit(self) -> str:
        """As Safeguards.unfit."""
        if self._mode != "required" or self.armed:
            return ""
        if self._failed_lately:
            return f"a watchdog is required, and {self._problem}"
        if why := self._why_timing_forbids(self._policy()):
            return f"a watchdog is required, and {why}"
        if not os.access(self._device.path, os.W_OK):
            missing = "may not be written by this user" if os.path.exists(self._device.path) else "does not exist (modprobe softdog?)"
            return f"a watchdog is required, and {self._device.path} {missing}"
        return ""

    async def close(self) -> None:
        """At the agent's end. A primary that somebody still vouched for leaves the watchdog running."""
        if self.armed and self._until is None:
            try:
                async with asyncio.timeout(ARM_S):
                    await asyncio.get_running_loop().run_in_executor(self._thread, self._leave)
            except TimeoutError:
                log.error("the watchdog does not answer", device=self._device.path)
        if self.armed:
            log.critical("the agent ends and the watchdog runs: it resets this machine", within_s=self._device.timeout_s)
        self._thread.shutdown(wait=False)

    # ---- in the thread

    def _feed(self) -> None:
        """Arms it, if need be, and feeds it, with a timeout that ends before what was vouched for does."""
        until, quit_s, policy = self._until, self._quit_s, self._policy()
        if until is None or until <= self._fed_until:
            return
        wanted_s = int(min(self._longest_s(policy), until + quit_s - self._clock()))
        try:
            if why := self._why_timing_forbids(policy):
                raise OSError(why)
            if wanted_s < (1 if self.armed else policy.loop_wait_s):
                return  # too late for this word: the next one, or the reset, comes in time
            if not self.armed:
                self._device.open()
            if wanted_s != self._device.asked_s:
                self._set_timeout(wanted_s, until + 2 * quit_s - self._clock(), policy)
            self._device.feed()
        except OSError as error:
            if self.armed and not self._device.timeout_s:  # what does not even know its timeout is no watchdog
                with contextlib.suppress(OSError):
                    self._device.close(stop=True)
            self._fail(str(error) if error.errno is None else f"{self._device.path} cannot be used: {error.strerror}")
        else:
            self._fed_until = until
            self._problem = ""

    def _set_timeout(self, seconds: int, safe_s: float, policy: Policy) -> None:
        """Raises OSError when what the device makes of the first one would reset a healthy machine, or, if required, none in time."""
        first = not self._device.asked_s
        self._device.set_timeout(seconds)
        if not first:
            return
        actual_s = self._device.timeout_s
        if actual_s < policy.loop_wait_s:
            self._device.close(stop=True)
            raise OSError(f"its timeout of {actual_s} s is shorter than loop_wait, {policy.loop_wait_s:g} s")
        if actual_s > safe_s and self._mode == "required":
            self._device.close(stop=True)
            raise OSError(f"its timeout of {actual_s} s outlasts the lease: a larger ttl may help")
        self._nowayout = self._device.cannot_be_stopped()
        identity = self._device.identity()
        log.info("watchdog armed", device=self._device.path, identity=identity, timeout_s=actual_s, nowayout=self._nowayout)
        if actual_s > safe_s:
            log.warning("the watchdog fires only after the lease's end", timeout_s=actual_s, lease_left_s=round(safe_s, 1))
        if actual_s < policy.loop_wait_s + policy.retry_timeout_s:
            log.warning("one slow answer of etcd can make the watchdog reset this machine", timeout_s=actual_s)

    def _leave(self) -> None:
        """Stops it, once nothing of the primary is left. One that cannot be stopped is fed on, for there is nothing to lose."""
        if not self.armed or self._until is not None or not self._may_stop():
            return
        try:
            if self._nowayout:
                self._device.feed()
            else:
                self._device.close(stop=True)
                log.info("watchdog stopped", device=self._device.path)
        except OSError as error:
            self._fail(f"{self._device.path} cannot be used: {error.strerror}")

    # ---- timing

    def _longest_s(self, policy: Policy) -> float:
        """How long it may take to fire after the lease was renewed."""
        ttl_s, margin_s = policy.ttl_s, self._margin_s
        if margin_s is None:
            return ttl_s * (1 - MARGIN_SHARE)
        return ttl_s / 2 if margin_s < 0 else ttl_s - margin_s

    def _why_timing_forbids(self, policy: Policy) -> str:
        """In words, "" when it does not: a healthy leader feeds it once per beat."""
        longest_s = int(self._longest_s(policy))
        if longest_s >= max(policy.loop_wait_s, 1.0):
            return ""
        return (
            f"it would fire {longest_s} s after each renewal, but loop_wait is {policy.loop_wait_s:g} s: raise ttl or lower safety_margin"
        )

    def _fail(self, problem: str) -> None:
        """Told once per change."""
        if problem != self._problem:
            log.error("no watchdog guards this machine", problem=problem, required=self._mode == "required")
        self._problem, self._problem_at = problem, self._clock()
