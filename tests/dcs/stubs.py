"""Neighbours that misbehave as no etcd does on command: one that accepts and never answers, one that says what it is told to."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web

from tests.lab.ports import LOOPBACK, free_ports


def dead_host() -> str:
    """Nobody listens there."""
    return f"{LOOPBACK}:{free_ports(1)[0]}"


@contextmanager
def hanging_host() -> Iterator[str]:
    """The kernel accepts, nobody ever reads or answers."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield f"{LOOPBACK}:{listener.getsockname()[1]}"


class Parrot:
    """An HTTP server in etcd's place that gives one answer to everything, and counts."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: Any = {}
        self.asked = 0
        self.logins = 0
        self.host = ""

    def says_nothing_but_header(self, *, term: int, cluster: int = 1, revision: int = 1) -> None:
        self.answer = {"header": {"cluster_id": str(cluster), "raft_term": str(term), "revision": str(revision)}}

    def fails(self, text: str, code: int, status: int = 503) -> None:
        self.status, self.answer = status, {"error": text, "code": code}

    async def reply(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.logins += request.path.endswith("/auth/authenticate")
        text = self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
        return web.Response(status=self.status, text=text)


@asynccontextmanager
async def parrot() -> AsyncIterator[Parrot]:
    bird = Parrot()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", bird.reply)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0)
    await site.start()
    bird.host = "{}:{}".format(*runner.addresses[0])
    try:
        yield bird
    finally:
        await runner.cleanup()
