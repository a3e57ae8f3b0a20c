"""The question of one agent to another, against the real server on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from rivha.agent.probe import PROBE_BUDGET_S
from rivha.api.app import Api
from rivha.api.ask import HttpAsk
from rivha.api.settings import RestSettings
from rivha.config import CtlSettings
from tests.api.certificates import certificate
from tests.api.serving import serving
from tests.api.views import a_desk, a_view
from tests.dcs.stubs import hanging_host

LONG_S = 20.0  # nobody waits for it in a good run
SHORT_S = 0.3  # for those who never answer


@contextlib.asynccontextmanager
async def asking(rest: RestSettings | None = None, ctl: CtlSettings | None = None) -> AsyncIterator[HttpAsk]:
    ask = HttpAsk(rest or RestSettings(), ctl or CtlSettings())
    try:
        yield ask
    finally:
        await ask.close()


def where(api: Api, scheme: str = "http", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{host}:{api.port}/patroni"


async def test_an_agent_that_lives_is_asked_again_on_the_same_connection() -> None:
    desk = a_desk(a_view("a"))
    async with serving(desk) as api, asking() as ask:
        for _ in range(5):
            assert await ask(where(api), LONG_S)
        assert api._connections is not None
        assert len(api._connections.connections) == 1


async def test_a_no_is_heard() -> None:
    desk = a_desk(a_view("a"))
    async with serving(desk) as api, asking() as ask:
        desk.out_of_routing = True
        assert not await ask(where(api), LONG_S)
        desk.out_of_routing = False
        assert await ask(where(api), LONG_S)


async def test_two_questions_at_once_use_two_connections_and_neither_is_used_again_after_its_budget() -> None:
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        async with asking() as ask, asyncio.timeout(LONG_S):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/patroni"
            both = [asyncio.create_task(ask(url, SHORT_S)) for _ in range(2)]
            for _ in both:
                opened.enter_context((await loop.sock_accept(listener))[0])
            assert [await task for task in both] == [False, False]
            assert not await ask(url, SHORT_S)
            opened.enter_context((await loop.sock_accept(listener))[0])


async def test_an_agent_that_takes_the_question_and_says_nothing_costs_the_budget_and_no_more() -> None:
    with hanging_host() as host:
        async with asking() as ask, asyncio.timeout(LONG_S):
            assert not await ask(f"http://{host}/patroni", SHORT_S)


async def test_an_agent_that_restarted_is_reached_though_the_kept_connection_is_dead() -> None:
    async with asking() as ask:
        async with serving(a_desk(a_view("a"))) as api:
            port = api.port
            assert await ask(where(api), LONG_S)
        assert not await ask(f"http://127.0.0.1:{port}/patroni", LONG_S)
        async with serving(a_desk(a_view("a")), listen_port=port) as again:
            assert await ask(where(again), LONG_S)


async def test_nobody_there_is_a_no() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with asking() as ask:
            assert not await ask(f"http://127.0.0.1:{unused.getsockname()[1]}/patroni", LONG_S)


@pytest.mark.parametrize(
    "address", ["", "nonsense", "http://", "http://[::1/patroni", "http://a:99999999/patroni", "ftp://127.0.0.1/patroni"]
)
async def test_an_address_that_is_none_is_a_no(address: str) -> None:
    async with asking() as ask:
        assert not await ask(address, LONG_S)


@pytest.mark.parametrize("garbage", [b"", b"\x00\xff\x00\xff\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\nshort", b"220 smtp\r\n"])
async def test_whatever_answers_that_is_no_agent_is_a_no(garbage: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(garbage)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, asking() as ask:
        assert not await ask(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/patroni", LONG_S)


async def test_a_redirect_is_not_followed() -> None:
    async with serving(a_desk(a_view("a"))) as api:

        async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {where(api)}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
        async with server, asking() as ask:
            assert not await ask(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/patroni", LONG_S)


# ---- TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder, "ca")
    certificate(folder, "other-ca")
    certificate(folder, "node", "ca")
    return folder


def node(files: Path, **more: str) -> dict[str, str]:
    return {"certfile": str(files / "node.crt"), "keyfile": str(files / "node.key"), **more}


@pytest.mark.parametrize("verify_client", ["none", "optional", "required"])
async def test_agents_with_one_restapi_section_reach_each_other(files: Path, verify_client: str) -> None:
    section = node(files, cafile=str(files / "ca.crt"), verify_client=verify_client)
    async with serving(a_desk(a_view("a")), **section) as api, asking(RestSettings(**section)) as ask:
        assert await ask(where(api, "https"), LONG_S)
        assert await ask(where(api, "https"), LONG_S)


async def test_without_an_authority_the_certificate_is_not_verified(files: Path) -> None:
    async with serving(a_desk(a_view("a")), **node(files)) as api, asking(RestSettings(**node(files))) as ask:
        assert await ask(where(api, "https"), LONG_S)


async def test_a_certificate_of_another_authority_is_a_no_and_is_told_once(files: Path) -> None:
    ctl = CtlSettings(cacert=str(files / "other-ca.crt"))
    async with serving(a_desk(a_view("a")), **node(files)) as api, asking(ctl=ctl) as ask:
        with structlog.testing.capture_logs() as logs:
            assert not await ask(where(api, "https"), LONG_S)
            assert not await ask(where(api, "https"), LONG_S)
        assert ["ctl.cacert" in entry["why"] for entry in logs] == [True]
        await ask.reload(RestSettings(), CtlSettings(cacert=str(files / "ca.crt")))
        assert await ask(where(api, "https"), LONG_S)
    async with serving(a_desk(a_view("a")), **node(files)) as api, asking(ctl=CtlSettings(True, ctl.cacert)) as ask:
        assert await ask(where(api, "https"), LONG_S), "ctl.insecure"


@pytest.mark.parametrize(
    ("settings", "text"),
    [(CtlSettings(cacert="/nowhere.crt"), "ctl.cacert: cannot use /nowhere.crt"), (CtlSettings(certfile="/nowhere.crt"), "ctl.certfile")],
)
async def test_files_that_cannot_be_used_are_named_once(files: Path, settings: CtlSettings, text: str) -> None:
    async with serving(a_desk(a_view("a")), **node(files)) as api, asking(ctl=settings) as ask:
        with structlog.testing.capture_logs() as logs:
            assert not await ask(where(api, "https"), PROBE_BUDGET_S)
            assert not await ask(where(api, "https"), PROBE_BUDGET_S)
        assert [text in entry["why"] for entry in logs] == [True]
