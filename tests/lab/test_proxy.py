"""haproxy/haproxy.cfg does what its comments say, on a real HAProxy."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.lab import binaries
from tests.lab.janitor import Janitor
from tests.lab.node import REPOSITORY
from tests.lab.ports import LOOPBACK, free_ports
from tests.lab.processes import Process, account, environment, give_away
from tests.lab.proxy import CONFIG, Backend, Proxy

pytestmark = pytest.mark.real


class Stage:
    """Three stand-ins behind a real HAProxy; `let` and `forbid` say what each answers."""

    def __init__(self, root: Path, session: aiohttp.ClientSession) -> None:
        self.root = root
        self.stubs: dict[str, Process] = {}
        backends = []
        for name in ("db1", "db2", "db3"):
            folder = give_away_folder(root / name)
            tcp, http = free_ports(2)
            argv = [sys.executable, "-m", "tests.lab.stubs", name, str(tcp), str(http), str(folder)]
            self.stubs[name] = Process(f"stub-{name}", argv, folder=folder, env={"PYTHONPATH": str(REPOSITORY)})
            backends.append(Backend(tcp, http))
        self.proxy = Proxy(root, session, backends)

    def let(self, name: str, path: str) -> None:
        (self.root / name / path).touch()

    def forbid(self, name: str, path: str) -> None:
        (self.root / name / path).unlink()

    async def who(self, port: int) -> str:
        """The name of whoever a new client of this port is sent to; "" when HAProxy closes it."""
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            return (await asyncio.wait_for(reader.readline(), 10)).decode().strip()
        finally:
            writer.close()

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + 30
        while not await condition():
            assert time.monotonic() < deadline, await self.proxy.up()
            await asyncio.sleep(0.02)

    async def routed(self, section: str, *names: str) -> None:
        async def as_wanted() -> bool:
            return await self.proxy.routed(section) == list(names)

        await self.until(as_wanted)


def give_away_folder(path: Path) -> Path:
    path.mkdir()
    return give_away(path)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    import tempfile

    root = give_away(Path(tempfile.mkdtemp(prefix="rivha-", dir="/tmp")))
    janitor = Janitor(root, [binaries.haproxy()])
    async with aiohttp.ClientSession() as session:
        stage = Stage(root, session)
        for stub in stage.stubs.values():
            stub.start()
        yield stage
        for process in [*stage.stubs.values(), stage.proxy.process]:
            await process.kill()
    await asyncio.to_thread(janitor.dismiss)


def test_the_file_as_it_lies_in_the_repository_is_valid() -> None:
    who = account()  # the file's `haproxy` need not exist here
    env = environment({"RIVHA_PROXY_USER": who.name, "RIVHA_PROXY_GROUP": who.group} | binaries.haproxy_environment())
    done = subprocess.run([binaries.haproxy(), "-c", "-f", CONFIG], capture_output=True, text=True, timeout=30, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


async def test_each_port_leads_to_whom_the_agents_name_and_a_change_is_followed(stage: Stage) -> None:
    stage.let("db1", "primary")
    for name in ("db2", "db3"):
        stage.let(name, "replica")
    stage.let("db2", "sync")
    stage.let("db3", "async")
    await stage.proxy.start()
    await stage.routed("primary", "db1")
    await stage.routed("replica", "db2", "db3")
    assert await stage.who(stage.proxy.primary_port) == "db1"
    assert {await stage.who(stage.proxy.replica_port) for _ in range(6)} == {"db2", "db3"}
    assert await stage.who(stage.proxy.sync_port) == "db2"
    assert await stage.who(stage.proxy.async_port) == "db3"
    stage.forbid("db1", "primary")
    stage.let("db2", "primary")
    await stage.routed("primary", "db2")
    assert await stage.who(stage.proxy.primary_port) == "db2"


async def test_who_comes_before_the_first_checks_is_held_and_then_sent_to_the_primary(stage: Stage) -> None:
    stage.let("db3", "primary")
    await stage.proxy.start()
    assert {await stage.who(stage.proxy.primary_port) for _ in range(3)} == {"db3"}


async def test_a_client_of_a_demoted_primary_is_disconnected(stage: Stage) -> None:
    stage.let("db1", "primary")
    await stage.proxy.start()
    await stage.routed("primary", "db1")
    reader, writer = await asyncio.open_connection(LOOPBACK, stage.proxy.primary_port)
    assert (await asyncio.wait_for(reader.readline(), 10)) == b"db1\n"
    stage.forbid("db1", "primary")
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()
    await stage.routed("primary")
    assert await stage.who(stage.proxy.primary_port) == ""


async def test_a_frozen_node_loses_its_clients_and_a_thawed_one_is_routed_to_again(stage: Stage) -> None:
    stage.let("db1", "primary")
    await stage.proxy.start()
    await stage.routed("primary", "db1")
    stage.stubs["db1"].freeze()
    await stage.routed("primary")
    stage.stubs["db1"].thaw()
    await stage.routed("primary", "db1")
