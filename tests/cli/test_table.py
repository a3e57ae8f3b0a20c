"""What is printed, character for character."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from rivha.cli.config import notes
from rivha.cli.loss import in_bytes, in_seconds, of_the_old_leader
from rivha.cli.story import changes, is_whole
from rivha.cli.table import described, footer, member_rows, rendered, titled
from rivha.model import Cluster, FailoverRequest, Pledge, Resignation, SyncState
from tests.api.views import END, MB, a_cluster, a_member, voters

MEMBERS = (
    a_member("a", role="primary"),
    a_member("b", receive_lsn=END, replay_lsn=END - 3 * MB),
    a_member("c", state="creating replica", replication_state=None, xlog_location=None, timeline=None),
)
CLUSTER = a_cluster(members=MEMBERS)


def table(cluster: Cluster, fmt: str = "pretty", *, extended: bool = False) -> str:
    columns, rows = member_rows(described(cluster, "demo"), extended=extended, topology=fmt == "topology")
    return rendered(fmt, columns, rows, titled(cluster, "demo"))


def test_the_table_is_patronis() -> None:
    assert table(CLUSTER) == "\n".join(
        [
            "+ Cluster: demo (7277694203142172922) -------------+----+-------------+---------+------------+---------+",
            "| Member | Host       | Role    | State            | TL | Receive LSN |     Lag | Replay LSN |     Lag |",
            "+--------+------------+---------+------------------+----+-------------+---------+------------+---------+",
            "| a      | 127.0.0.97 | Leader  | running          |  3 |             |         |            |         |",
            "| b      | 127.0.0.98 | Replica | streaming        |  3 | 0/3000060   |       0 | 0/2D00060  |       3 |",
            "| c      | 127.0.0.99 | Replica | creating replica |    | unknown     | unknown | unknown    | unknown |",
            "+--------+------------+---------+------------------+----+-------------+---------+------------+---------+",
        ]
    )


def test_the_other_formats_carry_the_cluster_and_leave_out_what_is_empty() -> None:
    a, b, _ = json.loads(table(CLUSTER, "json"))
    assert a == {"Cluster": "demo", "Member": "a", "Host": "127.0.0.97", "Role": "Leader", "State": "running", "TL": 3}
    assert (b["Receive LSN"], b["Receive Lag"], b["Replay Lag"]) == ("0/3000060", 0, 3)
    assert yaml.safe_load(table(CLUSTER, "yaml")) == json.loads(table(CLUSTER, "json"))
    head, first, *_ = table(CLUSTER, "tsv").split("\n")
    assert head.split("\t")[:3] == ["Cluster", "Member", "Host"]
    assert first.split("\t")[:3] == ["demo", "a", "127.0.0.97"]


def test_rarer_columns_appear_when_there_is_something_in_them() -> None:
    assert "Tags" not in table(CLUSTER)
    assert "Tags" in table(CLUSTER, extended=True)
    member = a_member("b", tags={"clonefrom": True}, pending_restart={"max_connections": ("100", "200")})
    scheduled = a_member("c", scheduled_restart={"schedule": "2030-01-01T00:00:00+00:00", "role": "replica"})
    text = table(a_cluster(members=(MEMBERS[0], member, scheduled)))
    assert '{"clonefrom": true}' in text
    assert "max_connections: 100->200" in text
    assert "2030-01-01T00:00:00+00:00 (role: replica)" in text


def test_ports_are_shown_where_hosts_alone_do_not_tell_members_apart() -> None:
    members = tuple(a_member(n, conn_url=f"postgres://10.0.0.1:{5432 + i}/postgres") for i, n in enumerate("ab"))
    assert "10.0.0.1:5433" in table(a_cluster(members=members))


def test_roles_of_synchronous_standbys_are_told() -> None:
    cluster = a_cluster(members=MEMBERS, sync=voters("b"), config={"synchronous_mode": True})
    assert "Sync Standby" in table(cluster)
    assert "Quorum Standby" in table(a_cluster(members=MEMBERS, sync=voters("b"), config={"synchronous_mode": "quorum"}))


@pytest.mark.parametrize("source", ["b", "d", "nobody"])
def test_the_topology_is_a_tree_that_loses_nobody(source: str) -> None:
    members = (*MEMBERS[:2], a_member("c", tags={"replicatefrom": source}), a_member("d", tags={"replicatefrom": "c"}))
    text = table(a_cluster(members=members), "topology")
    names = [line.split("|")[1].rstrip() for line in text.split("\n") if line.startswith("|")][1:]
    assert sorted(name.strip(" +") for name in names) == ["a", "b", "c", "d"]
    if source == "b":
        assert names == [" a", " + b", "   + c", "     + d"]


def test_the_footer_tells_what_concerns_the_whole_cluster() -> None:
    request = FailoverRequest("a", "b", "2030-01-01T00:00:00+00:00", 3)
    cluster = a_cluster(None, MEMBERS, failover=request, config={"pause": True}, complaints=("sync: is not JSON",))
    assert footer(described(cluster, "demo") | {"reason": "b ranks first"}) == [
        " Maintenance mode: on",
        " Switchover scheduled at: 2030-01-01T00:00:00+00:00",
        "                    from: a",
        "                    to: b",
        " Not readable in etcd: sync: is not JSON",
        " Nobody leads: b ranks first",
    ]


def test_the_footer_tells_why_each_member_does_not_take_over() -> None:
    members = (
        a_member("b", problem="not eligible: 1 of 2 needed pledges, waiting for c"),
        a_member("d", problem="not eligible: not a voter"),
    )
    assert footer(described(a_cluster(None, members), "demo")) == [
        " b: not eligible: 1 of 2 needed pledges, waiting for c",
        " d: not eligible: not a voter",
    ]


@pytest.mark.parametrize(
    ("config", "sync", "text"),
    [
        ({"synchronous_mode": "quorum"}, voters("b"), ""),
        ({"synchronous_mode": "quorum"}, voters(), "what a acknowledges now only a holds, and nobody else may lead"),
        ({"synchronous_mode": "on"}, None, "there is no synchronous standby"),
        ({"synchronous_mode": "on", "synchronous_mode_strict": True}, voters(), "commits wait"),
        ({}, voters(), ""),
    ],
)
def test_a_synchronous_cluster_without_a_voter_says_what_that_means(config: dict[str, object], sync: SyncState | None, text: str) -> None:
    lines = footer(described(a_cluster(members=MEMBERS, sync=sync, config=config), "demo"))
    assert [line.startswith(" Degraded: ") and text in line for line in lines] == ([True] if text else [])
    assert footer(described(a_cluster(None, MEMBERS, sync=sync, config=config), "demo")) == []


STRICT = {"synchronous_mode_strict": True}
AWAY = (MEMBERS[0], a_member("b", state="stopped", replication_state=None), a_member("c", replication_state=None))


@pytest.mark.parametrize(
    ("config", "sync", "members", "text"),
    [
        (STRICT, voters("b", "c", quorum=1), AWAY, "none of b, c confirms them, and synchronous_mode_strict is on"),
        (STRICT, voters("d"), AWAY, "d does not confirm them, and synchronous_mode_strict is on"),
        ({}, voters("b", "c", quorum=1), AWAY, "none of b, c confirms them; who is away for degrade_after (2 s) is left out then"),
        ({}, voters("b", "c"), MEMBERS, "only b of b, c confirms them, and 2 must; who is away for degrade_after (2 s) is left out then"),
        (STRICT, voters("b", "c", quorum=1), MEMBERS, ""),
        (STRICT, voters("b", "c", quorum=1), (a_member("a", role="primary", state="starting"), *AWAY[1:]), ""),
        ({"synchronous_mode": "off"}, voters("b", "c"), AWAY, ""),
    ],
)
def test_commits_that_wait_for_standbys_that_are_away_are_told(config: dict[str, object], sync: SyncState, members: Any, text: str) -> None:
    lines = footer(described(a_cluster(members=members, sync=sync, config={"synchronous_mode": "quorum", **config}), "demo"))
    assert lines == ([f" Degraded: commits seem to wait: {text}"] if text else [])


def test_who_holds_the_commits_is_not_guessed_when_it_cannot_be_read() -> None:
    cluster = a_cluster(members=MEMBERS, config={"synchronous_mode": "quorum"}, complaints=("sync: is not JSON",))
    assert footer(described(cluster, "demo"))[0] == " Degraded: who holds the commits cannot be read: sync: is not JSON"


@pytest.mark.parametrize(
    ("old", "new", "members", "texts"),
    [
        ({}, {"synchronous_mode": "on", "synchronous_mode_strict": True}, MEMBERS[:1], ["every commit will wait"]),
        ({}, {"synchronous_mode": "on", "synchronous_mode_strict": True}, MEMBERS, []),
        ({}, {"synchronous_mode_strict": True}, MEMBERS, ["has no effect while synchronous_mode is off"]),
        ({"synchronous_mode_strict": True}, {"synchronous_mode_strict": True, "ttl": 20}, MEMBERS, []),
    ],
)
def test_an_edit_is_told_what_it_will_not_do(old: dict[str, object], new: dict[str, object], members: Any, texts: list[str]) -> None:
    found = notes(old, new, a_cluster(members=members))
    assert len(found) == len(texts)
    assert all(text in note for text, note in zip(texts, found, strict=True))


# ---- what a failover may cost


@pytest.mark.parametrize(
    ("cluster", "text"),
    [
        (a_cluster(None, (a_member("b"),)), "only what the leader wrote since it published that can be lost"),
        (a_cluster(None, (a_member("b"),), optime=END + 3 * MB), f"{3 * MB} bytes (3.0 MB) are lost"),
        (a_cluster("a", (a_member("a", role="primary", xlog_location=END + 7), a_member("b"))), "7 bytes (0.0 MB) are lost"),
        (a_cluster(None, (a_member("b", xlog_location=None),)), "not known: b has published no position"),
        (a_cluster(None, (a_member("b"),), optime=0), "not known: the leader has published no position"),
    ],
)
def test_what_a_failover_may_cost_is_told_in_bytes(cluster: Cluster, text: str) -> None:
    member = cluster.member("b")
    assert member is not None
    assert text in in_bytes(cluster, member)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ('{"xlog": {"replayed_timestamp": "2026-07-01 10:00:00.5+00"}, "dcs_last_seen": 1782900012}', "b has applied is 12 s old"),
        ('{"xlog": {"replayed_timestamp": null}, "dcs_last_seen": 1782900012}', "is not known"),
        ('{"xlog": {"location": 5}}', "is not known"),
        ("[]", "is not known"),
        ("", "is not known"),
    ],
)
def test_what_a_failover_may_cost_is_told_in_seconds(answer: str, text: str) -> None:
    assert text in in_seconds("b", answer)


def test_who_accepts_a_loss_is_told_of_the_node_that_may_alone_hold_it() -> None:
    gone = of_the_old_leader(a_cluster(None, MEMBERS, sync=voters("b")), "c")
    assert gone[0].startswith("Make sure that a is down, and stays down until it reaches etcd again")
    assert gone[1].startswith("The data directory of a is rewound when its agent starts, or follows: copy it before")
    assert of_the_old_leader(a_cluster(None, MEMBERS, sync=voters("b")), "a") == []
    assert "Make sure that whoever led last is down" in of_the_old_leader(a_cluster(None, MEMBERS), "c")[0]
    assert of_the_old_leader(a_cluster(None, MEMBERS, sync=voters("b")), "nobody") == []
    alive = of_the_old_leader(a_cluster(members=MEMBERS, sync=voters("b")), "c")
    assert alive[0].startswith("a is demoted if it reaches etcd. If it does not, make sure that a is down")


def test_an_empty_table_is_a_table() -> None:
    assert rendered("pretty", ("TL", "LSN"), []) == "+----+-----+\n| TL | LSN |\n+----+-----+"


# ---- the story


def test_every_step_of_a_failover_is_told() -> None:
    before = a_cluster(members=(MEMBERS[0], a_member("b"), a_member("c")))
    gone = a_cluster(None, before.members[1:], resigned=Resignation(90, "a"), pledges=(Pledge("b", 90, 3, END),))
    promoted = (a_member("b", role="primary", timeline=4), a_member("c", timeline=4))
    after = a_cluster("b", promoted)

    assert list(changes(before, gone)) == [
        "a has stopped its Postgres and resigns",
        "b stands for election (timeline 3, 0/3000060)",
        "a gave the leadership back",
        "a is gone from etcd",
    ]
    assert list(changes(gone, after)) == ["b is the leader", "b: replica streaming -> primary running"]
    assert list(changes(after, after)) == []


def test_a_cluster_is_whole_when_all_stream_from_a_leader_that_takes_writes() -> None:
    assert is_whole(a_cluster())
    assert not is_whole(a_cluster(None))
    assert not is_whole(CLUSTER)
    assert not is_whole(a_cluster("b", MEMBERS[:2]))
    assert not is_whole(a_cluster(members=(MEMBERS[0], a_member("b", timeline=2))))
