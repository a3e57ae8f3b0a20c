"""A watch is only a wake-up, but it must never fall asleep itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivha.dcs.base import Put, Txn
from rivha.dcs.etcd import Etcd
from rivha.dcs.node import Failure
from rivha.dcs.watch import IDLE_S, LONGEST_LINE, Lines
from tests.dcs.conftest import Connect
from tests.dcs.stubs import dead_host, hanging_host, parrot
from tests.etcd_process import EtcdServer, Proxy, eventually

BUDGET_S = 5.0
CHANGE = Txn((), (Put("status", "1"),))


@asynccontextmanager
async def watching(dcs: Etcd) -> AsyncIterator[list[str]]:
    seen: list[str] = []
    task = asyncio.create_task(dcs.watch(seen.append))
    try:
        yield seen
    finally:
        assert not task.done(), "a watch never ends by itself"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ---- the reader


@given(st.lists(st.dictionaries(st.text(), st.text(), max_size=3), max_size=5), st.data())
def test_messages_come_out_whole_however_the_network_cuts_them(messages: list[dict[str, str]], data: st.DataObject) -> None:
    """etcd3-py's reader loses messages when two arrive in one chunk."""
    stream = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    lines = Lines()
    got = [json.loads(line) for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) for line in lines.feed(stream[start:end])]

    assert got == messages


def test_a_line_without_an_end_is_given_up() -> None:
    lines = Lines()
    with pytest.raises(Failure, match="without an end"):
        list(lines.feed(b"x" * (LONGEST_LINE + 1)))


# ---- the stream


@pytest.mark.real
async def test_many_changes_at_once_are_all_told(shared_etcd: EtcdServer, connect: Connect) -> None:
    dcs = connect(shared_etcd.host)
    async with watching(dcs) as seen:
        await eventually(lambda: seen == [""], "the watch begins")
        keys = [f"members/{number}" for number in range(60)]
        await dcs.commit(Txn((), tuple(Put(key, "x" * 2000) for key in keys)), BUDGET_S)

        await eventually(lambda: set(keys) <= set(seen), "every key is told")


@pytest.mark.real
async def test_a_watch_begins_although_the_first_endpoints_are_dead_or_hang(shared_etcd: EtcdServer, connect: Connect) -> None:
    with hanging_host() as hanging:
        async with watching(connect(dead_host(), hanging, shared_etcd.host)) as seen:
            await eventually(lambda: seen == [""], "the watch begins")


@pytest.mark.real
async def test_a_watch_waits_for_an_etcd_that_comes_later_and_survives_its_restart(own_etcd: EtcdServer, connect: Connect) -> None:
    own_etcd.stop()
    dcs = connect(own_etcd.host)
    async with watching(dcs) as seen:
        for begun in (1, 2):
            await asyncio.to_thread(own_etcd.start)
            await eventually(lambda begun=begun: seen.count("") == begun, "the watch begins")  # type: ignore[misc]
            await dcs.commit(CHANGE, BUDGET_S)
            await eventually(lambda begun=begun: seen.count("status") == begun, "it tells of changes")  # type: ignore[misc]
            await asyncio.to_thread(own_etcd.stop)


@pytest.mark.real
async def test_a_stream_that_died_silently_is_noticed_when_anything_else_notices(
    shared_etcd: EtcdServer, proxy: Proxy, connect: Connect
) -> None:
    """The agent reads every second: an endpoint that does not answer a read is not trusted with the watch either."""
    dcs = connect(proxy.host, shared_etcd.host)
    async with watching(dcs) as seen:
        await eventually(lambda: seen == [""], "the watch begins")
        proxy.forwards = False
        await dcs.read(BUDGET_S)
        await eventually(lambda: seen == ["", ""], "the watch begins again elsewhere")
        await dcs.commit(CHANGE, BUDGET_S)
        await eventually(lambda: "status" in seen, "it tells of changes")


@pytest.mark.real
async def test_a_stream_that_died_silently_is_noticed_in_the_end_even_if_nobody_asks(
    shared_etcd: EtcdServer, proxy: Proxy, connect: Connect
) -> None:
    ahead_s = 0.0
    dcs = connect(proxy.host, clock=lambda: time.monotonic() + ahead_s)
    async with watching(dcs) as seen:
        await eventually(lambda: seen == [""], "the watch begins")
        await connect(shared_etcd.host).commit(CHANGE, BUDGET_S)
        await eventually(lambda: "status" in seen, "it tells of changes")
        proxy.forwards = False
        ahead_s = IDLE_S
        await eventually(lambda: proxy.connections == 2, "a new stream is tried")
        proxy.forwards = True
        await eventually(lambda: seen.count("") >= 2, "the watch begins again")


@pytest.mark.real
async def test_an_endpoint_that_dies_takes_the_watch_elsewhere(shared_etcd: EtcdServer, proxy: Proxy, connect: Connect) -> None:
    async with watching(connect(proxy.host, shared_etcd.host)) as seen:
        await eventually(lambda: seen == [""], "the watch begins")
        await proxy.close()
        await eventually(lambda: seen == ["", ""], "the watch begins again")


async def test_a_watch_that_etcd_cancels_is_begun_anew(connect: Connect) -> None:
    """The stream stays open after a cancel message, and silent for ever (HAZARDS A 13)."""
    for reason in ("etcdserver: no leader", "etcdserver: permission denied", ""):
        async with parrot() as etcd:
            etcd.answer = (
                json.dumps({"result": {"created": True}})
                + "\n"
                + json.dumps({"result": {"canceled": True, "cancel_reason": reason, "compact_revision": "7"}})
                + "\n"
            )
            async with watching(connect(etcd.host)) as seen:
                await eventually(lambda etcd=etcd: etcd.asked >= 3, "the watch is begun anew")  # type: ignore[misc]
                assert seen[:2] == ["", ""]


async def test_a_watch_canceled_for_its_token_logs_in_again(connect: Connect) -> None:
    """Both are said after a restart of etcd, the first by 3.4, the second by 3.5; other endpoints would say the same."""
    for why in ("rpc error: code = Unauthenticated desc = etcdserver: invalid auth token", "etcdserver: permission denied"):
        async with parrot() as etcd:
            etcd.answer = json.dumps({"result": {"created": True, "canceled": True, "cancel_reason": why}}) + "\n"
            async with watching(connect(etcd.host, username="rivha", password="secret")):
                await eventually(lambda etcd=etcd: etcd.logins >= 2, "it logs in again")  # type: ignore[misc]


async def test_nonsense_in_the_stream_does_not_end_the_watch(connect: Connect) -> None:
    for nonsense in ("<html>\n", "{}\n[]\n", '{"error": {"grpc_code": 14, "message": "etcdserver: no leader"}}\n', ""):
        async with parrot() as etcd:
            etcd.answer = nonsense
            async with watching(connect(etcd.host)):
                await eventually(lambda etcd=etcd: etcd.asked >= 2, "the watch is begun anew")  # type: ignore[misc]
