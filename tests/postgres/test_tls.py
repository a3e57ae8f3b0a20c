"""Nodes that speak TLS to one another, with a certificate that they verify."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from rivha.model import History, State
from rivha.postgres import tls
from rivha.postgres.settings import Credentials
from tests.postgres.nodes import Nodes, eventually, slots
from tests.postgres.versions import newest

__all__ = ["newest"]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, cert = tmp_path / "server.key", tmp_path / "server.crt"
    argv = ["openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost"]
    subprocess.run([*argv, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    key.chmod(0o600)
    return cert


def test_the_modes_are_libpqs():
    def kinds(**options: str) -> list[object]:
        return [way if isinstance(way, bool) else way.verify_mode for way in tls.attempts(options)]

    assert kinds() == [ssl.CERT_NONE, False]
    assert kinds(sslmode="disable") == [False]
    assert kinds(sslmode="allow") == [False, ssl.CERT_NONE]
    assert kinds(sslmode="require") == [ssl.CERT_NONE]
    assert kinds(sslmode="verify-ca") == [ssl.CERT_REQUIRED]
    with pytest.raises(OSError, match="No such file"):
        tls.attempts({"sslmode": "verify-full", "sslrootcert": "/no/such/file"})


@pytest.mark.real
async def test_nodes_that_accept_only_tls_clone_compare_and_rewind(newest: Nodes, certificate: Path, tmp_path: Path):
    options = {"sslmode": "verify-ca", "sslrootcert": str(certificate)}
    users = {
        "superuser": Credentials("postgres", "s", options),
        "replication": Credentials("replicator", "r", options),
        "rewind": Credentials("rewinder", "w", options),
        "parameters": {
            "unix_socket_directories": "",
            "ssl": True,
            "ssl_cert_file": str(certificate),
            "ssl_key_file": str(certificate.with_suffix(".key")),
        },
        "pg_hba": ["hostssl all all 127.0.0.1/32 scram-sha-256", "hostssl replication replicator 127.0.0.1/32 scram-sha-256"],
    }
    a, b = newest.node("a", **users), newest.node("b", **users)
    await a.server.bootstrap()
    assert (await a.status()).state is State.RUNNING
    await slots(a, "b")
    await b.server.clone(a.upstream)
    await b.server.start(primary=False, upstream=a.upstream)
    await eventually(b.streams)
    await b.server.freeze()
    await a.server.checkpoint()
    await b.server.promote()
    await slots(b, "a")
    await b.server.checkpoint()
    await a.server.stop(fast_s=0)
    history, text = await a.server.compare(b.upstream)
    assert history is History.DIVERGED, text
    await a.server.rewind(b.upstream)
    await a.server.start(primary=False, upstream=b.upstream)
    await eventually(a.streams)
