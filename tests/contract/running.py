"""How a contract test runs: on the real thing in an ordinary loop, on the model in virtual time. The same body, written once.

What a test is about (`store`, `stores`, `nodes`) is a fixture with a method `run`; @contract runs the test's coroutine by it. So whatever
takes time must be asked of the running loop, never of a clock.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import pytest

from tests.sim.world import World


class Runs(Protocol):
    def run(self, work: Coroutine[Any, Any, Any]) -> Any: ...


SUBJECTS = ("store", "nodes")


def contract(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """An ordinary test, for pytest's eyes, of an async one."""
    wanted = inspect.signature(test).parameters
    asks = [*wanted.values(), inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY)]

    @functools.wraps(test)
    def run(request: pytest.FixtureRequest, **fixtures: Any) -> None:
        subject: Runs = next(request.getfixturevalue(name) for name in SUBJECTS if name in request.fixturenames)
        subject.run(test(**fixtures))

    run.__signature__ = inspect.Signature(asks)  # type: ignore[attr-defined]
    return run


class RealTime:
    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def close(self) -> None:
        self._runner.close()


class VirtualTime:
    """A world without agents, clients and laws: only its etcd lives by itself."""

    def __init__(self) -> None:
        self.world = World(0)
        self.world.loop.spawn("", self.world.store.run())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.world.loop.run_until_complete(work)

    def close(self) -> None:
        """What nobody caught is the test's failure."""
        self.run(self._end())
        self.world.loop.close()
        assert not self.world.loop.mishaps

    @staticmethod
    async def _end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def on_model_and(*real: str) -> list[Any]:
    """Parameters of a fixture: the model, and the real ones, which need services."""
    return [pytest.param(None, id="model"), *(pytest.param(name, id=name, marks=pytest.mark.real) for name in real)]
