"""A virtual asyncio loop: no clock, no socket, no thread. Time jumps to the next timer, so an hour costs what its events cost.

Every callback belongs to a process (`PROCESS`, inherited by tasks). A frozen process's callbacks are parked until it thaws; a dead one's
are dropped where they stand, as by kill -9: no `finally` runs, no cancellation is delivered.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

PROCESS: ContextVar[str] = ContextVar("PROCESS", default="")  # "": the world itself


class SleepsForEverError(Exception):
    """Nothing is left that could ever wake anybody: a deadlock of the simulated code."""


class Timer(asyncio.TimerHandle):
    """asyncio's own, without its debugging: with `_run_once` below it makes a simulated second a tenth cheaper."""

    __slots__ = ()

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> None:
        self._when, self._callback, self._args, self._cancelled = when, callback, args, False
        self._context = copy_context() if context is None else context

    def cancel(self) -> None:
        self._cancelled, self._callback, self._args = True, None, None  # type: ignore[assignment]


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.steps = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._set = 0  # timers
        self.frozen: set[str] = set()
        self.dead: set[str] = set()
        self.parked: dict[str, list[asyncio.Handle]] = defaultdict(list)
        self.mishaps: list[dict[str, Any]] = []  # what nobody caught
        self.on_mishap: Callable[[str], None] = lambda text: None  # told of each when it happens
        self.kept: list[asyncio.Task[Any]] = []  # of dead processes: collecting them would run their `finally`
        self.set_exception_handler(lambda _, context: self._mishap(context))

    def time(self) -> float:
        return self.now

    def spawn(self, process: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task, and all that it creates, as `process`."""
        context = copy_context()
        context.run(PROCESS.set, process)
        task = self.create_task(work, context=context)
        # As the world: it is told although the process froze or died meanwhile.
        task.add_done_callback(functools.partial(self._ended, process), context=Context())
        self.kept.append(task)
        return task

    def _ended(self, process: str, task: asyncio.Task[Any]) -> None:
        """asyncio tells of a task's unseen error when the task is collected, and kept ones never are."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._mishap({"message": f"a task of {process or 'the world'} died", "exception": error, "task": task})

    def _mishap(self, context: dict[str, Any]) -> None:
        self.mishaps.append(context)
        self.on_mishap(f"{context.get('message')}: {context.get('exception')!r}")

    def freeze(self, process: str) -> None:
        self.frozen.add(process)

    def thaw(self, process: str) -> None:
        """What was due meanwhile happens now, in its order."""
        self.frozen.discard(process)
        self._ready.extend(self.parked.pop(process, []))  # type: ignore[attr-defined]

    def kill(self, process: str) -> None:
        self.dead.add(process)
        self.frozen.discard(process)
        self.parked.pop(process, None)

    # ---- asyncio's own duties

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = Timer(self.now, callback, args, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        """Of two timers for one instant the one that was set first comes first."""
        handle = Timer(when, callback, args, context)
        self._set += 1
        heapq.heappush(self._timers, (when, self._set, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, work: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        return asyncio.Task(work, loop=self, name=name, context=context)

    def _run_once(self) -> None:
        """Until somebody stops the loop: asyncio asks only that much, and asks again."""
        ready, timers, dead, frozen = self._ready, self._timers, self.dead, self.frozen  # type: ignore[attr-defined]
        while not self._stopping:  # type: ignore[attr-defined]
            if ready:
                handle = ready.popleft()
            elif timers:
                when, _, handle = heapq.heappop(timers)
                if when > self.now and not handle._cancelled:
                    self.now = when
            else:
                raise SleepsForEverError
            if handle._cancelled:
                continue
            context = handle._context
            if dead or frozen:
                process = context.get(PROCESS, "")
                if process in dead:
                    continue
                if process in frozen:
                    self.parked[process].append(handle)
                    continue
            self.steps += 1
            try:
                context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as in asyncio: what nobody caught is told
                self.call_exception_handler({"message": f"Exception in callback {handle._callback}", "exception": error, "handle": handle})

    def _process_events(self, event_list: object) -> None:
        raise AssertionError("a virtual loop has no files to watch")

    def _write_to_self(self) -> None:
        raise AssertionError("a virtual loop has no threads to be woken by")

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        raise AssertionError("simulated code must not use threads")
