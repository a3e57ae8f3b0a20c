"""The one slot for long work: clone, rewind, start, stop, promote. Its state is part of the next View, so the tick stays short.

Only the performer begins and cancels jobs. A job's end wakes the tick. What a job raises becomes its outcome, never the tick's problem.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import replace

import structlog

from rivha.advice import advice, advised, brief
from rivha.agent.brain.memory import HINDERED
from rivha.agent.brain.view import Job
from rivha.errors import CommandFailed, NoSpace, PostgresUnavailable, RivhaError

log = structlog.get_logger(__name__)


class JobSlot:
    def __init__(self, clock: Callable[[], float], wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._task: asyncio.Task[object] | None = None
        self.job: Job | None = None
        self._failed: tuple[str, str, str] = ("", "", "")  # kind, subject and text of the failure told last
        self._times = 0

    @property
    def busy(self) -> bool:
        return self._task is not None

    def begin(
        self,
        kind: str,
        work: Callable[[], Coroutine[object, object, object]],
        *,
        subject: str = "",
        term: int = 0,
        ground: tuple[int, int, int] | None = None,
        at_end: Callable[[Job], None] | None = None,
    ) -> bool:
        """False when the slot is taken. A text that `work` returns is the job's result; `at_end` is called before the wake-up."""
        if self._task is not None:
            return False
        self.job = Job(kind, self._clock(), subject, term, ground)
        log.info("job begins", job=kind, subject=subject)
        self._task = asyncio.create_task(work(), name=f"job {kind}")
        self._task.add_done_callback(lambda task: self._ended(task, at_end))
        return True

    async def cancel(self, within_s: float | None = None) -> None:
        """Returns when the work has ended, whatever it made of its cancellation, or after `within_s` seconds."""
        if self._task is not None:
            task = self._task
            task.cancel()
            await asyncio.wait({task}, timeout=within_s)
            if self._task is task:  # its done-callback may not have run yet
                await asyncio.sleep(0)

    def _ended(self, task: asyncio.Task[object], at_end: Callable[[Job], None] | None) -> None:
        assert self.job is not None
        self._task = None
        job = replace(self.job, ended_at=self._clock())
        seconds = round(self._clock() - job.started_at, 3)
        if task.cancelled():
            self.job = replace(job, outcome="cancelled", detail="cancelled")
            log.info("job cancelled", job=job.kind, subject=job.subject, seconds=seconds)
        elif (error := task.exception()) is not None:
            result = HINDERED if isinstance(error, (PostgresUnavailable, NoSpace)) else ""
            self.job = replace(job, outcome="failed", detail=_detail(error), result=result)
            self._tell_failure(self.job, error, seconds)
        else:
            self._times = 0
            said = task.result()
            self.job = replace(job, outcome="done", result=said if isinstance(said, str) else "")
            log.info("job done", job=job.kind, subject=job.subject, seconds=seconds, result=self.job.result)
        if at_end is not None:
            at_end(self.job)
        self._wake()

    def _tell_failure(self, job: Job, error: BaseException, seconds: float) -> None:
        """All that the program said the first time; what merely goes on is told in a line."""
        failure = (job.kind, job.subject, re.sub(r"[0-9]+", "#", job.detail))
        self._times = self._times + 1 if failure == self._failed else 1
        self._failed = failure
        facts = {"job": job.kind, "subject": job.subject, "seconds": seconds}
        if self._times > 1:
            log.warning("job failed again", **facts, times=self._times, error=job.detail)
            return
        bug = None if isinstance(error, (RivhaError, OSError)) else error
        log.error("job failed", **facts, error=str(error) or type(error).__name__, advice=advice(str(error)), exc_info=bug)


def _detail(error: BaseException) -> str:
    """One line for people: what failed, why, and what to do."""
    whole = str(error) or type(error).__name__
    said = brief(error.what, error.output) if isinstance(error, CommandFailed) else brief(whole)
    return advised(said, whole)
