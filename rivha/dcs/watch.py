"""The stream of etcd's changes, read by ourselves: etcd3-py's reader fails with current aiohttp, and loses messages that arrive together.

A watch is a wake-up, never the truth: so it starts at "now", keeps no revision, and whenever in doubt begins anew and says "something
may have changed". It must never end or raise by itself. Called by `etcd`.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import aiohttp
import structlog

from rivha.dcs.endpoints import Endpoints
from rivha.dcs.node import PERMISSION_DENIED, Answer, Failure, Node, failure_of, read_answer
from rivha.errors import DcsUnavailable

OPEN_S = 3.0  # until etcd has said that the watch exists
IDLE_S = 30.0  # a stream that showed nothing for so long is replaced: it may be dead, and etcd's own sign of life comes every 10 min
LOOK_S = 0.5  # how often a silent stream asks whether its endpoint is in trouble
PAUSE_S = 0.2  # before the first new try, doubled up to PAUSE_MAX_S
PAUSE_MAX_S = 5.0
LONGEST_LINE = 64 << 20  # bytes; etcd's largest transaction is far below

log = structlog.get_logger()


class Lines:
    """Bytes in any pieces -> whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that are complete now. Raises Failure when one grows beyond all measure."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise Failure("sends a line without an end")
        return (line for line in whole if line.strip())


class Watch:
    """One watch on a range, on whichever endpoint serves it."""

    def __init__(self, endpoints: Endpoints, range_: Answer, prefix: str, clock: Callable[[], float]) -> None:
        self._endpoints = endpoints
        self._request: Answer = {"create_request": range_ | {"progress_notify": True}}
        self._prefix = prefix
        self._clock = clock
        self._complaint = ""

    async def run(self, on_change: Callable[[str], None]) -> None:
        """Until cancelled. `on_change("")` after each new stream: what came before it was not seen."""
        pause_s = PAUSE_S
        while True:
            began = self._clock()
            try:
                node = self._endpoints.best()[0]
                await self._follow(node, on_change)
                continue  # idle or moved: no failure, no pause
            except Failure as failure:
                if failure.final or failure.token_trouble:
                    self._endpoints.login.forget()  # etcd 3.5 says "permission denied" for a token that ran out
                    self._complain(failure.text)
                else:
                    self._endpoints.failed(node, f"watch: {failure.text}")
            except DcsUnavailable as error:
                self._complain(str(error))
            if self._clock() - began > PAUSE_MAX_S:
                pause_s = PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            log.warning("cannot watch etcd", why=why)
        self._complaint = why

    async def _follow(self, node: Node, on_change: Callable[[str], None]) -> None:
        """One stream, as long as it shows signs of life and nobody complains about its endpoint. Raises Failure when it breaks."""
        setbacks = node.setbacks
        async with self._opened(node) as response:
            lines = Lines()
            heard_at = self._clock()
            while self._clock() < heard_at + IDLE_S and node.setbacks == setbacks:
                try:
                    async with asyncio.timeout(LOOK_S):
                        chunk = await response.content.readany()
                except TimeoutError:
                    continue
                if not chunk:
                    raise Failure("etcd ended the stream")
                heard_at = self._clock()
                for line in lines.feed(chunk):
                    for key in self._changes(read_answer(response.status, line)):
                        on_change(key)

    def _changes(self, answer: Answer) -> Iterator[str]:
        """The keys that one message is about; "" when the stream begins. Raises Failure when etcd cancels the watch."""
        if answer.get("canceled"):  # the stream itself would stay open, and silent (HAZARDS A 13)
            why = str(answer.get("cancel_reason") or f"compacted at {answer.get('compact_revision')}")
            raise Failure(f"canceled: {why}", code=PERMISSION_DENIED if "permission denied" in why or "auth" in why else None)
        if answer.get("created"):
            self._complaint = ""
            yield ""
        for event in answer.get("events", ()):
            yield base64.b64decode(event["kv"]["key"]).decode(errors="replace")[len(self._prefix) :]

    @asynccontextmanager
    async def _opened(self, node: Node) -> AsyncIterator[aiohttp.ClientResponse]:
        """A stream whose errors, while it is read too, are Failures."""
        try:
            async with asyncio.timeout(OPEN_S):
                token = await self._endpoints.login.token(node, OPEN_S)
                response = await node.open("/watch", self._request, token, OPEN_S)
        except TimeoutError:
            raise Failure(f"no answer within {OPEN_S} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise failure_of(error) from error
        try:
            if response.status >= 400:
                async with asyncio.timeout(OPEN_S):
                    read_answer(response.status, await response.read())
            _keep_alive(response)
            yield response
        except (aiohttp.ClientError, OSError) as error:
            raise failure_of(error) from error
        finally:
            if (transport := _transport(response)) is not None:
                transport.abort()  # not TLS's polite goodbye, which a dead peer never answers
            response.close()


def _transport(response: aiohttp.ClientResponse) -> asyncio.Transport | None:
    return response.connection.transport if response.connection else None


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    """Lets the kernel find out within some 10 s that the other host is gone, although we have nothing to say."""
    transport = _transport(response)
    sock = transport.get_extra_info("socket") if transport else None
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 4), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3)):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
