"""The first-hand witness of DESIGN 6.1: asks the leader's agent, again and again, whether it lives.

It only watches and counts; what silence means is the brain's to judge, and one witness alone convicts nobody. It must never raise for what
is out there, and never testify to a silence that it did not watch: a prober that was frozen itself begins anew. Run by `agent.core`, aimed
by each tick; `ask` is `rivha.api.ask.HttpAsk` in production and a model in the simulator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PROBE_EVERY_S = 0.5  # a fourth of suspect_after's default: three questions stay without an answer before anybody is suspected
PROBE_AGAIN_S = 0.1  # after a failure: an agent that is back shall be known to be
PROBE_BUDGET_S = 1.0
# While one hangs the next is sent beside it, on a connection of its own: TCP repeats a lost packet after 0.2 s at the earliest, several
# ones only after seconds. One lost packet must not convict.
UNDER_WAY_MAX = 2
LAPSE_S = 2 * PROBE_EVERY_S  # longer than any pause of its own: whoever missed that did not watch
SHORTEST_SLEEP_S = 0.001  # however near the next instant is: clocks that run apart must not make a busy loop

Ask = Callable[[str, float], Awaitable[bool]]


class Prober:
    """`ask(api_url, budget_s)` tells within its budget whether that agent lives and goes on as the leader. `clock`: seconds, monotonic."""

    def __init__(self, ask: Ask, clock: Callable[[], float], wake: Callable[[], None]) -> None:
        self._ask, self._clock, self._wake = ask, clock, wake
        self._name: str | None = None
        self._api_url = ""
        self._wake_after_s = 0.0
        self._heard_at = 0.0  # when the last probe that was answered had been sent, or when it was begun to watch this target
        self._watched_at = 0.0  # when this prober was last seen to do its work
        self._next_at = 0.0
        self._told = False  # that the target has been silent for `wake_after_s`
        self._under_way: dict[asyncio.Future[bool], float] = {}  # probe -> when it was sent
        self._stirred = asyncio.Event()

    def aim(self, name: str | None, api_url: str, wake_after_s: float) -> None:
        """Whom to watch from now on; None: nobody. Called by each tick: only another name starts afresh.

        An address that has vanished from etcd (the member's lease ran out) is no reason to ask elsewhere: "" keeps the one that is known.
        After `wake_after_s` seconds of silence `wake` is called, once.
        """
        if name == self._name and (api_url in ("", self._api_url)) and wake_after_s == self._wake_after_s:
            return
        if name != self._name:
            self._forget()
            self._name, self._api_url = name, ""
            self._heard_at = self._watched_at = self._next_at = self._clock()
        self._api_url = api_url or self._api_url
        self._wake_after_s, self._told = wake_after_s, False
        self._stirred.set()

    @property
    def silent_since(self) -> float | None:
        """When the last probe that was answered had been sent, or the moment of aiming at this target; None: nobody is aimed at."""
        if self._name is None:
            return None
        now = self._clock()
        return now if now - self._watched_at > LAPSE_S else self._heard_at

    def silent_for_s(self, name: str) -> float:
        """For how many seconds that node's agent has not answered; 0.0 when it is not the one that is watched."""
        since = self.silent_since
        return 0.0 if since is None or name != self._name else max(0.0, self._clock() - since)

    async def run(self) -> None:
        """Until cancelled. Raises only what `ask` should not have raised."""
        try:
            while True:
                self._stirred.clear()
                if self._name is not None:
                    self._watch(self._clock())
                await self._sleep()
        finally:
            self._forget()

    def _watch(self, now: float) -> None:
        if now - self._watched_at > LAPSE_S:
            self._heard_at, self._told = now, False
        self._watched_at = now
        self._collect(now)
        if now >= self._next_at and len(self._under_way) < UNDER_WAY_MAX:
            self._send(now)
        if not self._told and now - self._heard_at >= self._wake_after_s:
            self._told = True
            self._wake()

    def _collect(self, now: float) -> None:
        """What has failed. In haste only until the silence is known: what stays dark for hours is not worth ten questions a second."""
        for probe in [probe for probe in self._under_way if probe.done()]:
            del self._under_way[probe]
            if not probe.cancelled():
                probe.result()
            self._next_at = min(self._next_at, now + (PROBE_EVERY_S if self._told else PROBE_AGAIN_S))

    def _send(self, now: float) -> None:
        """An answer counts from here: what is known of the target is that it lived after it was asked."""
        probe = asyncio.ensure_future(self._ask(self._api_url, PROBE_BUDGET_S))
        self._under_way[probe] = now
        self._next_at = now + PROBE_EVERY_S
        probe.add_done_callback(self._ended)

    def _ended(self, probe: asyncio.Future[bool]) -> None:
        """An answer is taken here, at half the cost of waking `run` for it, which has nothing to do then."""
        if probe.cancelled() or probe.exception() is not None or not probe.result():
            self._stirred.set()
        elif (sent_at := self._under_way.pop(probe, None)) is not None:
            self._heard_at, self._told = max(self._heard_at, sent_at), False

    async def _sleep(self) -> None:
        """Until something is due, or stirs; with nobody to watch, until somebody is aimed at."""
        try:
            async with asyncio.timeout(self._left_s()):
                await self._stirred.wait()
        except TimeoutError:
            pass

    def _left_s(self) -> float | None:
        if self._name is None:
            return None
        now = self._clock()
        due = now + PROBE_EVERY_S
        if len(self._under_way) < UNDER_WAY_MAX:
            due = min(due, self._next_at)
        if not self._told:
            due = min(due, self._heard_at + self._wake_after_s)
        return max(due - now, SHORTEST_SLEEP_S)

    def _forget(self) -> None:
        """Answers that are still under way would be about somebody else."""
        for probe in self._under_way:
            probe.cancel()
        self._under_way.clear()
