"""The deadman beside the loop: stops Postgres when nobody has vouched for its leadership in time.

It must not depend on the brain: should the tick hang, or decide wrongly, the last instant vouched for still comes, and then Postgres is
stopped without asking. The tick moves that instant; only the passing of time fires it. A suspended machine counts too (see main.clock).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from rivha.errors import RivhaError

log = structlog.get_logger(__name__)

FENCE_SHARE = 0.125  # of the ttl, before the lease's end: 1.25 s of 10 for an immediate stop, then SIGKILL
AGAIN_S = 0.5  # a stop that failed is tried again
STOOD_STILL_S = 1.0  # so late only when this process or the machine did not run: a guard may have been at work
LOOK_S = 0.1  # for what is only a word in the log; a disk that hangs must not save Postgres


class Safeguards(Protocol):
    """What stands outside of this process, should all of it hang, freeze or die: rivha.agent.safeguards."""

    def vouched(self, until: float | None, quit_s: float, earned: bool) -> None:
        """Every word of the fence, as it comes; must not block."""
        ...

    async def arm(self) -> None:
        """Before Postgres may become a primary. Raises CommandFailed when a safeguard that is required cannot be had."""
        ...

    def unfit(self) -> str:
        """Why this node must not lead for want of a safeguard, for people; "" when it may."""
        ...


class NoSafeguards:
    """For the simulator and for tests: the fence alone."""

    def vouched(self, until: float | None, quit_s: float, earned: bool) -> None:
        pass

    async def arm(self) -> None:
        pass

    def unfit(self) -> str:
        return ""


NOTHING = NoSafeguards()


class Fence:
    def __init__(
        self,
        clock: Callable[[], float],
        stop: Callable[[float], Awaitable[None]],
        safeguards: Safeguards = NOTHING,
        is_left: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`stop(quit_s)` ends Postgres: immediate for `quit_s` seconds, then SIGKILL. `is_left`: is there a process of it? For the log."""
        self._clock = clock
        self._stop = stop
        self._safeguards = safeguards
        self._is_left = is_left
        self._moved = asyncio.Event()
        self.deadline: float | None = None
        self.quit_s = 0.5
        self.fired = 0
        self.firing = False

    def vouch(self, until: float | None, quit_s: float = 0.5, *, earned: bool = True) -> None:
        """Postgres may serve as a primary until this instant; None: it is no primary, there is nothing to fence.

        `earned`: a lease or the voters' proof stands behind it. Else it is the time that the rules get to stop what nobody vouches for.
        """
        self._safeguards.vouched(until, quit_s, earned)
        if until != self.deadline:
            self.deadline, self.quit_s = until, quit_s
            self._moved.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._moved.clear()
            if self.deadline is not None and self._clock() >= self.deadline:
                await self._fire()
            await self._sleep()

    async def _sleep(self) -> None:
        """Until the deadline comes or is moved; a look every half second at the most notices a clock that jumped (a suspended machine)."""
        left = None if self.deadline is None else min(max(self.deadline - self._clock(), 0.0), AGAIN_S)
        try:
            async with asyncio.timeout(left):
                await self._moved.wait()
        except TimeoutError:
            pass

    async def _fire(self) -> None:
        self.fired += 1
        self.firing = True
        late = self._clock() - (self.deadline or 0.0)
        self.deadline = None
        over = late >= STOOD_STILL_S and await self._is_over()
        if over:
            log.warning("fence: the deadline passed while this agent stood still; Postgres had been stopped already", ago_s=round(late, 3))
        else:
            log.critical("fence: nobody vouches for this primary any more, stopping Postgres at once", late_s=round(late, 3))
        try:
            await self._stop(self.quit_s)  # also what the agent was about to start
            log.warning("fence: Postgres has stopped")
        except (RivhaError, OSError) as error:
            log.critical("fence: Postgres could not be stopped, trying again", error=str(error))
            self.deadline = self._clock() + AGAIN_S
        finally:
            self.firing = False

    async def _is_over(self) -> bool:
        """No process of Postgres is left; False also when that could not be seen at once."""
        if self._is_left is None:
            return False
        try:
            async with asyncio.timeout(LOOK_S):
                return not await self._is_left()
        except (TimeoutError, OSError):
            return False
