"""The one slot for long work."""

from __future__ import annotations

import asyncio

import pytest

from rivha.agent.job import JobSlot
from rivha.errors import CommandFailed


@pytest.fixture
def slot() -> JobSlot:
    return JobSlot(lambda: 7.0, lambda: None)


async def ended(slot: JobSlot) -> None:
    async with asyncio.timeout(5):
        while slot.busy:
            await asyncio.sleep(0)


async def test_a_job_that_ends_tells_its_result_and_wakes_the_tick():
    woken: list[str] = []
    slot = JobSlot(lambda: 7.0, lambda: woken.append("tick"))

    async def work() -> str:
        return "same"

    assert slot.begin("compare", work, subject="db1", term=3)
    await ended(slot)

    assert slot.job is not None
    assert (slot.job.outcome, slot.job.result, slot.job.term, slot.job.ended_at) == ("done", "same", 3, 7.0)
    assert woken == ["tick"]


async def test_a_second_job_is_refused_while_one_runs(slot: JobSlot):
    gate = asyncio.Event()
    assert slot.begin("clone", gate.wait)

    assert not slot.begin("rewind", gate.wait)
    gate.set()
    await ended(slot)
    assert slot.job is not None
    assert slot.job.kind == "clone"


async def test_a_failure_is_an_outcome_with_words(slot: JobSlot):
    async def work() -> None:
        raise CommandFailed("pg_rewind", "could not connect")

    slot.begin("rewind", work)
    await ended(slot)

    assert slot.job is not None
    assert (slot.job.outcome, slot.job.detail) == ("failed", "pg_rewind: could not connect")


async def test_a_bug_in_a_job_does_not_reach_the_tick(slot: JobSlot):
    async def work() -> None:
        raise ZeroDivisionError("a bug")

    slot.begin("rewind", work)
    await ended(slot)

    assert slot.job is not None
    assert slot.job.outcome == "failed"


async def test_cancelling_waits_until_the_work_has_ended(slot: JobSlot):
    cleaned = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    slot.begin("clone", work)
    await asyncio.sleep(0)
    await slot.cancel()

    assert cleaned.is_set()
    assert not slot.busy
    assert slot.job is not None
    assert slot.job.outcome == "cancelled"
    assert slot.begin("rewind", asyncio.Event().wait)
    await slot.cancel()


async def test_who_cannot_wait_for_the_end_of_a_cancelled_job_does_not(slot: JobSlot):
    """The fence: a program in the grip of a hanging disk must not outlive the lease together with Postgres."""
    hanging = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await hanging.wait()

    slot.begin("start", work)
    await asyncio.sleep(0)
    await slot.cancel(0.01)

    assert slot.busy
    hanging.set()
    await ended(slot)
