"""The dynamic configuration in force: what a cluster begins with, and that what vanishes from etcd changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping

from rivha.agent.dynamic import Dynamic
from rivha.postgres.server import Server
from rivha.postgres.settings import PostgresSettings
from tests.sim.postgres import SimPostgres
from tests.sim.world import World


class Node:
    """A configuration over the model of a Postgres; `kept` is its copy on disk."""

    def __init__(self, bootstrap: Mapping[str, object], cached: Mapping[str, object] | None = None) -> None:
        self.world = World(1)
        self.kept: object = None
        self.dynamic = Dynamic({}, bootstrap, SimPostgres(self.world.instances["db1"]), cached, self._keep)

    async def _keep(self, text: str) -> None:
        self.kept = json.loads(text)

    def make_the_cluster(self) -> None:
        self.world.loop.run_until_complete(self.dynamic.apply_first())
        self.world.loop.close()


def test_a_new_cluster_is_synchronous_and_its_configuration_says_so():
    node = Node({"ttl": 20})
    assert node.dynamic.policy.synchronous_mode == "off", "it might be one that exists: its configuration has not been seen"
    node.make_the_cluster()
    assert node.dynamic.shared == node.kept == {"synchronous_mode": "quorum", "ttl": 20}
    assert node.dynamic.policy.synchronous_mode == "quorum"


def test_an_operator_who_asked_for_another_mode_gets_it():
    node = Node({"synchronous_mode": "off"})
    node.make_the_cluster()
    assert node.dynamic.shared == {"synchronous_mode": "off"}


def test_a_configuration_that_is_in_etcd_already_stays_as_it_is():
    node = Node({"ttl": 20})
    node.dynamic.heard({"ttl": 30})
    node.make_the_cluster()
    assert node.dynamic.shared == {"ttl": 30}
    assert node.dynamic.policy.synchronous_mode == "off"


def test_a_key_that_vanishes_changes_nothing():
    node = Node({"ttl": 20}, cached={"ttl": 40})
    node.dynamic.heard(None)
    assert node.dynamic.policy.ttl_s == 40
    node.dynamic.heard({"ttl": 30})
    node.dynamic.heard(None)
    assert node.dynamic.policy.ttl_s == 30
    node.world.loop.close()


def test_a_start_before_etcd_has_answered_goes_by_what_was_known_last():
    """An agent that comes back while etcd is silent: a primary of other sizes than its standbys' would stop their replay (HAZARDS D 66)."""
    server = Server(PostgresSettings("db1", "test", "/nowhere/data"), clock=lambda: 0.0)
    Dynamic({}, {}, server, {"postgresql": {"parameters": {"max_connections": 57}}}, keep=_forget)
    assert server._parts.conf.forced(None)["max_connections"] == "57"


def test_a_size_that_is_none_leaves_the_last_one_in_force():
    """Past rivhactl and the API only: a key written with etcdctl. It became PostgreSQL's default, and a restart had run with that."""

    def sizes(**given: object) -> dict[str, object]:
        return {"postgresql": {"parameters": given}}

    node = Node(sizes(max_connections=300, work_mem="1MB"))
    node.dynamic.heard(sizes(MAX_connections="abc", max_prepared_transactions="many", max_wal_senders=12))
    assert node.dynamic.effective == sizes(max_connections=300, max_wal_senders=12), "what never was a number is its default"
    assert [text.partition(":")[0].rpartition(".")[2] for text in node.dynamic._complaints] == [
        "MAX_connections",
        "max_prepared_transactions",
    ]
    node.dynamic.heard(sizes(max_connections=400))
    assert node.dynamic.effective == sizes(max_connections=400)
    node.world.loop.close()


async def _forget(_: str) -> None:
    return
