"""A real server on loopback before a desk that the test holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Any

import aiohttp

from rivha.agent.desk import Desk
from rivha.api.app import Api
from rivha.api.settings import RestSettings
from rivha.metrics import Metrics

LIMIT = aiohttp.ClientTimeout(total=15)


@asynccontextmanager
async def serving(desk: Desk, **settings: Any) -> AsyncIterator[Api]:
    api = Api(RestSettings(**{"listen_port": 0, **settings}), desk, Metrics("demo", "a"), "demo")
    await api.start()
    try:
        yield api
    finally:
        await api.stop()


async def ask(api: Api, method: str, path: str, *, body: str | IO[bytes] | None = None, **more: Any) -> tuple[int, str]:
    """(status, body) of one request on a connection of its own."""
    scheme = "https" if "ssl" in more else "http"
    async with (
        aiohttp.ClientSession(timeout=LIMIT) as session,
        session.request(method, f"{scheme}://127.0.0.1:{api.port}{path}", data=body, **more) as answer,
    ):
        return answer.status, await answer.text()
