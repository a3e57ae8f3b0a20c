"""The HTTP side: every path and method, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rivha.agent.brain.actions import Decision, Nothing, Verdict
from rivha.agent.journal import Entry
from rivha.api import connection
from rivha.api.app import Api
from rivha.api.health import CHECKS, PROBE
from rivha.api.settings import RestSettings
from rivha.errors import CannotRun
from rivha.metrics import Metrics
from rivha.model import FailoverRequest, HistoryLine
from tests.api.serving import ask, serving
from tests.api.views import END, NOW, a_cluster, a_desk, a_member, a_standby, a_view, replied, voters


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving(a_desk(a_view("a"))) as running:
        yield running


@pytest.mark.parametrize("path", sorted(CHECKS.keys() - {PROBE}))
async def test_every_check_answers_with_json_and_its_age(api: Api, path: str) -> None:
    status, body = await ask(api, "GET", path)
    assert status in (200, 503)
    assert json.loads(body)["age"] == 0


@pytest.mark.parametrize("path", ["/primary", "/replica", "/cluster", "/nothing"])
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
async def test_head_and_options_give_the_status_line_only(api: Api, method: str, path: str) -> None:
    expected, _ = await ask(api, "GET", path)
    status, body = await ask(api, method, path)
    assert (status, body) == (expected, "")


async def test_an_options_answer_ends_properly_for_http_1_0(api: Api) -> None:
    answer = await raw(api, b"OPTIONS /primary HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_query_and_a_trailing_slash_find_the_same_check(api: Api) -> None:
    api_of_a_replica = a_desk(a_view("b", a_standby(replay_lsn=END - 100)))
    async with serving(api_of_a_replica) as replica:
        assert (await ask(replica, "GET", "/replica?lag=100"))[0] == 200
        assert (await ask(replica, "GET", "/replica/?lag=99"))[0] == 503
        status, text = await ask(replica, "GET", "/replica?lag=far")
    assert status == 400
    assert "lag=far" in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("POST", "/primary", 405), ("GET", "/restart", 405), ("DELETE", "/config", 405), ("TRACE", "/", 405)],
)
async def test_what_is_not_there_is_said_to_be_so(api: Api, method: str, path: str, status: int) -> None:
    assert (await ask(api, method, path))[0] == status


async def test_before_the_first_tick_the_pages_say_that_nothing_is_known() -> None:
    async with serving(a_desk(None)) as api:
        assert (await ask(api, "GET", "/cluster"))[0] == 503
        assert (await ask(api, "GET", "/history"))[0] == 503
        assert (await ask(api, "GET", "/config"))[0] == 502
        assert (await ask(api, "GET", "/patroni"))[0] == 200
        assert (await ask(api, "GET", "/journal")) == (200, "[]")
        status, text = await ask(api, "GET", "/metrics")
    assert status == 200
    assert "rivha_tick_seconds_count" in text


async def test_the_cluster_page_shows_members_with_their_lag() -> None:
    members = (
        a_member("a", role="primary"),
        a_member("b", receive_lsn=END - 8, replay_lsn=END - 24, xlog_location=END - 8, tags={"nofailover": True}),
        a_member("c", xlog_location=None, state="creating replica", replication_state=None),
    )
    failover = FailoverRequest("a", "b", "2030-01-01T00:00:00+00:00", 4)
    cluster = a_cluster(members=members, failover=failover, complaints=("status: is not JSON",))
    async with serving(a_desk(a_view("c", cluster=cluster, policy={"paused": True}))) as api:
        status, body = await ask(api, "GET", "/cluster")

    document = json.loads(body)
    a, b, c = document["members"]
    assert status == 200
    assert (a["role"], a["state"], a["lsn"], a["host"], a["port"]) == ("leader", "running", "0/3000060", "127.0.0.97", 5432)
    assert "lag" not in a
    assert (b["role"], b["state"], b["lag"], b["receive_lag"], b["replay_lag"]) == ("replica", "streaming", 8, 8, 24)
    assert b["tags"] == {"nofailover": True}
    assert (c["state"], c["lsn"], c["lag"]) == ("creating replica", "unknown", "unknown")
    assert document["scope"] == "demo"
    assert document["pause"] is True
    assert document["scheduled_switchover"] == {"at": "2030-01-01T00:00:00+00:00", "from": "a", "to": "b"}
    assert document["complaints"] == ["status: is not JSON"]
    assert "reason" not in document


async def test_without_a_leader_the_cluster_page_and_the_journal_say_why() -> None:
    view = a_view("b", cluster=a_cluster(None))
    desk = a_desk(view)
    verdicts = Verdict(Nothing(), "c ranks before me", "hold_back"), Verdict(Nothing(), "nobody leads", "wait")
    desk.journal.record(Entry(NOW, 1_780_000_000.0, view, Decision(*verdicts), 0.01))
    async with serving(desk) as api:
        cluster = json.loads((await ask(api, "GET", "/cluster"))[1])
        (entry,) = json.loads((await ask(api, "GET", "/journal"))[1])

    assert cluster["reason"] == "c ranks before me"
    assert entry["lease"] == {"action": "Nothing", "rule": "hold_back", "reason": "c ranks before me"}
    assert entry["at"].startswith("2026-05-2")


async def test_history_and_config_are_what_etcd_holds() -> None:
    line = HistoryLine(2, END, "no recovery target specified", "2026-07-01T00:00:00+00:00", "a")
    async with serving(a_desk(a_view("b", cluster=a_cluster(history=(line,))))) as api:
        history = json.loads((await ask(api, "GET", "/history"))[1])
        config = json.loads((await ask(api, "GET", "/config"))[1])
    assert history == [[2, END, "no recovery target specified", "2026-07-01T00:00:00+00:00", "a"]]
    assert config == {"ttl": 10}


async def test_metrics_show_patronis_names_and_what_patroni_lacks() -> None:
    metrics = Metrics("demo", "a")
    metrics.tick(a_view("a", cluster=a_cluster("b")), 0.01)
    metrics.tick(a_view("a"), 0.02)
    found = {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels) if key not in ("scope", "name"))): sample.value
        for family in text_string_to_metric_families(metrics.render(a_view("a"), NOW + 2).decode())
        for sample in family.samples
    }

    expected = {
        ("patroni_primary",): 1,
        ("patroni_postgres_running",): 1,
        ("patroni_postgres_state",): 5,
        ("patroni_xlog_location",): END,
        ("patroni_xlog_received_location",): 0,
        ("patroni_dcs_last_seen",): 1_780_000_000,
        ("patroni_postmaster_start_time",): 1_782_900_000,
        ("rivha_leader_changes_total",): 1,
        ("rivha_takeovers_total",): 1,
        ("rivha_tick_seconds_count",): 2,
        ("rivha_lease_remaining_seconds",): 8,
        ("rivha_replica_replay_lag_bytes", "b"): 0,
        ("rivha_slot_retained_bytes", "b"): 0,
    }
    assert {key: found[key] for key in expected} == expected


async def test_metrics_tell_of_voters_and_how_long_they_prove_the_leader() -> None:
    view = a_view("a", policy={"synchronous_mode": "quorum"}, cluster=a_cluster(sync=voters("b")), memory=replied(NOW, b=NOW))
    text = Metrics("demo", "a").render(view, NOW + 1).decode()
    assert 'rivha_voters{name="a",scope="demo"} 1.0' in text
    assert f'rivha_proof_remaining_seconds{{name="a",scope="demo"}} {view.proof_window_s - 1}' in text
    alone = a_view("a", policy={"synchronous_mode": "quorum"}, cluster=a_cluster(sync=voters(), held_revision=8))
    assert 'rivha_proof_remaining_seconds{name="a",scope="demo"} +Inf' in Metrics("demo", "a").render(alone, NOW).decode()
    assert "rivha_proof_remaining_seconds" not in Metrics("demo", "a").render(a_view("a"), NOW).decode()
    voter = a_view("b", policy={"synchronous_mode": "quorum"}, cluster=a_cluster(sync=voters("b")))
    assert 'patroni_quorum_standby{name="b",scope="demo"} 1.0' in Metrics("demo", "b").render(voter, NOW).decode()


async def test_metrics_of_a_replica_show_its_lag() -> None:
    view = a_view("b", a_standby(replay_lsn=END - 16, replay_age_s=1.5))
    text = Metrics("demo", "b").render(view, NOW).decode()
    assert 'rivha_replay_lag_bytes{name="b",scope="demo"} 16.0' in text
    assert 'rivha_replay_age_seconds{name="b",scope="demo"} 1.5' in text
    assert "rivha_replica_replay_lag_bytes" not in text


async def test_answers_follow_the_view_at_once(api: Api) -> None:
    desk = api._desk
    assert (await ask(api, "GET", "/primary"))[0] == 200
    desk.out_of_routing = True
    assert (await ask(api, "GET", "/primary"))[0] == 503
    desk.out_of_routing = False
    desk.publish(a_view("a", lease=None))
    assert (await ask(api, "GET", "/primary"))[0] == 503


async def test_headers_of_the_operators_own_are_on_every_answer() -> None:
    async with serving(a_desk(a_view()), http_extra_headers={"X-Frame-Options": "DENY"}) as api:
        for method in (b"GET", b"HEAD"):
            assert b"X-Frame-Options: DENY\r\n" in await raw(api, method + b" /primary HTTP/1.0\r\n\r\n")


async def test_a_port_in_use_is_said_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        api = Api(RestSettings(listen_port=port), a_desk(a_view()), Metrics("demo", "a"), "demo")
        with pytest.raises(CannotRun, match=f"cannot listen on 127.0.0.1:{port}.*change restapi.listen") as caught:
            await api.start()
        await api.stop()
    assert caught.value.exit_code == 6


async def test_an_agent_that_is_restarted_gets_its_port_back_at_once(api: Api) -> None:
    await ask(api, "GET", "/primary")
    port = api.port
    await api.stop()
    async with serving(a_desk(a_view()), listen_port=port) as again:
        assert (await ask(again, "GET", "/primary"))[0] == 200


# ---- clients that do not behave --------------------------------------------------------------------------------------------------


async def raw(api: Api, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(request)
    async with asyncio.timeout(15):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits that a test can wait for; what they are in production is no part of the promise."""
    monkeypatch.setattr(connection, "PATIENCE_S", 0.5)
    monkeypatch.setattr(connection, "SWEEP_EVERY_S", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("first_words", [b"", b"GET /pri", b"GET /primary HTTP/1.1\r\nX-Slow: "], ids=["silent", "half a line", "loris"])
async def test_a_client_that_says_nothing_or_too_little_is_hung_up_on(api: Api, first_words: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(first_words)

    async def dribble() -> None:
        while True:
            await asyncio.sleep(0.05)
            writer.write(b"a" if first_words else b"")

    slow = asyncio.create_task(dribble())
    async with asyncio.timeout(15):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    slow.cancel()
    await asyncio.wait([slow])
    writer.close()


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_does_not_take_its_answer_is_hung_up_on() -> None:
    members = tuple(a_member(f"m{n}", tags={"long": "x" * 10_000}) for n in range(1000))
    async with serving(a_desk(a_view(cluster=a_cluster(members=members)))) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1)
        writer.write(b"GET /cluster HTTP/1.1\r\nHost: x\r\n\r\n")
        assert api._connections is not None
        async with asyncio.timeout(15):
            while not any(c.transport and c.transport.get_write_buffer_size() for c in api._connections.connections):
                await asyncio.sleep(0.02)
            while api._connections.connections:
                await asyncio.sleep(0.02)
        writer.close()
        del reader


async def test_hundreds_of_silent_connections_keep_nobody_from_being_answered(api: Api) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(connection.CONNECTIONS_MAX + 50)]
    assert (await ask(api, "GET", "/primary"))[0] == 200
    assert api._connections is not None
    assert len(api._connections.connections) <= connection.CONNECTIONS_MAX + 1
    for _, writer in silent:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_garbage_is_answered_with_400(api: Api) -> None:
    assert (await raw(api, b"\x16\x03\x01\x00garbage\r\n\r\n")).split(b"\r\n")[0].endswith(b"400 Bad Request")


async def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    status, _ = await ask(api, "PATCH", "/config", body=io.BytesIO(b"x" * (connection.BODY_MAX + 1)))
    assert status == 413


async def test_the_server_stops_with_clients_connected() -> None:
    async with serving(a_desk(replace(a_view()))) as api:
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
        assert (await ask(api, "GET", "/primary"))[0] == 200
        async with asyncio.timeout(15):
            await api.stop()
        writer.close()
