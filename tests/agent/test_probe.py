"""The prober counts the silence that it watched itself, and asks cheaply. In virtual time; the agent that is asked is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from rivha.agent.probe import LAPSE_S, PROBE_AGAIN_S, PROBE_BUDGET_S, PROBE_EVERY_S, Prober
from tests.sim.loop import VirtualLoop

LEADER = "http://db1:8008/patroni"
SUSPECT_S = 2.0


class Peer:
    """The leader's agent and the network to it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.lives, self.dark = True, False
        self.takes_s = 0.001
        self.asked: list[tuple[float, str]] = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, api_url: str, budget_s: float) -> bool:
        self.asked.append((self.loop.now, api_url))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(budget_s if self.dark else min(self.takes_s, budget_s))
        finally:
            self.at_once -= 1
        return self.lives and not self.dark and self.takes_s < budget_s


class Stage:
    """A prober that runs as the process `agent` of a virtual loop."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.peer = Peer(self.loop)
        self.woken: list[float] = []
        self.prober = Prober(self.peer, self.loop.time, lambda: self.woken.append(self.loop.now))

    def run(self, story: Coroutine[Any, Any, None]) -> None:
        async def told() -> None:
            running = self.loop.spawn("agent", self.prober.run())
            await story
            assert not running.done()
            running.cancel()
            await asyncio.wait({running})
            await asyncio.sleep(0)  # probes that were cancelled end
            assert self.peer.at_once == 0

        self.loop.run_until_complete(told())
        self.loop.close()
        assert self.loop.mishaps == []

    def asked_within(self, begin: float, end: float) -> int:
        return sum(begin <= at < end for at, _ in self.peer.asked)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_an_agent_that_answers_is_asked_twice_a_second_and_never_silent(stage):
    async def story() -> None:
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        for _ in range(100):
            await asyncio.sleep(0.1)
            stage.prober.aim("db1", LEADER, SUSPECT_S)  # each tick says it again
            assert stage.prober.silent_for_s("db1") <= PROBE_EVERY_S + 0.01
        assert stage.asked_within(0, 10) == 10 / PROBE_EVERY_S
        assert stage.woken == []

    stage.run(story())


def test_silence_counts_from_the_sending_of_the_last_probe_that_was_answered(stage):
    async def story() -> None:
        stage.peer.takes_s = 0.4
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(0.45)
        stage.peer.dark = True
        assert stage.prober.silent_since == 0.0, "asked at 0, answered at 0.4"
        await asyncio.sleep(2.55)
        assert stage.prober.silent_for_s("db1") == pytest.approx(3.0)

    stage.run(story())


def test_the_tick_is_woken_once_at_the_instant_when_the_silence_is_long_enough(stage):
    async def story() -> None:
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(1.2)
        stage.peer.dark = True
        await asyncio.sleep(30)
        assert stage.woken == [pytest.approx(1.0 + SUSPECT_S)], "the last answer was to the question of second 1"
        stage.peer.dark = False
        await asyncio.sleep(2)
        stage.peer.dark = True
        await asyncio.sleep(10)
        assert len(stage.woken) == 2, "a new silence is news"

    stage.run(story())


def test_a_probe_that_hangs_does_not_hold_up_the_next_one(stage):
    async def story() -> None:
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(0.6)
        stage.peer.dark = True
        await asyncio.sleep(0.5)  # one has left at 1.0, and hangs
        stage.peer.dark = False
        await asyncio.sleep(0.45)
        assert stage.prober.silent_since == pytest.approx(1.5), "answered beside the one that hung"
        assert stage.peer.most_at_once == 2

    stage.run(story())


def test_no_more_than_two_questions_are_under_way_and_what_stays_dark_is_not_asked_in_haste(stage):
    async def story() -> None:
        stage.peer.dark = True
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(20)
        assert stage.peer.most_at_once == 2
        assert stage.asked_within(10, 20) <= 10 / PROBE_EVERY_S

    stage.run(story())


def test_an_agent_that_says_no_is_asked_again_soon_until_the_silence_is_known(stage):
    async def story() -> None:
        stage.peer.lives = False
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(20)
        assert stage.asked_within(0.5, 1.5) == pytest.approx(1 / PROBE_AGAIN_S, abs=1.5)
        assert stage.asked_within(10, 20) <= 10 / PROBE_EVERY_S
        assert stage.woken == [SUSPECT_S]

    stage.run(story())


def test_another_target_starts_afresh_and_answers_about_the_old_one_do_not_count(stage):
    async def story() -> None:
        stage.peer.dark = True
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(3)
        stage.prober.aim("db2", "http://db2:8008/patroni", SUSPECT_S)
        assert stage.prober.silent_for_s("db1") == 0.0
        assert stage.prober.silent_for_s("db2") == 0.0
        await asyncio.sleep(0.2)
        assert stage.peer.at_once == 1, "questions to db1 are given up"
        assert stage.peer.asked[-1][1] == "http://db2:8008/patroni"

    stage.run(story())


def test_an_address_that_vanished_from_etcd_changes_neither_whom_it_asks_nor_the_silence(stage):
    async def story() -> None:
        stage.peer.dark = True
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(1)
        stage.prober.aim("db1", "", SUSPECT_S)
        await asyncio.sleep(1)
        assert stage.prober.silent_since == 0.0
        assert {url for _, url in stage.peer.asked} == {LEADER}

    stage.run(story())


def test_a_new_address_of_the_same_agent_is_asked_and_the_silence_goes_on(stage):
    async def story() -> None:
        stage.peer.lives = False
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(1)
        stage.prober.aim("db1", "http://elsewhere:8008/patroni", SUSPECT_S)
        await asyncio.sleep(0.5)
        assert stage.peer.asked[-1][1] == "http://elsewhere:8008/patroni"
        assert stage.prober.silent_since == 0.0

    stage.run(story())


def test_nobody_to_watch_costs_nothing(stage):
    async def story() -> None:
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(1.1)
        stage.prober.aim(None, "", SUSPECT_S)
        await asyncio.sleep(0.1)
        steps = stage.loop.steps
        await asyncio.sleep(3600)
        assert stage.loop.steps - steps < 10
        assert stage.prober.silent_since is None
        assert stage.prober.silent_for_s("db1") == 0.0
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(0.1)
        assert stage.prober.silent_since == pytest.approx(3601.2)

    stage.run(story())


def test_an_agent_that_was_frozen_itself_is_no_witness_of_what_it_did_not_watch(stage):
    async def story() -> None:
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(1.1)
        stage.loop.freeze("agent")
        await asyncio.sleep(60)
        stage.peer.dark = True
        assert stage.prober.silent_for_s("db1") == 0.0, "its tick may come before the prober's own turn"
        stage.loop.thaw("agent")
        thawed = stage.loop.now
        assert stage.prober.silent_for_s("db1") == 0.0
        await asyncio.sleep(5)
        assert stage.prober.silent_since == pytest.approx(thawed)
        assert stage.woken == [pytest.approx(thawed + SUSPECT_S)]

    stage.run(story())


def test_a_short_pause_of_its_own_is_no_excuse_for_the_target(stage):
    async def story() -> None:
        stage.peer.dark = True
        stage.prober.aim("db1", LEADER, SUSPECT_S)
        await asyncio.sleep(1.0)
        stage.loop.freeze("agent")
        await asyncio.sleep(LAPSE_S / 4)
        stage.loop.thaw("agent")
        await asyncio.sleep(1.0)
        assert stage.prober.silent_since == 0.0

    stage.run(story())


def test_what_ask_should_not_have_raised_ends_the_prober():
    loop = VirtualLoop()

    async def broken(api_url: str, budget_s: float) -> bool:
        raise ArithmeticError(f"{api_url} {budget_s}")

    prober = Prober(broken, loop.time, lambda: None)
    prober.aim("db1", LEADER, SUSPECT_S)
    with pytest.raises(ArithmeticError, match=f"{LEADER} {PROBE_BUDGET_S}"):
        loop.run_until_complete(prober.run())
    loop.close()
