"""Several endpoints, some of them dead, hanging, foreign or behind: the budget is kept, nothing is written twice, nothing is guessed."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from blockbuster import blockbuster_ctx
from structlog.testing import capture_logs

from rivha.dcs.base import Put, Txn, Unchanged
from rivha.errors import DcsUnavailable
from rivha.model import Outcome
from tests.dcs.conftest import Connect
from tests.dcs.stubs import dead_host, hanging_host, parrot
from tests.etcd_process import EtcdServer, Proxy, etcd_server, eventually, proxy_to

BUDGET_S = 5.0
LEADER = Txn((Unchanged("leader", 0),), (Put("leader", "a"),))


def versions(server: EtcdServer, prefix: str) -> dict[str, int]:
    """key -> how often it was written."""
    return {key.removeprefix(prefix + "/"): int(kv["version"]) for key, kv in server.keys().items() if key.startswith(prefix)}


# ---- etcd3-py's defects, mended


def test_a_client_is_built_without_a_loop_without_etcd_and_without_the_requests_library() -> None:
    """etcd3-py asks for etcd's version in the constructor, blocking, and raises AttributeError when nobody answers."""
    code = (
        "import sys, time\n"
        "from rivha.dcs.etcd import Etcd, EtcdSettings\n"
        "Etcd(EtcdSettings(('127.0.0.1:1',)), '/service/demo', time.monotonic)\n"
        "assert not any(m == 'requests' or m.startswith('requests.') for m in sys.modules), 'requests'\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_the_real_requests_library_can_be_had_afterwards() -> None:
    code = "import rivha.dcs.node, requests; requests.Session().close()"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.real
async def test_nothing_blocks_the_loop(shared_etcd: EtcdServer, connect: Connect) -> None:
    with blockbuster_ctx():
        dcs = connect(dead_host(), shared_etcd.host)
        await dcs.read(BUDGET_S)
        assert await dcs.commit(LEADER, BUDGET_S) is Outcome.DONE
        assert await dcs.renew(await dcs.grant(10, BUDGET_S), BUDGET_S) == 10.0


# ---- questions


@pytest.mark.real
async def test_a_dead_endpoint_is_passed_over_by_everything(shared_etcd: EtcdServer, connect: Connect) -> None:
    for first in ("read", "grant", "commit"):
        dcs = connect(dead_host(), shared_etcd.host)
        match first:
            case "read":
                assert (await dcs.read(BUDGET_S)).items == ()
            case "grant":
                assert await dcs.grant(10, BUDGET_S) > 0
            case "commit":
                assert await dcs.commit(LEADER, BUDGET_S) is Outcome.DONE


@pytest.mark.real
async def test_a_hanging_endpoint_does_not_eat_the_budget_and_is_asked_last_from_then_on(shared_etcd: EtcdServer, connect: Connect) -> None:
    async with proxy_to(shared_etcd) as hanging:
        hanging.forwards = False
        dcs = connect(hanging.host, shared_etcd.host)

        await dcs.read(BUDGET_S)
        before = hanging.connections
        for _ in range(3):
            await dcs.read(BUDGET_S)

        assert hanging.connections == before == 1


@pytest.mark.real
async def test_a_frozen_etcd_is_left_for_one_that_answers(shared_etcd: EtcdServer, proxy: Proxy, connect: Connect) -> None:
    """The connection is there and was good; it just says nothing any more."""
    dcs = connect(proxy.host, shared_etcd.host)
    lease_id = await dcs.grant(30, BUDGET_S)
    proxy.forwards = False

    assert await dcs.renew(lease_id, BUDGET_S) == 30.0
    assert await dcs.time_to_live(lease_id, BUDGET_S) is not None
    await dcs.revoke(lease_id, BUDGET_S)


async def test_when_all_are_dead_the_error_says_of_each_endpoint_what_was_wrong(connect: Connect) -> None:
    dead = dead_host()
    with hanging_host() as hanging:
        dcs = connect(dead, hanging)
        with pytest.raises(DcsUnavailable) as caught:
            await dcs.read(0.5)

    assert f"http://{dead}: Connection refused" in str(caught.value)
    assert f"http://{hanging}: no answer" in str(caught.value)


@pytest.mark.real
async def test_a_call_does_not_give_up_before_its_budget_when_all_refuse_at_once(own_etcd: EtcdServer, connect: Connect) -> None:
    """HAZARDS A 10: a second without etcd must not look like an outage."""
    dcs = connect(own_etcd.host)
    own_etcd.stop()
    reading = asyncio.create_task(dcs.read(30.0))
    writing = asyncio.create_task(dcs.commit(LEADER, 30.0))
    await asyncio.sleep(0)
    await asyncio.to_thread(own_etcd.start)

    assert (await reading).revision > 0
    assert await writing is Outcome.DONE


async def test_an_etcd_that_is_alive_but_has_no_leader_is_passed_over(connect: Connect) -> None:
    async with parrot() as lost, parrot() as good:
        good.says_nothing_but_header(term=2)
        for text, code in (
            ("etcdserver: no leader", 14),
            ("etcdserver: server stopped", 14),
            ("etcdserver: request timed out", 14),
            ("?", 2),
        ):
            lost.fails(text, code)
            assert (await connect(lost.host, good.host).read(BUDGET_S)).revision == 1
        assert lost.asked == 4


async def test_something_that_is_no_etcd_is_named_as_such(connect: Connect) -> None:
    async with parrot() as web_server:
        for answer in ("<html>It works!</html>", "[]", "42", ""):
            web_server.answer = answer
            with pytest.raises(DcsUnavailable, match="did not answer as etcd does"):
                await connect(web_server.host).read(0.1)


# ---- whom to believe


@pytest.mark.real
async def test_another_etcd_cluster_is_neither_believed_nor_written_to(
    own_etcd: EtcdServer, shared_etcd: EtcdServer, connect: Connect, prefix: str
) -> None:
    dcs = connect(own_etcd.host, shared_etcd.host)
    await dcs.read(BUDGET_S)
    own_etcd.stop()

    with pytest.raises(DcsUnavailable, match="another etcd cluster"):
        await dcs.read(0.5)
    assert await dcs.commit(LEADER, 0.5) is Outcome.UNKNOWN
    assert versions(shared_etcd, prefix) == {}


async def test_a_node_that_is_behind_in_etcds_elections_is_passed_over(connect: Connect) -> None:
    async with parrot() as behind, parrot() as current:
        behind.says_nothing_but_header(term=5)
        current.says_nothing_but_header(term=6, revision=20)
        dcs = connect(behind.host, current.host)
        assert (await dcs.read(BUDGET_S)).revision == 1
        behind.says_nothing_but_header(term=4, revision=2)

        assert (await dcs.read(BUDGET_S)).revision == 20


async def test_a_restored_etcd_whose_terms_began_anew_is_believed_after_one_failed_read(connect: Connect) -> None:
    async with parrot() as etcd:
        etcd.says_nothing_but_header(term=9)
        dcs = connect(etcd.host)
        await dcs.read(BUDGET_S)
        etcd.says_nothing_but_header(term=2)

        with pytest.raises(DcsUnavailable, match="behind in etcd's own elections"):
            await dcs.read(0.5)
        assert (await dcs.read(BUDGET_S)).revision == 1


# ---- writes


@pytest.mark.real
async def test_a_lost_reply_makes_the_outcome_unknown_and_the_write_is_not_sent_again(
    shared_etcd: EtcdServer, proxy: Proxy, connect: Connect, prefix: str
) -> None:
    dcs = connect(proxy.host, shared_etcd.host)
    await dcs.read(BUDGET_S)
    proxy.cuts_answers = True

    assert await dcs.commit(Txn((), (Put("status", "1"),)), BUDGET_S) is Outcome.UNKNOWN

    assert versions(shared_etcd, prefix) == {"status": 1}
    assert [item.key for item in (await dcs.read(BUDGET_S)).items] == ["status"]


@pytest.mark.real
async def test_a_write_to_an_endpoint_that_fell_silent_is_unknown_and_the_next_goes_elsewhere(
    shared_etcd: EtcdServer, proxy: Proxy, connect: Connect, prefix: str
) -> None:
    dcs = connect(proxy.host, shared_etcd.host)
    await dcs.read(BUDGET_S)
    proxy.forwards = False

    assert await dcs.commit(LEADER, 0.5) is Outcome.UNKNOWN
    assert await dcs.commit(Txn((), (Put("status", "2"),)), BUDGET_S) is Outcome.DONE
    assert versions(shared_etcd, prefix) == {"status": 1}


@pytest.mark.real
async def test_a_write_that_could_not_even_connect_goes_to_the_next_endpoint(
    shared_etcd: EtcdServer, proxy: Proxy, connect: Connect, prefix: str
) -> None:
    dcs = connect(proxy.host, shared_etcd.host)
    await dcs.read(BUDGET_S)
    await proxy.close()

    async def closed_connections_are_noticed() -> None:
        """The pooled connection is seen to be closed in the next turns of the loop; a write on it would rightly be unknown."""
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection(*proxy.host.split(":"))

    await closed_connections_are_noticed()
    assert await dcs.commit(LEADER, BUDGET_S) is Outcome.DONE
    assert versions(shared_etcd, prefix) == {"leader": 1}


@pytest.mark.real
async def test_a_first_write_does_not_wait_for_a_hanging_endpoint(shared_etcd: EtcdServer, connect: Connect) -> None:
    with hanging_host() as hanging:
        assert await connect(hanging, shared_etcd.host).commit(LEADER, 1.0) is Outcome.DONE


async def test_a_write_without_any_etcd_is_unknown_not_an_error(connect: Connect) -> None:
    assert await connect(dead_host()).commit(LEADER, 0.3) is Outcome.UNKNOWN


async def test_no_budget_is_no_answer(connect: Connect) -> None:
    dcs = connect(dead_host())

    with pytest.raises(DcsUnavailable):
        await dcs.read(0.0)
    assert await dcs.commit(LEADER, -1.0) is Outcome.UNKNOWN


@pytest.mark.real
async def test_a_transaction_that_etcd_finds_malformed_is_refused_and_said_aloud(shared_etcd: EtcdServer, connect: Connect) -> None:
    with capture_logs() as logs:
        outcome = await connect(shared_etcd.host).commit(Txn((), (Put("a", "1"), Put("a", "2"))), BUDGET_S)

    assert outcome is Outcome.REFUSED
    assert [entry["log_level"] for entry in logs] == ["error"]


async def test_an_etcd_out_of_space_leaves_the_outcome_unknown(connect: Connect) -> None:
    """etcd may have applied the transaction and only then found that it had no room."""
    async with parrot() as full:
        full.says_nothing_but_header(term=2)
        dcs = connect(full.host)
        await dcs.read(BUDGET_S)
        full.fails("etcdserver: mvcc: database space exceeded", 8, 429)

        assert await dcs.commit(LEADER, BUDGET_S) is Outcome.UNKNOWN


@pytest.mark.real
@pytest.mark.parametrize("version", ["", "3.5"])
async def test_an_etcd_out_of_space_renews_leases_and_is_known_to_have_written_nothing(connect: Connect, version: str) -> None:
    """What a guarded transaction came to can be asked without writing: only a leader that knows it still leads may go on as such."""
    with etcd_server(version, ("--quota-backend-bytes", "300000")) as server, capture_logs() as logs:
        dcs = connect(server.host)
        lease_id = await dcs.grant(30.0, BUDGET_S)
        assert await dcs.commit(Txn((Unchanged("leader", 0),), (Put("leader", "db1", lease_id),)), BUDGET_S) is Outcome.DONE
        filled = [await dcs.commit(Txn((), (Put(f"filler{n}", "x" * 50_000),)), BUDGET_S) for n in range(20)]
        assert filled[-1] is Outcome.UNKNOWN  # nothing guards what it writes
        leader = (await dcs.read(BUDGET_S)).items[-1]
        as_read = (Unchanged("leader", leader.mod_revision),)

        assert await dcs.commit(Txn(as_read, (Put("leader", "db2", lease_id),)), BUDGET_S) is Outcome.REFUSED
        assert (await dcs.read(BUDGET_S)).items[-1] == leader
        assert await dcs.renew(lease_id, BUDGET_S) > 0
        with pytest.raises(DcsUnavailable, match="space exceeded"):
            await dcs.grant(30.0, BUDGET_S)
    assert [entry["log_level"] for entry in logs] == ["error"], "told once"


# ---- what people are told


@pytest.mark.real
async def test_an_endpoint_that_goes_and_comes_back_is_mentioned_once_each(shared_etcd: EtcdServer, proxy: Proxy, connect: Connect) -> None:
    dcs = connect(proxy.host)
    await dcs.read(BUDGET_S)
    with capture_logs() as logs:
        await proxy.close()
        for _ in range(3):
            with pytest.raises(DcsUnavailable):
                await dcs.read(0.3)
        await proxy.open()
        for _ in range(3):
            await dcs.read(BUDGET_S)

    assert [(entry["log_level"], entry["endpoint"]) for entry in logs] == [
        ("warning", f"http://{proxy.host}"),
        ("info", f"http://{proxy.host}"),
    ]


@pytest.mark.real
async def test_many_calls_at_once_share_the_endpoints_peacefully(shared_etcd: EtcdServer, proxy: Proxy, connect: Connect) -> None:
    dcs = connect(dead_host(), proxy.host, shared_etcd.host)
    reads = [asyncio.create_task(dcs.read(BUDGET_S)) for _ in range(20)]
    await eventually(lambda: proxy.connections or any(task.done() for task in reads), "the reads are under way")
    proxy.forwards = False

    assert len({reading.revision for reading in await asyncio.gather(*reads)}) == 1


async def test_a_closed_client_says_so(connect: Connect) -> None:
    dcs = connect(dead_host())
    await dcs.close()

    with pytest.raises(DcsUnavailable, match="closed"):
        await dcs.read(BUDGET_S)
