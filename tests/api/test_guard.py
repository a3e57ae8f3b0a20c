"""Who may change something: addresses, passwords, certificates; and TLS itself."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from rivha.api import app
from rivha.api.app import Api
from rivha.api.guard import refuse
from rivha.api.settings import RestSettings
from rivha.errors import CannotRun
from rivha.metrics import Metrics
from tests.api.certificates import certificate
from tests.api.serving import ask, serving
from tests.api.views import a_cluster, a_desk, a_view

CLUSTER = a_cluster()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        ("", 401),
        (basic("admin", "sécret:with colon"), None),
        (basic("admin", "sécret"), 401),
        (basic("root", "sécret:with colon"), 401),
        ("Bearer " + basic("admin", "sécret:with colon")[6:], 401),
        ("Basic not-base64-é", 401),
    ],
)
async def test_unsafe_methods_ask_for_the_password(given: str | None, status: int | None) -> None:
    settings = RestSettings(username="admin", password="sécret:with colon")
    refusal = await refuse(settings, CLUSTER, "10.0.0.1", given, has_certificate=False)
    assert (refusal.status if refusal else None) == status
    if refusal:
        assert refusal.headers["WWW-Authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize(
    ("allowlist", "members", "peer", "allowed"),
    [
        ((), False, "10.0.0.1", True),
        (("10.0.0.1",), False, "10.0.0.1", True),
        (("10.0.0.1",), False, "10.0.0.2", False),
        (("10.0.0.0/24",), False, "10.0.0.77", True),
        (("10.0.0.5/24",), False, "10.0.0.77", True),
        (("10.0.0.0/24",), False, "::ffff:10.0.0.77", True),
        (("fd00::/8",), False, "fd00::1%eth0", True),
        (("localhost",), False, "127.0.0.1", True),
        (("no.such.host.invalid", "10.0.0.1"), False, "10.0.0.1", True),
        (("no.such.host.invalid",), False, "10.0.0.1", False),
        ((), True, "127.0.0.98", True),
        ((), True, "127.0.0.5", False),
        (("10.0.0.1",), True, "127.0.0.98", True),
        (("10.0.0.1",), False, None, False),
    ],
)
async def test_the_allowlist_takes_addresses_networks_names_and_members(
    allowlist: tuple[str, ...], members: bool, peer: str | None, allowed: bool
) -> None:
    settings = RestSettings(allowlist=allowlist, allowlist_include_members=members)
    refusal = await refuse(settings, CLUSTER, peer, None, has_certificate=False)
    assert (refusal.status if refusal else None) == (None if allowed else 403)


async def test_a_cluster_that_is_not_known_has_no_members_to_allow() -> None:
    refusal = await refuse(RestSettings(allowlist_include_members=True), None, "127.0.0.98", None, has_certificate=False)
    assert refusal is not None
    assert refusal.status == 403


async def test_reads_and_checks_never_need_a_password() -> None:
    desk = a_desk(a_view())
    async with serving(desk, username="admin", password="secret", allowlist=("10.0.0.1", "127.0.0.1")) as api:
        for path in ("/primary", "/cluster", "/config", "/metrics"):
            assert (await ask(api, "GET", path))[0] == 200
        assert (await ask(api, "POST", "/reload"))[0] == 401
        assert (await ask(api, "POST", "/reload", headers={"Authorization": basic("admin", "secret")}))[0] == 202


async def test_a_stranger_is_refused_before_the_body_is_looked_at() -> None:
    async with serving(a_desk(a_view()), allowlist=("10.0.0.1",)) as api:
        status, text = await ask(api, "PATCH", "/config", body="no json")
    assert status == 403
    assert "restapi.allowlist" in text


# ---- TLS -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder, "ca")
    certificate(folder, "other-ca")
    certificate(folder, "server", "ca")
    certificate(folder, "client", "ca")
    certificate(folder, "server2", "other-ca")
    return folder


def client_tls(certificates: Path, *, own: bool, ca: str = "ca") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates / f"{ca}.crt")
    if own:
        context.load_cert_chain(certificates / "client.crt", certificates / "client.key")
    return context


@pytest.fixture(params=["none", "optional", "required"])
async def secure(request: pytest.FixtureRequest, certificates: Path) -> AsyncIterator[Api]:
    files = {name: str(certificates / f"server.{kind}") for name, kind in (("certfile", "crt"), ("keyfile", "key"))}
    async with serving(a_desk(a_view()), **files, cafile=str(certificates / "ca.crt"), verify_client=request.param) as api:
        yield api


async def test_verify_client_asks_the_right_clients_for_a_certificate(secure: Api, certificates: Path) -> None:
    mode = secure._settings.verify_client
    with_own, without = client_tls(certificates, own=True), client_tls(certificates, own=False)

    assert (await ask(secure, "GET", "/primary", ssl=with_own))[0] == 200
    assert (await ask(secure, "POST", "/reload", ssl=with_own))[0] == 202
    if mode == "required":
        with pytest.raises(aiohttp.ClientError):
            await ask(secure, "GET", "/primary", ssl=without)
        return
    assert (await ask(secure, "GET", "/primary", ssl=without))[0] == 200
    assert (await ask(secure, "POST", "/reload", ssl=without))[0] == (403 if mode == "optional" else 202)


async def test_new_certificates_are_taken_over_without_a_restart(certificates: Path, tmp_path: Path) -> None:
    cert, key = tmp_path / "now.crt", tmp_path / "now.key"

    def install(name: str) -> None:
        cert.write_bytes((certificates / f"{name}.crt").read_bytes())
        key.write_bytes((certificates / f"{name}.key").read_bytes())

    install("server")
    async with serving(a_desk(a_view()), certfile=str(cert), keyfile=str(key)) as api:
        assert (await ask(api, "GET", "/primary", ssl=client_tls(certificates, own=False)))[0] == 200
        install("server2")
        await api.reload_certificates()
        assert (await ask(api, "GET", "/primary", ssl=client_tls(certificates, own=False, ca="other-ca")))[0] == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(api, "GET", "/primary", ssl=client_tls(certificates, own=False))

        cert.write_text("no certificate")
        with pytest.raises(CannotRun, match=r"restapi.certfile: cannot use .*now.crt"):
            await api.reload_certificates()
        assert (await ask(api, "GET", "/primary", ssl=client_tls(certificates, own=False, ca="other-ca")))[0] == 200


async def test_settings_can_change_while_it_serves() -> None:
    async with serving(a_desk(a_view())) as api:
        assert (await ask(api, "POST", "/reload"))[0] == 202
        await api.reload(RestSettings(listen_port=0, username="admin", password="secret"))
        assert (await ask(api, "POST", "/reload"))[0] == 401


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"certfile": "/nowhere.crt"}, "restapi.certfile: cannot use /nowhere.crt"),
        ({"cafile": "/nowhere.crt"}, "restapi.cafile: cannot use /nowhere.crt"),
        ({"ciphers": "NONSENSE"}, "restapi.ciphers: OpenSSL knows no cipher in 'NONSENSE'"),
    ],
)
async def test_tls_files_that_cannot_be_used_are_named(certificates: Path, wrong: dict[str, str], text: str) -> None:
    files = {"certfile": str(certificates / "server.crt"), "keyfile": str(certificates / "server.key"), **wrong}
    api = Api(RestSettings(listen_port=0, **files), a_desk(a_view()), Metrics("demo", "a"), "demo")  # type: ignore[arg-type]
    with pytest.raises(CannotRun) as caught:
        await api.start()
    await api.stop()
    assert caught.value.exit_code == 6
    assert text in str(caught.value)


async def test_a_client_that_never_finishes_its_handshake_keeps_nobody_waiting(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "TLS_HANDSHAKE_S", 0.3)
    files = {"certfile": str(certificates / "server.crt"), "keyfile": str(certificates / "server.key")}
    async with serving(a_desk(a_view()), **files) as api:
        silent = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(20)]
        assert (await ask(api, "GET", "/primary", ssl=client_tls(certificates, own=False)))[0] == 200
        for reader, writer in silent:
            async with asyncio.timeout(15):
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
