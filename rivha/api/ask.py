"""One agent's question to another: `GET /probe` over HTTP, on a connection that is kept. Made by `agent.main`, called by `agent.probe`.

It must never raise for what is out there, and never use a connection again on which something went wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import aiohttp
import structlog
from yarl import URL

from rivha.api.health import PROBE
from rivha.api.settings import RestSettings
from rivha.api.tls import client_context
from rivha.config import CtlSettings
from rivha.errors import CannotRun

log = structlog.get_logger(__name__)

# An idle connection is kept for the next probe only: one that lay about for longer may lead nowhere by now (a peer that lost its power).
KEPT_S = 1.5
CLOSE_S = 1.0


class HttpAsk:
    """`await ask(api_url, budget_s)`: whether that agent answers 200. TLS as rivhactl's towards this cluster."""

    def __init__(self, rest: RestSettings, ctl: CtlSettings) -> None:
        self._rest, self._ctl = rest, ctl
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._where = ("", URL())  # an api_url, and the address to ask for it
        self._trouble = ""  # with certificates, as last logged

    async def __call__(self, api_url: str, budget_s: float) -> bool:
        try:
            async with asyncio.timeout(budget_s):
                return await self._ask(self._address(api_url))
        except aiohttp.ClientSSLError as error:
            self._complain(f"TLS with {error.host} fails: {error}; see ctl.cacert, ctl.certfile and ctl.insecure")
        except CannotRun as error:
            self._complain(str(error))
        except (aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError; ValueError: an address that is none
            pass
        return False

    async def _ask(self, url: URL) -> bool:
        if url.scheme == "https" and self._tls is None:
            self._tls = await asyncio.to_thread(client_context, self._rest, self._ctl)
        if self._session is None:
            self._session = _session()
        async with self._session.get(url, ssl=self._tls or True, allow_redirects=False) as answer:
            self._trouble = ""
            return answer.status == 200

    def _address(self, api_url: str) -> URL:
        """Raises ValueError."""
        if self._where[0] != api_url:
            self._where = (api_url, URL(api_url).origin().with_path(PROBE))
        return self._where[1]

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.error("the leader's agent cannot be asked whether it lives; only etcd tells", why=trouble)

    async def reload(self, rest: RestSettings, ctl: CtlSettings) -> None:
        """Other settings, or the same files with new certificates in them."""
        self._rest, self._ctl, self._tls = rest, ctl, None
        await self.close()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await session.close()


def _session() -> aiohttp.ClientSession:
    """Without a deadline: the caller has one. Without cookies, which would cost more than the question."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_S)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None))
