"""The REST server: listens, finds out what is asked, and who may ask. The answers come from `health`, `pages` and `control`.

It must never wait for etcd or Postgres to answer a GET, and never let one client keep another waiting. Made and stopped by `agent.main`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping

import structlog
from aiohttp import web

from rivha.agent.desk import Desk
from rivha.api import guard, health, tls
from rivha.api.connection import TLS_HANDSHAKE_S, Connection, Connections
from rivha.api.control import Action, Control
from rivha.api.pages import Pages
from rivha.api.reply import JSON, Reply, as_text
from rivha.api.settings import RestSettings
from rivha.errors import CannotRun, RivhaError
from rivha.metrics import Metrics

log = structlog.get_logger(__name__)

BACKLOG = 128
BODY_S = 5.0  # for a client to send the body that it announced
STOP_S = 2.0  # for answers under way when the agent ends

SAFE = ("GET", "HEAD", "OPTIONS")


class Api:
    """The agent's HTTP side. `scope` is the cluster's name, for people and for Patroni's tools."""

    def __init__(self, settings: RestSettings, desk: Desk, metrics: Metrics, scope: str) -> None:
        self._settings = settings
        self._desk = desk
        self._bodies = health.Bodies(scope)
        self._control = Control(desk)
        self._pages = Pages(desk, scope, metrics).routes()
        self._actions = self._control.routes()
        self._headers = _extra_headers(settings)
        self._connections: Connections | None = None
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    @property
    def port(self) -> int:
        """Where it listens; of use when the settings say 0."""
        return int(self._sockets[0].getsockname()[1])

    @property
    def serving(self) -> bool:
        return bool(self._sockets)

    @property
    def scheduled_restart(self) -> Mapping[str, object] | None:
        """For the member key: what POST /restart scheduled."""
        return self._control.schedule.published

    async def start(self) -> None:
        """Raises CannotRun (exit code 6) when the address cannot be had, or a TLS file cannot be used."""
        context = await asyncio.to_thread(tls.server_context, self._settings)
        self._connections = Connections(self._handle)
        self._sockets = await _listen(self._settings)
        self._servers = await self._serve(context)
        self._connections.sweep()

    async def stop(self) -> None:
        """Answers what is under way, for at most STOP_S, and closes everything."""
        for server in self._servers:
            server.close()
        for listener in self._sockets:
            listener.close()
        self._control.schedule.clear()
        if self._connections is not None:
            self._connections.stop_sweeping()
            self._connections.pre_shutdown()  # who only waits goes at once
            await self._connections.shutdown(STOP_S)
        self._servers, self._sockets, self._connections = [], [], None

    async def reload(self, settings: RestSettings) -> None:
        """Takes over new settings, certificates included; open connections stay. A new address needs a restart of the agent.

        Raises CannotRun, and keeps serving as before, when a file cannot be used.
        """
        context = await asyncio.to_thread(tls.server_context, settings)
        if (settings.listen_host, settings.listen_port) != (self._settings.listen_host, self._settings.listen_port):
            log.warning("restapi.listen has changed; this takes effect when the agent is restarted", configured=settings.listen_port)
        before, self._servers = self._servers, await self._serve(context)
        for server in before:
            server.close()
        self._settings, self._headers = settings, _extra_headers(settings)

    async def reload_certificates(self) -> None:
        await self.reload(self._settings)

    async def _serve(self, context: ssl.SSLContext | None) -> list[asyncio.Server]:
        """Accepts on copies of the listening sockets, so that a change of certificates never stops listening."""
        assert self._connections is not None
        loop, limit_s = asyncio.get_running_loop(), TLS_HANDSHAKE_S if context else None
        return [
            await loop.create_server(
                self._connections,
                sock=listener.dup(),
                backlog=BACKLOG,
                ssl=context,
                ssl_handshake_timeout=limit_s,
                ssl_shutdown_timeout=limit_s,
            )
            for listener in self._sockets
        ]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every request comes here. A health check without a query, the most frequent by far, is found by its raw path."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.waiting_since = None
        try:
            reply = self._health(request) if request.method in SAFE else None
            if reply is None:
                reply = await self._dispatch(request)
        finally:
            connection.waiting_since = asyncio.get_running_loop().time()
        if request.method in ("HEAD", "OPTIONS"):
            return web.Response(status=reply.status, headers=self._headers)
        headers = {**self._headers, **reply.headers}
        return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type, headers=headers)

    def _health(self, request: web.BaseRequest) -> Reply | None:
        path, query = request.raw_path, _NO_QUERY
        if path not in health.CHECKS:
            path, query = _path(request), request.rel_url.query
        desk = self._desk
        found = health.answer(path, query, desk.latest, desk.clock(), desk.out_of_routing, self._bodies)
        return None if found is None else Reply(found[0], found[1], JSON)

    async def _dispatch(self, request: web.BaseRequest) -> Reply:
        path = _path(request)
        try:
            if request.method in SAFE:
                page = self._pages.get(path)
                return page() if page is not None else self._not_found(path)
            action = self._actions.get((request.method, path))
            if action is None:
                return self._not_found(path)
            refusal = await self._refusal(request)
            return refusal if refusal is not None else await self._act(action, request)
        except RivhaError as error:
            return as_text(503, str(error))

    def _not_found(self, path: str) -> Reply:
        methods = [method for method, known in self._actions if known == path]
        if path in self._pages or path in health.CHECKS:
            methods = [*SAFE, *methods]
        if methods:
            return Reply(405, f"{path} takes {', '.join(methods)}".encode(), headers={"Allow": ", ".join(methods)})
        return as_text(404, f"there is no {path} here; /patroni tells of this node, /cluster of all")

    async def _refusal(self, request: web.BaseRequest) -> Reply | None:
        transport, view = request.transport, self._desk.latest
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        peer = transport.get_extra_info("peername") if transport is not None else None
        cluster = (view.cluster or view.last_cluster) if view is not None else None
        return await guard.refuse(
            self._settings, cluster, str(peer[0]) if peer else None, request.headers.get("Authorization"), bool(certificate)
        )

    async def _act(self, action: Action, request: web.BaseRequest) -> Reply:
        try:
            async with asyncio.timeout(BODY_S):
                body = await request.read()
        except TimeoutError:
            return as_text(408, f"the body did not arrive within {BODY_S:g} s")
        return await action(body)


_NO_QUERY: Mapping[str, str] = {}


def _path(request: web.BaseRequest) -> str:
    return request.path.rstrip("/") or "/"


def _extra_headers(settings: RestSettings) -> dict[str, str]:
    return {**settings.http_extra_headers, **(settings.https_extra_headers if settings.certfile else {})}


async def _listen(settings: RestSettings) -> list[socket.socket]:
    """Listening sockets for every address of the host. Raises CannotRun."""
    host = settings.listen_host if settings.listen_host not in ("", "*") else None
    where = f"{settings.listen_host or '*'}:{settings.listen_port}"
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(asyncio.Protocol, host, settings.listen_port, backlog=BACKLOG, start_serving=False)
    except OSError as error:
        hint = "stop what listens there (ss -ltnp shows it) or change restapi.listen"
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)  # asyncio's own text repeats the address
        raise CannotRun(f"restapi.listen: cannot listen on {where}: {why}; {hint}", tls.EXIT_CODE) from error
    listeners = [listener.dup() for listener in server.sockets]
    server.close()
    return listeners
