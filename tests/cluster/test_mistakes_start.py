"""Mistakes seen at the start, and an etcd that is not there: a message, an exit code, nothing made, and recovery where it can be."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from tests.cluster.mistakes import (
    BINARIES,
    BOOTSTRAP,
    MISTAKES,
    NAME,
    REST,
    a_node,
    beside,
    change,
    leads,
    listed,
    listing,
    log_of,
    looks_on,
    refuses,
    says,
)
from tests.lab import binaries
from tests.lab.cluster import Lab
from tests.lab.node import REPOSITORY
from tests.lab.ports import LOOPBACK
from tests.lab.processes import Process

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@contextmanager
def somebody_on(port: int) -> Iterator[None]:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((LOOPBACK, port))
        one.listen()
        yield


# ---- the configuration, the programs, the ports


async def test_every_mistake_of_the_file_is_listed_and_nothing_starts(ground: Lab) -> None:
    async with a_node(ground, "typo", scope="typo") as node:
        node.write_config(restapi={"listen": "everywhere:port"}, name="", etcd3={"hosts": "etcd:port"})
        node.start()
        assert await node.agent.ended(60) == MISTAKES
        told = [line for line in log_of(node).splitlines() if line.startswith("mistake: ")]
        for path in ("restapi.listen", "name", "etcd3.hosts"):
            assert [line for line in told if line.startswith(f"mistake: {path}")], told
        assert not node.data.exists()


async def test_missing_programs_are_named_with_the_place_where_they_were_sought(ground: Lab) -> None:
    async with a_node(ground, "bare", scope="bare", postgresql={"bin_dir": "/nonexistent/bin"}) as node:
        await refuses(node, BINARIES, "postgres not found in /nonexistent/bin", "postgresql.bin_dir")
        assert not node.data.exists()


async def test_programs_of_another_version_than_the_data_touch_nothing(ground: Lab) -> None:
    async with a_node(ground, "elder", scope="elder") as node:
        node.start()
        await leads(ground, node)
        assert await node.stop() == 0
        before = listing(node.data)
        change(node, bin_dir=str(binaries.postgres(18 if binaries.version_of(ground.bin_dir) != 18 else 17)))
        await refuses(node, BINARIES, str(node.data), f"PostgreSQL {binaries.version_of(ground.bin_dir)}", "set postgresql.bin_dir")
        assert listing(node.data) == before


async def test_a_taken_rest_port_is_named_before_anything_is_made(ground: Lab) -> None:
    async with a_node(ground, "deaf", scope="deaf") as node:
        with somebody_on(node.rest_port):
            await refuses(node, REST, f"{LOOPBACK}:{node.rest_port}", "Address already in use", "restapi.listen")
        assert not node.data.exists()


async def test_a_taken_port_of_postgres_ends_a_bootstrap_before_a_directory_is_made(ground: Lab) -> None:
    async with a_node(ground, "taken", scope="taken") as node:
        with somebody_on(node.postgres_port):
            await refuses(node, BOOTSTRAP, f"port {node.postgres_port} of {LOOPBACK}", "Address already in use", "postgresql.listen")
        assert not node.data.exists()
        assert beside(node) == []
        node.start()
        await leads(ground, node)


async def test_a_taken_port_of_postgres_is_waited_for_when_there_are_data(ground: Lab) -> None:
    async with a_node(ground, "late", scope="late") as node:
        node.start()
        await leads(ground, node)
        assert await node.stop() == 0
        with somebody_on(node.postgres_port):
            node.start()
            await says(ground, node, f"port {node.postgres_port} of {LOOPBACK}", "Address already in use", "ss -ltnp")
            assert len(await looks_on(ground, node, 6)) < 20
            assert (await node.status())["state"] == "start failed"
            assert "Address already in use" in await listed(node)
        await leads(ground, node)


# ---- the name


async def test_a_name_that_was_taken_while_etcd_was_silent_is_refused_when_it_is_back() -> None:
    async with Lab(2) as lab:
        first, second = lab.nodes
        first.start()
        await leads(lab, first)
        argv = [sys.executable, "-m", "rivha", str(second.config)]
        second.write_config(name=first.name)
        double = Process("double", argv, folder=second.folder, env={"PYTHONPATH": str(REPOSITORY)})
        await lab.etcd.stop()
        double.start()

        async def waits() -> bool:
            return "whether the name is taken is asked when it does" in double.tail()

        await lab.wait_for(waits, "the second agent noticed that etcd is silent")
        await lab.etcd.start()
        assert await double.ended(60) == NAME, double.tail()
        assert f"there is already a node named '{first.name}' running" in double.tail()
        assert first.agent.alive
        await leads(lab, first)


# ---- etcd


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_an_absent_etcd_is_waited_for(how: str) -> None:
    async with Lab(1) as lab:
        [node] = lab.nodes
        if how == "stopped":
            await lab.etcd.stop()
        else:
            lab.etcd.process.freeze()
        node.start()
        await says(lab, node, "etcd does not answer")
        assert lab.etcd.hosts in log_of(node)
        assert "etcd3.hosts" in log_of(node)
        assert len(node.log_records()) < 12
        assert not node.data.exists()
        assert lab.etcd.hosts in await listed(node)
        if how == "stopped":
            await lab.etcd.start()
        else:
            lab.etcd.process.thaw()
        await leads(lab, node)


@pytest.mark.parametrize(("hosts", "words"), [("nowhere.invalid:2379", "nowhere.invalid"), ("", "did not answer as etcd does")])
async def test_a_wrong_address_of_etcd_is_told_with_what_answers_there(ground: Lab, hosts: str, words: str) -> None:
    """An empty one stands for the REST API of our own neighbour."""
    async with a_node(ground, f"lost-{bool(hosts)}", scope=f"lost-{bool(hosts)}") as node:
        node.write_config(etcd3={"hosts": hosts or f"{LOOPBACK}:{ground.nodes[0].rest_port}"})
        node.start()
        await says(ground, node, "etcd does not answer")
        assert words in log_of(node)
        assert not node.data.exists()


# ---- bodies


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/switchover"),
        ("POST", "/failover"),
        ("POST", "/restart"),
        ("POST", "/reinitialize"),
        ("PATCH", "/config"),
        ("PUT", "/config"),
    ],
)
@pytest.mark.parametrize("body", [b"{no json", b"\xff\xfe", b"[1]"])
async def test_a_body_that_is_no_json_object_is_refused_and_changes_nothing(ground: Lab, method: str, path: str, body: bytes) -> None:
    [node] = ground.nodes
    before = {key: value for key, value in (await ground.keys()).items() if key in ("config", "failover", "leader")}
    url = f"http://{LOOPBACK}:{node.rest_port}{path}"
    async with ground.session.request(method, url, data=body, timeout=aiohttp.ClientTimeout(total=30)) as answer:
        assert answer.status == 400
        assert "JSON" in await answer.text()
    assert {key: value for key, value in (await ground.keys()).items() if key in ("config", "failover", "leader")} == before
