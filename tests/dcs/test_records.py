"""Keys and values: Patroni's formats to the letter, everything round trips, and nothing that anybody writes can raise."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivha.dcs import records
from rivha.dcs.base import KeyValue, Reading
from rivha.model import Cluster, FailoverRequest, HistoryLine, LeaderKey, Member, Pledge, Resignation, SyncState


def reading(**values: str) -> Reading:
    """`members__a="{}"` is the key `members/a`; revisions count from 11, leases are 5."""
    items = [KeyValue(key.replace("__", "/"), value, 11 + n, 11 + n, 5) for n, (key, value) in enumerate(values.items())]
    return Reading(99, tuple(items))


def one(key: str, value: str) -> Cluster:
    return records.cluster(Reading(99, (KeyValue(key, value, 11, 11, 5),)))


# ---- formats


def test_nothing_at_all_is_an_empty_cluster() -> None:
    assert records.cluster(Reading(7, ())) == Cluster(revision=7)


def test_a_cluster_as_patroni_writes_it() -> None:
    c = records.cluster(
        reading(
            initialize="7390000000000000001",
            config='{"ttl":30,"loop_wait":10,"synchronous_mode":"quorum","postgresql":{"parameters":null}}',
            leader="pg1",
            status='{"optime":67108960,"slots":{"pg2":67108960,"pg1":67108900},"retain_slots":["pg1","pg2"]}',
            sync='{"leader":"pg1","quorum":0,"sync_standby":"pg2"}',
            failover='{"leader":"pg1","member":"pg2","scheduled_at":"2026-01-01T10:00:00+00:00"}',
            history='[[1,25623960,"no recovery target specified"],[2,25624000,"x","2026-01-01T10:00:00+00:00","pg1"]]',
            members__pg2='{"conn_url":"postgres://10.0.0.2:5432/postgres","api_url":"http://10.0.0.2:8008/patroni","state":"running",'
            '"role":"replica","version":"4.1.5","tags":{"clonefrom":true,"failover_priority":2,"zone":"b"},"xlog_location":67108960,'
            '"receive_lsn":67108960,"replay_lsn":67108900,"replication_state":"streaming","timeline":2,"pause":true,'
            '"pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"200"}},'
            '"scheduled_restart":{"schedule":"2026-01-02T00:00:00+00:00"}}',
            members__pg1='{"conn_url":"postgres://10.0.0.1:5432/postgres","role":"master","state":"running","xlog_location":67108960,'
            '"checkpoint_after_promote":false,"timeline":2}',
            failsafe='{"pg1":"http://10.0.0.1:8008/patroni"}',
        )
    )

    assert c.complaints == ()
    assert (c.initialize, c.initialize_revision) == ("7390000000000000001", 11)
    assert c.config == {"ttl": 30, "loop_wait": 10, "synchronous_mode": "quorum", "postgresql": {"parameters": None}}
    assert c.leader == LeaderKey("pg1", 5, 13)
    assert (c.optime, c.slots, c.retain_slots) == (67108960, {"pg2": 67108960, "pg1": 67108900}, ("pg1", "pg2"))
    assert c.sync == SyncState("pg1", frozenset({"pg2"}), 0, 15)
    assert c.failover == FailoverRequest("pg1", "pg2", "2026-01-01T10:00:00+00:00", 16)
    assert c.history == (
        HistoryLine(1, 25623960, "no recovery target specified"),
        HistoryLine(2, 25624000, "x", "2026-01-01T10:00:00+00:00", "pg1"),
    )
    pg1, pg2 = c.members
    assert (pg1.name, pg1.role, pg1.checkpoint_after_promote, pg1.api_url) == ("pg1", "primary", False, "")
    assert (pg2.tags, pg2.paused, pg2.replication_state) == ({"clonefrom": True, "failover_priority": 2, "zone": "b"}, True, "streaming")
    assert pg2.pending_restart == {"max_connections": ("100", "200")}
    assert pg2.scheduled_restart == {"schedule": "2026-01-02T00:00:00+00:00"}


def test_what_we_write_is_what_patroni_would() -> None:
    assert records.sync_text("pg1", {"pg3", "pg2"}, 1) == '{"leader":"pg1","sync_standby":"pg2,pg3","quorum":1}'
    assert records.sync_text("pg1") == '{"leader":"pg1","sync_standby":null,"quorum":0}'
    assert records.status_text(42, {"pg2": 41}, {"pg2", "pg1"}) == '{"optime":42,"slots":{"pg2":41},"retain_slots":["pg1","pg2"]}'
    assert records.status_text(42, {}) == '{"optime":42}'
    assert records.failover_text("pg1", None, None) == '{"leader":"pg1"}'
    assert records.failover_text(None, "pg2", "2026-01-01T10:00:00+00:00") == '{"member":"pg2","scheduled_at":"2026-01-01T10:00:00+00:00"}'
    lines = [HistoryLine(1, 7, "r"), HistoryLine(2, 8, "s", "t"), HistoryLine(3, 9, "u", "v", "pg1")]
    assert records.history_text(lines) == '[[1,7,"r"],[2,8,"s","t"],[3,9,"u","v","pg1"]]'


def test_a_members_tags_are_sorted_and_keep_their_types_and_unknown_things_are_left_out() -> None:
    member = Member(
        "pg1", "replica", "running", "postgres://h:5432/postgres", "http://h:8008/patroni", "1.0", tags={"z": 1.5, "a": "1", "m": True}
    )

    assert records.member_text(member) == (
        '{"conn_url":"postgres://h:5432/postgres","api_url":"http://h:8008/patroni","state":"running","role":"replica","version":"1.0",'
        '"tags":{"a":"1","m":true,"z":1.5}}'
    )


def test_a_finished_checkpoint_is_not_mentioned_and_an_unfinished_one_is_false() -> None:
    assert "checkpoint_after_promote" not in records.member_text(Member("a", checkpoint_after_promote=True))
    assert json.loads(records.member_text(Member("a", checkpoint_after_promote=False)))["checkpoint_after_promote"] is False


# ---- what older Patronis and people write


def test_integers_as_texts_and_the_optime_of_old() -> None:
    assert one("sync", '{"leader":"a","sync_standby":"b","quorum":"1"}').sync == SyncState("a", frozenset("b"), 1, 11)
    assert one("status", '{"optime":"42","slots":{"a":"41"}}').slots == {"a": 41}
    assert one("status", "42").optime == 42
    assert one("optime/leader", "42").optime == 42
    assert records.cluster(reading(optime__leader="42", status='{"optime":43}')).optime == 43
    assert one("members/a", '{"timeline":"3","xlog_location":"42"}').members[0].xlog_location == 42


def test_no_voters_is_written_in_two_ways() -> None:
    for nobody in ("null", '""'):
        sync = one("sync", f'{{"leader":"a","sync_standby":{nobody}}}').sync
        assert sync == SyncState("a", frozenset(), 0, 11)


def test_an_empty_request_is_none_but_its_revision_is_known() -> None:
    """Patroni leaves `{}` behind: the next request must compare with that revision, not with absence."""
    c = one("failover", "{}")

    assert (c.failover, c.failover_revision, c.complaints) == (None, 11, ())


def test_whose_claim_an_unfinished_bootstrap_is() -> None:
    c = one("initialize", "")

    assert (c.initialize, c.initialize_revision, c.initialize_lease_id) == ("", 11, 5)


# ---- what nobody should have written


@pytest.mark.parametrize(
    "value",
    ["", "null", "[]", "{}", "garbage", '"a"', '{"leader":"a"}', '{"leader":"a","sync_standby":["b"]}', '{"leader":1,"sync_standby":"b"}',
     '{"leader":"a","sync_standby":"b","quorum":-1}', '{"leader":"a","sync_standby":"b","quorum":true}', '{"sync_standby":null}'],
)  # fmt: skip
def test_a_sync_that_cannot_be_read_is_not_one_without_voters(value: str) -> None:
    c = one("sync", value)

    assert c.sync is None
    assert len(c.complaints) == 1
    assert c.complaints[0].startswith("sync: ")


def test_a_leader_key_without_a_name_is_still_a_leader_key() -> None:
    c = one("leader", "")

    assert c.leader == LeaderKey("", 5, 11)
    assert c.complaints == ("leader: names nobody",)


def test_a_member_that_writes_garbage_is_known_by_name() -> None:
    c = one("members/a", "garbage")

    assert c.members == (Member("a", lease_id=5, revision=11),)
    assert c.complaints[0].startswith("members/a: is not JSON")


def test_a_members_bad_field_spoils_only_itself_and_is_named() -> None:
    c = one("members/a", '{"timeline":-1,"state":"running","tags":[1],"xlog_location":1.5,"conn_url":3}')

    assert c.members == (Member("a", state="running", lease_id=5, revision=11),)
    assert [complaint.split(" should")[0] for complaint in c.complaints] == [
        "members/a: conn_url:",
        "members/a: timeline:",
        "members/a: xlog_location:",
        "members/a: tags:",
    ]


def test_a_pledge_that_lacks_something_is_no_pledge_and_is_complained_about() -> None:
    c = one("rivha/pledges/a", '{"term":1,"lsn":2}')

    assert (c.pledges, c.complaints) == ((), ("rivha/pledges/a: lacks 'timeline'",))


def test_an_unreadable_config_or_history_keeps_its_revision() -> None:
    for key, revision in (("config", "config_revision"), ("history", "history_revision"), ("status", "status_revision")):
        c = one(key, "[[[")
        assert getattr(c, revision) == 11
        assert c.complaints[0].startswith(f"{key}: ")


KEYS = st.sampled_from(
    ["initialize", "config", "leader", "status", "optime/leader", "sync", "failover", "history", "members/a", "members/", "members/b/c",
     "rivha/pledges/a", "rivha/pledges/", "rivha/resigned", "failsafe", "?"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["leader", "sync_standby", "quorum", "optime", "slots", "retain_slots", "term", "timeline", "lsn", "tags", "state", "role", "member",
     "scheduled_at", "candidate", "reason", "pending_restart_reason", "scheduled_restart", "pause", "old_value"]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=6))
VALUES = JSON.map(json.dumps) | st.text() | st.just("[" * 100_000) | st.just("1" * 5000) | st.just('{"a":NaN}')


@given(st.dictionaries(KEYS, VALUES))
def test_nothing_that_anybody_writes_raises_and_nothing_unreadable_passes_for_absent(values: dict[str, str]) -> None:
    c = records.cluster(Reading(99, tuple(KeyValue(key, value, 11, 11, 5) for key, value in values.items())))

    complained = {key for key in values if any(text.startswith(f"{key}: ") for text in c.complaints)}
    assert (c.leader is not None) == ("leader" in values)
    assert (c.initialize is not None) == ("initialize" in values)
    assert (c.sync is not None or "sync" in complained) == ("sync" in values)
    assert ("rivha/pledges/a" in values) == (c.pledge("a") is not None or "rivha/pledges/a" in complained)
    assert {member.name for member in c.members} == {
        key.removeprefix("members/") for key in values if key.startswith("members/") and len(key) > 8
    }


# ---- round trips

NAMES = st.text(st.characters(codec="utf-8", exclude_characters=", "), min_size=1, max_size=12).filter(lambda name: name.strip() == name)
LSNS = st.integers(0, (1 << 64) - 1)
TEXTS = st.text(max_size=10)
MEMBERS = st.builds(
    Member,
    name=st.just("a"),
    role=st.sampled_from(["primary", "replica", "demoted", "uninitialized"]),
    state=st.text(min_size=1, max_size=10),
    conn_url=TEXTS,
    api_url=TEXTS,
    version=TEXTS,
    timeline=st.none() | st.integers(0, 1 << 31),
    xlog_location=st.none() | LSNS,
    receive_lsn=st.none() | LSNS,
    replay_lsn=st.none() | LSNS,
    replication_state=st.none() | TEXTS,
    tags=st.dictionaries(TEXTS, st.booleans() | st.integers() | TEXTS, max_size=4),
    pending_restart=st.dictionaries(TEXTS, st.tuples(TEXTS, TEXTS), max_size=3),
    paused=st.booleans(),
    checkpoint_after_promote=st.none() | st.just(False),
    scheduled_restart=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=2),
    lease_id=st.just(5),
    revision=st.just(11),
)


@given(MEMBERS)
def test_a_member_comes_back_as_it_was_written(member: Member) -> None:
    assert one("members/a", records.member_text(member)).members == (member,)


@given(st.none() | NAMES, st.frozensets(NAMES, max_size=4), st.integers(0, 9))
def test_sync_comes_back_as_it_was_written(leader: str | None, voters: frozenset[str], quorum: int) -> None:
    assert one("sync", records.sync_text(leader, voters, quorum)).sync == SyncState(leader, voters, quorum, 11)


@given(LSNS, st.dictionaries(NAMES, LSNS, max_size=3), st.frozensets(NAMES, max_size=3))
def test_status_comes_back_as_it_was_written(optime: int, slots: dict[str, int], retained: frozenset[str]) -> None:
    c = one("status", records.status_text(optime, slots, retained))
    assert (c.optime, c.slots, c.retain_slots) == (optime, slots, tuple(sorted(retained)))


@given(st.lists(st.builds(HistoryLine, st.integers(1, 99), LSNS, TEXTS, TEXTS, TEXTS), max_size=4))
def test_history_comes_back_as_it_was_written(lines: list[HistoryLine]) -> None:
    assert one("history", records.history_text(lines)).history == tuple(lines)


@given(st.integers(0, 1 << 62), st.integers(1, 99), LSNS)
def test_a_pledge_comes_back_as_it_was_written(term: int, timeline: int, lsn: int) -> None:
    pledge = Pledge("a", term, timeline, lsn)
    assert one("rivha/pledges/a", records.pledge_text(pledge)).pledges == (replace(pledge, revision=11),)


@given(st.builds(Resignation, st.integers(1, 1 << 62), NAMES, st.none() | NAMES, LSNS, TEXTS))
def test_a_resignation_comes_back_as_it_was_written(resignation: Resignation) -> None:
    assert one("rivha/resigned", records.resignation_text(resignation)).resigned == replace(resignation, revision=11)


@given(st.none() | NAMES, st.none() | NAMES, st.none() | st.text(min_size=1))
def test_a_failover_request_comes_back_as_it_was_written(leader: str | None, candidate: str | None, at: str | None) -> None:
    expected = FailoverRequest(leader, candidate, at, 11) if leader or candidate else None
    assert one("failover", records.failover_text(leader, candidate, at)).failover == expected


@given(st.dictionaries(TEXTS, JSON, max_size=4))
def test_a_config_comes_back_as_it_was_written(config: dict[str, object]) -> None:
    text = records.config_text(config)
    assert records.config_text(one("config", text).config or {}) == text  # as texts: NaN is not itself
