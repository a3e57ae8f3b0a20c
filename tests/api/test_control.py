"""The requests about the local Postgres and the configuration: which are refused and how, what is written, what is answered when."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from rivha.agent.brain.view import Job, View
from rivha.agent.desk import Desk
from rivha.api import control
from rivha.api.control import Control
from rivha.errors import ConfigError
from rivha.model import Outcome
from tests.api.controlling import call, recording
from tests.api.serving import ask, serving
from tests.api.views import NOW, a_cluster, a_desk, a_primary, a_standby, a_view, silent_etcd

CONFIG = {"ttl": 10, "loop_wait": 1, "retry_timeout": 3}


# ---- the local Postgres ----------------------------------------------------------------------------------------------------------


def carried_out(desk: Desk, ok: bool, text: str) -> list[tuple[str, dict[str, object]]]:
    """An agent that settles each wish as soon as it is woken."""
    wishes: list[tuple[str, dict[str, object]]] = []

    def settle() -> None:
        for wish in list(desk.wishes.values()):
            wishes.append((wish.kind, dict(wish.detail)))
            desk.settle(wish.number, ok, text)

    desk.wake = lambda: asyncio.get_running_loop().call_soon(settle) and None
    return wishes


PENDING_RESTART = a_view("a", a_primary(pending_restart={"shared_buffers": ("1", "2")}))


@pytest.mark.parametrize(
    ("body", "view", "status"),
    [
        (None, a_view(), 200),
        ({}, a_view("b"), 200),
        ({"role": "primary"}, a_view(), 200),
        ({"role": "master"}, a_view(), 200),
        ({"role": "replica"}, a_view(), 503),
        ({"role": "primary"}, a_view("b"), 503),
        ({"role": "boss"}, a_view(), 400),
        ({"postgres_version": "15.19"}, a_view(), 200),
        ({"postgres_version": "15.18"}, a_view(), 503),
        ({"postgres_version": "16"}, a_view(), 200),
        ({"postgres_version": "new"}, a_view(), 400),
        ({"restart_pending": True}, a_view(), 503),
        ({"restart_pending": True}, PENDING_RESTART, 200),
        ({"timeout": "soon"}, a_view(), 400),
        ({"timeout": 5}, a_view("a", policy={"paused": True}), 200),
    ],
)
async def test_a_restart_happens_when_all_its_conditions_hold(body: object, view: View, status: int) -> None:
    desk = a_desk(view)
    wishes = carried_out(desk, True, "")
    reply = await call(desk, "POST", "/restart", body)
    assert reply.status == status, reply.text
    assert [kind for kind, _ in wishes] == (["restart"] if status == 200 else [])


async def test_a_restart_that_failed_or_takes_long_is_said_to() -> None:
    desk = a_desk(a_view())
    carried_out(desk, False, "Postgres did not start: out of disk")
    reply = await call(desk, "POST", "/restart", {})
    assert (reply.status, reply.text) == (503, "Postgres did not start: out of disk")

    desk = a_desk(a_view())
    reply = await call(desk, "POST", "/restart", {"timeout": 0.05})
    assert reply.status == 503
    assert "goes on" in reply.text
    assert (await call(desk, "POST", "/restart")).text == "a restart is in progress already"


async def test_a_restart_can_be_scheduled_once_and_withdrawn() -> None:
    desk = a_desk(a_view())
    routes = (parts := Control(desk)).routes()
    body = json.dumps({"schedule": "2099-01-01T00:00:00+00:00", "role": "primary"}).encode()

    assert (await routes["DELETE", "/restart"](b"")).status == 404
    assert (await routes["POST", "/restart"](body)).status == 202
    assert parts.schedule.published == {"schedule": "2099-01-01T00:00:00+00:00", "role": "primary"}
    assert (await routes["POST", "/restart"](body)).status == 409
    assert (await routes["DELETE", "/restart"](b"")).status == 200
    assert parts.schedule.published is None

    desk.latest = a_view(policy={"paused": True})
    assert (await routes["POST", "/restart"](body)).status == 500


@pytest.mark.parametrize(("view", "happens"), [(a_view(), True), (a_view("b"), False), (a_view(policy={"paused": True}), False)])
async def test_a_scheduled_restart_happens_at_its_time_if_its_conditions_hold_then(view: View, happens: bool) -> None:
    desk = a_desk(a_view())
    wishes = carried_out(desk, True, "")
    parts = Control(desk)
    body = json.dumps({"schedule": "2099-01-01T00:00:00+00:00", "role": "primary"}).encode()
    assert (await parts.routes()["POST", "/restart"](body)).status == 202
    await asyncio.sleep(0)
    desk.publish(replace(view, wall=4_070_908_801.0))
    async with asyncio.timeout(15):
        while parts.schedule.published is not None or desk.wishes:
            await asyncio.sleep(0.01)
    assert [kind for kind, _ in wishes] == (["restart"] if happens else [])


@pytest.mark.parametrize(
    ("view", "body", "status", "text"),
    [
        (a_view("b"), None, 200, "reinitialize started"),
        (a_view("b"), {"force": True, "from-leader": True}, 200, "reinitialize started"),
        (a_view("a"), {}, 503, "I am the leader, can not reinitialize"),
        (a_view("b", cluster=a_cluster(None)), {}, 503, "Cluster has no leader, can not reinitialize"),
        (a_view("b", job=Job("clone", NOW)), {}, 503, "clone is in progress already; force cancels what is under way"),
        (a_view("b", job=Job("clone", NOW)), {"force": True}, 200, "reinitialize started"),
        (a_view("b"), {"force": "maybe"}, 400, "force: "),
    ],
)
async def test_a_replica_is_cloned_anew_and_a_leader_never(view: View, body: object, status: int, text: str) -> None:
    desk = a_desk(view)
    wishes = carried_out(desk, True, "")
    reply = await call(desk, "POST", "/reinitialize", body)
    assert reply.status == status
    assert text in reply.text
    if body == {"force": True, "from-leader": True}:
        assert wishes == [("reinitialize", {"force": True, "from_leader": True})]


async def test_the_agents_own_refusal_of_a_reinitialize_is_passed_on() -> None:
    desk = a_desk(a_view("b"))
    carried_out(desk, False, "this node is a voter")
    reply = await call(desk, "POST", "/reinitialize")
    assert (reply.status, reply.text) == (503, "this node is a voter")


async def test_reload_says_what_changed_or_what_is_wrong() -> None:
    desk = a_desk(a_view())
    reply = await call(desk, "POST", "/reload")
    assert (reply.status, reply.text) == (202, "nothing changed")

    async def refuse() -> str:
        raise ConfigError(["ttl: too short", "scope: missing"])

    desk.reload_file = refuse
    reply = await call(desk, "POST", "/reload")
    assert reply.status == 400
    assert "ttl: too short\nscope: missing" in reply.text


# ---- the dynamic configuration ---------------------------------------------------------------------------------------------------


def configured(**more: Any) -> View:
    return a_view(cluster=a_cluster(config=CONFIG, **more))


async def test_a_patch_is_merged_checked_and_written_against_the_revision_that_was_read() -> None:
    desk = a_desk(configured())
    written = recording(desk)
    reply = await call(desk, "PATCH", "/config", {"loop_wait": None, "maximum_lag_on_failover": 5})

    wanted = {"ttl": 10, "retry_timeout": 3, "maximum_lag_on_failover": 5}
    assert (reply.status, json.loads(reply.body)) == (200, wanted)
    assert written[0].when[0].mod_revision == 5
    assert json.loads(getattr(written[0].then[0], "value", "")) == wanted


async def test_a_patch_that_changes_nothing_writes_nothing() -> None:
    desk = a_desk(configured())
    written = recording(desk)
    assert (await call(desk, "PATCH", "/config", {"ttl": 10})).status == 200
    assert written == []


async def test_put_replaces_the_whole_also_what_was_missing() -> None:
    desk = a_desk(a_view(cluster=a_cluster(config=None, config_revision=0)))
    written = recording(desk)
    assert (await call(desk, "PATCH", "/config", {"ttl": 20})).status == 503
    assert (await call(desk, "PUT", "/config", {"ttl": 20})).status == 200
    assert json.loads(getattr(written[0].then[0], "value", "")) == {"ttl": 20}


async def test_every_mistake_of_a_patch_is_told() -> None:
    reply = await call(a_desk(configured()), "PATCH", "/config", {"ttl": "long", "synchronous_mode": "maybe"})
    assert reply.status == 400
    assert "ttl" in reply.text
    assert "synchronous_mode" in reply.text


@pytest.mark.parametrize(("outcome", "status"), [(Outcome.REFUSED, 409), (Outcome.UNKNOWN, 503)])
async def test_a_config_that_was_not_written_is_not_called_so(outcome: Outcome, status: int) -> None:
    reply = await call(a_desk(configured(), outcome=outcome), "PATCH", "/config", {"ttl": 20})
    assert reply.status == status


@pytest.mark.parametrize(
    ("method", "path"), [("PATCH", "/config"), ("PUT", "/config"), ("POST", "/switchover"), ("POST", "/failover"), ("POST", "/restart")]
)
@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"[1]", 400), (b'"ttl"', 400), (b"\xff\xfe", 400), (b"[" * 100_000, 400), (b"", 411)]
)
async def test_a_body_that_is_no_object_is_refused_with_a_text(method: str, path: str, body: bytes, status: int) -> None:
    desk = a_desk(configured())
    carried_out(desk, True, "")
    reply = await call(desk, method, path, body)
    assert reply.status == (200 if path == "/restart" and not body else status)
    assert reply.body


@pytest.mark.parametrize("path", ["/switchover", "/restart", "/reinitialize", "/config"])
async def test_an_agent_that_knows_nothing_yet_asks_for_patience(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ETCD_S", 0.05)
    method = "PATCH" if path == "/config" else "POST"
    assert (await call(a_desk(None), method, path, {"leader": "a"})).status == 503


async def test_one_tick_without_etcd_is_waited_out() -> None:
    desk = a_desk(silent_etcd(configured()))
    waiting = asyncio.create_task(call(desk, "PATCH", "/config", {"ttl": 20}))
    await asyncio.sleep(0)
    desk.publish(configured())
    assert (await waiting).status == 200


async def test_the_requests_arrive_over_http() -> None:
    desk = a_desk(a_view("b", a_standby(), cluster=a_cluster(config=CONFIG)))
    carried_out(desk, True, "")
    recording(desk)
    async with serving(desk) as api:
        assert (await ask(api, "POST", "/restart"))[0] == 200
        assert (await ask(api, "POST", "/reinitialize", body="{}"))[0] == 200
        assert (await ask(api, "PATCH", "/config", body='{"ttl": 20}'))[0] == 200
        assert (await ask(api, "PATCH", "/config"))[0] == 411
        assert (await ask(api, "POST", "/switchover", body="no"))[0] == 400
        assert (await ask(api, "DELETE", "/restart"))[0] == 404
        assert api.scheduled_restart is None
