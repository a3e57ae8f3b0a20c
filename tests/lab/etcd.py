"""A real etcd on loopback, of one server: started, stopped, frozen, killed, and looked into past the code under test.

It is asked by etcd's plain HTTP gateway, so that a defect of our own client cannot hide itself.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.lab import binaries
from tests.lab.ports import LOOPBACK, free_ports
from tests.lab.processes import Process, give_away

ASK_S = 5.0


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch: `value` None means that the key is gone."""

    at: float  # time.monotonic() at which it arrived here
    key: str
    value: str | None


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()


def _range_end(prefix: str) -> str:
    """etcd's way to say "everything that begins with prefix": the prefix with its last byte raised by one."""
    raw = prefix.encode()
    return base64.b64encode(raw[:-1] + bytes([raw[-1] + 1])).decode()


class Etcd:
    def __init__(self, root: Path, session: aiohttp.ClientSession, version: str = "") -> None:
        self.folder = root / "etcd"
        self.folder.mkdir(mode=0o755)
        give_away(self.folder)
        self.port, peer = free_ports(2)
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._session = session
        self.program = binaries.etcd(version)
        # fmt: off
        self.process = Process("etcd", [
            str(self.program), "--name", "lab", "--data-dir", str(self.folder / "data"),
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", f"http://{LOOPBACK}:{peer}", "--initial-advertise-peer-urls", f"http://{LOOPBACK}:{peer}",
            "--initial-cluster", f"lab=http://{LOOPBACK}:{peer}", "--logger", "zap", "--log-level", "warn",
        ], folder=self.folder)
        # fmt: on

    @property
    def hosts(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    async def start(self, deadline_s: float = 30.0) -> None:
        """Returns when it serves linearizable reads."""
        self.process.start()
        until = time.monotonic() + deadline_s
        while True:
            try:
                await self.get("health-of-the-lab")
            except (aiohttp.ClientError, TimeoutError):
                if time.monotonic() > until or not self.process.alive:
                    raise RuntimeError(f"etcd does not come up:\n{self.process.tail()}") from None
                await asyncio.sleep(0.02)
            else:
                return

    async def stop(self) -> None:
        await self.process.stop()

    async def kill(self) -> None:
        await self.process.kill()

    async def _ask(self, path: str, body: dict[str, object]) -> dict[str, object]:
        async with self._session.post(self.url + path, data=json.dumps(body), timeout=aiohttp.ClientTimeout(total=ASK_S)) as answer:
            answer.raise_for_status()
            said: dict[str, object] = json.loads(await answer.text())
            return said

    async def get(self, prefix: str) -> dict[str, str]:
        """Every key below the prefix and its value. Raises aiohttp.ClientError or TimeoutError when etcd does not answer."""
        said = await self._ask("/v3/kv/range", {"key": _encode(prefix), "range_end": _range_end(prefix)})
        items = said.get("kvs", [])
        assert isinstance(items, list)
        return {_decode(item["key"]): _decode(item.get("value", "")) for item in items}

    async def put(self, key: str, value: str) -> None:
        await self._ask("/v3/kv/put", {"key": _encode(key), "value": _encode(value)})

    async def delete(self, key: str) -> None:
        await self._ask("/v3/kv/deleterange", {"key": _encode(key)})

    async def watch(self, prefix: str) -> AsyncIterator[Change]:
        """The changes below the prefix from now on, as they arrive; ends with an aiohttp.ClientError when etcd goes away."""
        request = {"create_request": {"key": _encode(prefix), "range_end": _range_end(prefix)}}
        forever = aiohttp.ClientTimeout(total=None, sock_connect=ASK_S)
        async with self._session.post(self.url + "/v3/watch", data=json.dumps(request), timeout=forever) as answer:
            async for line in answer.content:
                at = time.monotonic()
                for event in json.loads(line).get("result", {}).get("events", []):
                    item = event["kv"]
                    gone = event.get("type") == "DELETE"
                    yield Change(at, _decode(item["key"]), None if gone else _decode(item.get("value", "")))
