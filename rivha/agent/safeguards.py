"""What stands outside of the agent's process, should all of it hang, freeze or die: the guard, the kernel's watchdog, and systemd's.

It passes on what the fence and the tick say, and decides nothing. Made by `agent.main`, called by fence, tick and performer.
"""

from __future__ import annotations

from collections.abc import Callable

from rivha.agent.brain.view import View
from rivha.agent.guard_link import GuardLink
from rivha.agent.systemd import Heart
from rivha.agent.watchdog import Device, Watchdog
from rivha.model import Policy
from rivha.postgres.process import is_postmaster_of, processes_of


class Machine:
    """`rivha.agent.fence.Safeguards` on a real machine. `clock` is CLOCK_BOOTTIME: the guard compares with its own."""

    def __init__(
        self,
        data_dir: str,
        policy: Callable[[], Policy],
        clock: Callable[[], float],
        *,
        guard: bool,
        mode: str,
        device: str,
        margin_s: float | None,
    ) -> None:
        self._policy = policy
        self._guard = GuardLink(data_dir) if guard else None
        self._watchdog = Watchdog(mode, Device(device), margin_s, policy, clock, lambda: nothing_to_lose(data_dir))
        self._heart = Heart()

    def vouched(self, until: float | None, quit_s: float, earned: bool) -> None:
        self._watchdog.vouched(until, quit_s, earned)
        if self._guard is not None:
            self._guard.vouched(until, quit_s, earned)

    async def arm(self) -> None:
        await self._watchdog.arm()

    def unfit(self) -> str:
        return self._watchdog.unfit()

    def ticked(self, view: View) -> None:
        """A tick has come to its end. One that takes longer than this on a healthy machine does not exist: a beat, a look, a renewal."""
        self._heart.beat(view.policy.loop_wait_s + view.policy.retry_timeout_s + 1.0)

    async def close(self, *, release: bool) -> None:
        """`release`: the agent ends on purpose. Else what it vouched for last stands."""
        await self._watchdog.close()
        if self._guard is not None:
            await self._guard.close(release=release)


def nothing_to_lose(data_dir: str) -> bool:
    """Given that nobody vouches for a primary here: is none of it left? Blocking.

    A postmaster that lives is then a standby's, or one that the operator's pause leaves alone. Backends that have lost theirs are not: a
    killed postmaster's may yet finish a commit (HAZARDS C 46).
    """
    left = processes_of(data_dir)
    return not left or any(is_postmaster_of(pid, data_dir) for pid in left)
