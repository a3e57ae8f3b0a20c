"""TLS with a verified certificate, and users whose token runs out."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rivha.dcs.base import Put, Txn, Unchanged
from rivha.errors import DcsUnavailable
from rivha.model import Outcome
from tests.dcs.conftest import Connect
from tests.dcs.stubs import dead_host
from tests.etcd_process import EtcdServer, etcd_server, eventually

pytestmark = pytest.mark.real

BUDGET_S = 10.0
LEADER = Txn((Unchanged("leader", 0),), (Put("leader", "a"),))


# ---- TLS


@dataclass(frozen=True, slots=True)
class Authority:
    folder: Path

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60)

    def issue(self, name: str, alt: str = "IP:127.0.0.1") -> None:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self.openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={alt}\nextendedKeyUsage=serverAuth,clientAuth\n")
        signing = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        self.openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-extfile", f"{name}.ext", "-out", f"{name}.crt")


@pytest.fixture(scope="module")
def authorities() -> Iterator[tuple[Authority, Authority]]:
    """The one that signed everything, and a stranger."""
    root = Path(tempfile.mkdtemp(prefix="rivha-tls-"))
    both = []
    for name in ("ours", "stranger"):
        authority = Authority(root / name)
        authority.folder.mkdir()
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        authority.openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", f"/CN={name}")
        authority.issue("client")
        both.append(authority)
    both[0].issue("server")
    both[0].issue("elsewhere", alt="IP:192.0.2.1")
    yield both[0], both[1]
    shutil.rmtree(root)


def server_of(authority: Authority, certificate: str, *arguments: str) -> Iterator[EtcdServer]:
    context = ssl.create_default_context(cafile=authority.path("ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(authority.path("client.crt"), authority.path("client.key"))
    files = ("--cert-file", authority.path(f"{certificate}.crt"), "--key-file", authority.path(f"{certificate}.key"))
    with etcd_server(arguments=(*files, *arguments), tls=context) as server:
        yield server


@pytest.fixture(scope="module")
def tls_etcd(authorities: tuple[Authority, Authority]) -> Iterator[EtcdServer]:
    ours, _ = authorities
    yield from server_of(ours, "server", "--client-cert-auth", "--trusted-ca-file", ours.path("ca.crt"))


@pytest.fixture
def misnamed_etcd(authorities: tuple[Authority, Authority]) -> Iterator[EtcdServer]:
    yield from server_of(authorities[0], "elsewhere")


async def test_a_verified_server_and_a_client_certificate(
    tls_etcd: EtcdServer, authorities: tuple[Authority, Authority], connect: Connect
) -> None:
    ours, _ = authorities
    files = {"cacert": ours.path("ca.crt"), "cert": ours.path("client.crt"), "key": ours.path("client.key")}
    dcs = connect(dead_host(), tls_etcd.host, protocol="https", **files)
    seen: list[str] = []
    watching = asyncio.create_task(dcs.watch(seen.append))

    await eventually(lambda: seen == [""], "the watch begins")
    assert await dcs.commit(LEADER, BUDGET_S) is Outcome.DONE
    assert [item.key for item in (await dcs.read(BUDGET_S)).items] == ["leader"]
    await eventually(lambda: "leader" in seen, "the watch tells of it")

    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.parametrize("authority", ["stranger", "the system's"])
async def test_a_server_that_the_authority_does_not_vouch_for_is_refused(
    tls_etcd: EtcdServer, authorities: tuple[Authority, Authority], connect: Connect, authority: str
) -> None:
    ours, stranger = authorities
    files = {"cert": ours.path("client.crt"), "key": ours.path("client.key")}
    if authority == "stranger":
        files["cacert"] = stranger.path("ca.crt")
    dcs = connect(tls_etcd.host, protocol="https", **files)

    with pytest.raises(DcsUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await dcs.read(2.0)
    assert await dcs.commit(LEADER, 0.5) is Outcome.UNKNOWN


async def test_a_certificate_for_another_host_is_refused(
    misnamed_etcd: EtcdServer, authorities: tuple[Authority, Authority], connect: Connect
) -> None:
    dcs = connect(misnamed_etcd.host, protocol="https", cacert=authorities[0].path("ca.crt"))

    with pytest.raises(DcsUnavailable, match=r"certificate is not valid for '127.0.0.1'"):
        await dcs.read(2.0)


@pytest.mark.parametrize("certificate", ["none", "stranger"])
async def test_a_client_that_etcd_does_not_know_is_refused(
    tls_etcd: EtcdServer, authorities: tuple[Authority, Authority], connect: Connect, certificate: str
) -> None:
    ours, stranger = authorities
    files = {"cacert": ours.path("ca.crt")}
    if certificate == "stranger":
        files |= {"cert": stranger.path("client.crt"), "key": stranger.path("client.key")}

    with pytest.raises(DcsUnavailable):
        await connect(tls_etcd.host, protocol="https", **files).read(0.5)


async def test_certificates_that_cannot_be_read_are_named(connect: Connect) -> None:
    with pytest.raises(DcsUnavailable, match=r"cacert=/nowhere/ca\.crt.*No such file.*etcd3"):
        await connect(dead_host(), protocol="https", cacert="/nowhere/ca.crt").read(BUDGET_S)


# ---- users


@pytest.fixture(params=["", "3.5"], ids=["etcd-of-the-machine", "etcd-3.5"])
def locked_etcd(request: pytest.FixtureRequest, prefix: str) -> Iterator[EtcdServer]:
    """User "rivha", password "secret". Tokens are forgotten a second after their last use."""
    with etcd_server(request.param, ("--auth-token-ttl", "1")) as server:
        server.enable_authentication("rivha", "secret", prefix + "/")
        yield server


async def test_a_token_that_ran_out_is_replaced_within_the_call(locked_etcd: EtcdServer, connect: Connect) -> None:
    """Tokens live for a second after their last use here: wait longer and longer until one was not."""
    dcs = connect(locked_etcd.host, username="rivha", password="secret")
    await dcs.read(BUDGET_S)
    logins, pause_s = locked_etcd.requests("Authenticate"), 1.0
    while locked_etcd.requests("Authenticate") == logins:
        assert pause_s < 60, "the token never ran out"
        await asyncio.sleep(pause_s)
        pause_s *= 1.5
        await dcs.read(BUDGET_S)

    assert await dcs.commit(LEADER, BUDGET_S) is Outcome.DONE


async def test_an_etcd_that_was_restarted_gets_a_token_that_it_knows(locked_etcd: EtcdServer, connect: Connect) -> None:
    dcs = connect(locked_etcd.host, username="rivha", password="secret")
    lease_id = await dcs.grant(60, BUDGET_S)
    locked_etcd.stop()
    locked_etcd.start()

    assert await dcs.renew(lease_id, BUDGET_S) == 60.0
    assert (await dcs.read(BUDGET_S)).items == ()
    assert await dcs.commit(LEADER, BUDGET_S) is Outcome.DONE


async def test_a_write_under_a_forgotten_token_is_done_not_unknown(locked_etcd: EtcdServer, connect: Connect, prefix: str) -> None:
    """etcd refuses it before anything happens, so this one may be sent again."""
    dcs = connect(locked_etcd.host, username="rivha", password="secret")
    await dcs.read(BUDGET_S)
    locked_etcd.log_in()
    locked_etcd.post("/v3/auth/user/add", {"name": "somebody", "password": "else"})  # "revision of auth store is old"

    assert await dcs.commit(LEADER, BUDGET_S) is Outcome.DONE
    locked_etcd.log_in()
    assert locked_etcd.keys()[f"{prefix}/leader"]["version"] == "1"


async def test_a_watch_comes_back_after_a_restart_and_with_a_token_that_ran_out(locked_etcd: EtcdServer, connect: Connect) -> None:
    dcs = connect(locked_etcd.host, username="rivha", password="secret")
    seen: list[str] = []
    watching = asyncio.create_task(dcs.watch(seen.append))
    await eventually(lambda: seen == [""], "the watch begins")
    locked_etcd.stop()
    locked_etcd.start()

    await eventually(lambda: seen.count("") >= 2, "the watch begins again")
    assert await dcs.commit(LEADER, BUDGET_S) is Outcome.DONE
    await eventually(lambda: "leader" in seen, "it tells of changes")

    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_wrong_password_is_said_clearly_and_not_tried_again_at_once(locked_etcd: EtcdServer, connect: Connect) -> None:
    now = [1000.0]
    dcs = connect(locked_etcd.host, clock=lambda: now[0], username="rivha", password="guess")
    tries = locked_etcd.requests("Authenticate")

    for _ in range(3):
        with pytest.raises(DcsUnavailable, match=rf"etcd at http://{locked_etcd.host} refuses user 'rivha'.*password"):
            await dcs.read(BUDGET_S)
    assert await dcs.commit(LEADER, BUDGET_S) is Outcome.UNKNOWN
    assert locked_etcd.requests("Authenticate") == tries + 1

    now[0] += 60.0
    with pytest.raises(DcsUnavailable):
        await dcs.read(BUDGET_S)
    assert locked_etcd.requests("Authenticate") == tries + 2


async def test_no_user_where_one_is_wanted(locked_etcd: EtcdServer, connect: Connect) -> None:
    with pytest.raises(DcsUnavailable, match=r"set etcd3\.username and etcd3\.password"):
        await connect(locked_etcd.host).read(BUDGET_S)


async def test_a_user_without_the_right_is_told_so_and_a_write_is_refused(locked_etcd: EtcdServer, connect: Connect) -> None:
    locked_etcd.log_in()
    locked_etcd.post("/v3/auth/user/revoke", {"name": "rivha", "role": "rivha"})
    dcs = connect(locked_etcd.host, username="rivha", password="secret")

    with pytest.raises(DcsUnavailable, match=rf"etcd at http://{locked_etcd.host} says: .*permission denied"):
        await dcs.read(BUDGET_S)
    assert await dcs.commit(LEADER, 0.5) is not Outcome.DONE


async def test_a_user_where_none_is_wanted_does_no_harm(shared_etcd: EtcdServer, connect: Connect) -> None:
    dcs = connect(shared_etcd.host, username="rivha", password="secret")

    assert (await dcs.read(BUDGET_S)).items == ()
    assert await dcs.commit(LEADER, BUDGET_S) is Outcome.DONE


async def test_authentication_that_is_switched_on_later(own_etcd: EtcdServer, connect: Connect, prefix: str) -> None:
    dcs = connect(own_etcd.host, username="rivha", password="secret")
    await dcs.read(BUDGET_S)
    own_etcd.enable_authentication("rivha", "secret", prefix + "/")

    assert (await dcs.read(BUDGET_S)).items == ()
