"""One lab in namespaces of its own per module, driven from outside: it is the world's first process, and ends with us whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.faults import world
from tests.lab.node import REPOSITORY

UP_S = 240.0  # a whole cluster from nothing, on a machine that is busy with other tests
FAULT_S = 420.0  # the longest fault, and the way back


class Director:
    """The program that has the lab; asked for one fault at a time."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    @staticmethod
    async def start(*options: str) -> Director:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults", "--serve", *options,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24,
            cwd="/", env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        director = Director(child)
        await director._answer(UP_S)
        return director

    async def suffer(self, fault: str) -> dict[str, Any]:
        """The trial as tests/faults/trial.py has it; a failure of the fault, or a broken law, fails the test with the lab's own words."""
        assert self._child.stdin is not None
        self._child.stdin.write(fault.encode() + b"\n")
        answer = await self._answer(FAULT_S)
        if failure := answer.get("failure"):
            pytest.fail(failure, pytrace=False)
        print(answer["line"])
        trial: dict[str, Any] = answer["trial"]
        return trial

    async def _answer(self, deadline_s: float) -> dict[str, Any]:
        assert self._child.stdout is not None
        async with asyncio.timeout(deadline_s):
            line = await self._child.stdout.readline()
        if not line:
            pytest.fail(f"the lab ended with {await self._child.wait()}; its words are above", pytrace=False)
        said: dict[str, Any] = json.loads(line)
        return said

    async def end(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            async with asyncio.timeout(60.0):
                await self._child.wait()
        except TimeoutError:
            self._child.kill()
            await self._child.wait()
            raise


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def director(request: pytest.FixtureRequest) -> AsyncIterator[Director]:
    if why := world.missing():
        pytest.skip(f"no fault lab: {why}")
    director = await Director.start(*getattr(request.module, "LAB", ()))
    yield director
    await director.end()
