"""What a client's connection may cost: a deadline for every phase, and a bound on how many there are. Used by `app` alone.

HAZARDS 96: silent connections must not wedge anything. A connection that waits for its client longer than PATIENCE_S (for a request line,
for the rest of the headers, for the client to take the answer, for the next request) is closed. Work of ours on a request does not count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

PATIENCE_S = 10.0  # a load balancer asks at least every few seconds on a connection that it keeps
SWEEP_EVERY_S = 1.0
CONNECTIONS_MAX = 300  # of the usual 1,024 file descriptors; the rest is for Postgres and etcd
BODY_MAX = 1 << 20  # bytes; the largest dynamic configuration is far below
TLS_HANDSHAKE_S = 5.0

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


_NO_LOG = logging.Logger("rivha.api.access", logging.CRITICAL)  # of no hierarchy: nobody wants a line per health check


class Connection(RequestHandler):
    """One client's connection, knowing since when it waits for the client."""

    __slots__ = ("waiting_since",)

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(manager, loop=loop, access_log=_NO_LOG, keepalive_timeout=PATIENCE_S, lingering_time=2.0)
        self.waiting_since: float | None = loop.time()


class Connections(web.Server):
    """Makes a Connection for each client and closes the ones that only wait."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(handler, request_factory=self._request)
        self._sweeping: asyncio.TimerHandle | None = None

    def __call__(self) -> Connection:
        if len(self._connections) >= CONNECTIONS_MAX:
            self._close_the_longest_waiting()
        return Connection(self, self._loop)

    def sweep(self) -> None:
        """Closes who has been waited for too long; calls itself again."""
        limit = self._loop.time() - PATIENCE_S
        for connection in self.connections:
            if isinstance(connection, Connection) and connection.waiting_since is not None and connection.waiting_since < limit:
                _abort(connection)
        self._sweeping = self._loop.call_later(SWEEP_EVERY_S, self.sweep)

    def stop_sweeping(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _close_the_longest_waiting(self) -> None:
        """Room for a newcomer: a check sends its request at once, so it is never the one that waits longest."""
        waiting = [c for c in self.connections if isinstance(c, Connection) and c.waiting_since is not None]
        if waiting:
            _abort(min(waiting, key=lambda c: c.waiting_since or 0.0))

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=BODY_MAX)


def _abort(connection: Connection) -> None:
    """Not close(): that would wait for a client that does not read."""
    transport = connection.transport
    if isinstance(transport, asyncio.Transport):
        transport.abort()
