"""What members, leaders and operators write beside leadership, against a store that has moved on since; and merged transactions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivha.dcs import writes
from rivha.dcs.base import Delete, Put, Txn, Unchanged
from rivha.model import Cluster, HistoryLine, Member
from tests.dcs.store import A_LEASE, SYSTEM, Store

# ---- what is published


def test_a_member_publishes_itself_on_its_own_lease(store: Store) -> None:
    store.commit(writes.publish_member(Member("b", state="running", timeline=3), 55))

    (member,) = store.cluster().members
    assert (member.name, member.timeline, member.lease_id) == ("b", 3, 55)


@pytest.mark.parametrize("build", [lambda c: writes.publish_status(c, 9, {}), lambda c: writes.put_history(c, [HistoryLine(1, 2, "r")])])
def test_only_the_leader_of_the_term_speaks_for_the_cluster(store: Store, build: Callable[[Cluster], Txn]) -> None:
    c = store.cluster()
    assert store.commit(build(c))
    c = store.cluster()
    store.expire(A_LEASE)
    assert not store.commit(build(c))
    with pytest.raises(AssertionError):
        build(store.cluster())


def test_what_vanished_is_restored_and_what_is_there_is_left_alone(store: Store) -> None:
    assert writes.restore(store.cluster(), SYSTEM, {"ttl": 1}).then == ()
    store.commit(Txn((), (Delete("config"), Delete("initialize"))))
    c = store.cluster()

    assert store.commit(writes.restore(c, SYSTEM, {"ttl": 10}))
    assert (store.cluster().initialize, store.cluster().config) == (SYSTEM, {"ttl": 10})
    assert not store.commit(writes.restore(c, SYSTEM, {"ttl": 10}))


def test_an_unreadable_config_is_the_operators_to_mend(store: Store) -> None:
    store.put("config", "garbage")
    assert writes.restore(store.cluster(), SYSTEM, {"ttl": 10}).then == ()


# ---- operators


@pytest.mark.parametrize(
    "build", [lambda c: writes.put_config(c, {"ttl": 5}), lambda c: writes.file_failover(c, "a", "b", None), writes.clear_failover]
)
def test_of_two_operators_at_once_the_second_is_refused(store: Store, build: Callable[[Cluster], Txn]) -> None:
    store.commit(writes.file_failover(store.cluster(), "a", None, None))
    c = store.cluster()
    assert store.commit(build(c))
    assert not store.commit(build(c))


@pytest.mark.parametrize("left_behind", ["{}", "garbage"])
def test_a_request_can_follow_what_patroni_or_an_accident_left_behind(store: Store, left_behind: str) -> None:
    store.put("failover", left_behind)
    assert store.commit(writes.file_failover(store.cluster(), "a", "b", None))
    assert store.commit(writes.clear_failover(store.cluster()))
    assert store.cluster().failover_revision == 0


# ---- merging


def test_merged_transactions_happen_together_or_not_at_all(store: Store) -> None:
    c = store.cluster()
    both = writes.merge(writes.publish_status(c, 9, {}), writes.publish_member(Member("a"), 55))
    assert len(both.when) == 1
    assert store.commit(both)
    store.expire(A_LEASE)
    assert not store.commit(writes.merge(writes.publish_status(c, 10, {}), writes.publish_member(Member("a", state="running"), 55)))
    assert store.cluster().members[0].state == "stopped"


def test_contradictions_are_not_merged() -> None:
    with pytest.raises(ValueError, match="leader cannot be at two revisions"):
        writes.merge(Txn((Unchanged("leader", 1),), ()), Txn((Unchanged("leader", 2),), ()))
    with pytest.raises(ValueError, match="leader is written twice"):
        writes.merge(Txn((), (Put("leader", "a"),)), Txn((), (Delete("leader"),)))


GUARDS = st.builds(Unchanged, st.sampled_from("abc"), st.integers(0, 2))
WRITES = st.builds(Put, st.sampled_from("abc"), st.text(max_size=1)) | st.builds(Delete, st.sampled_from("abc"))
TXNS = st.builds(Txn, st.lists(GUARDS, max_size=2).map(tuple), st.lists(WRITES, max_size=2).map(tuple))


@given(TXNS, TXNS)
def test_a_merge_guards_and_writes_what_both_did_and_each_key_once(one: Txn, two: Txn) -> None:
    try:
        both = writes.merge(one, two)
    except ValueError:
        return
    assert set(both.when) == {*one.when, *two.when}
    assert set(both.then) == {*one.then, *two.then}
    assert len({write.key for write in both.then}) == len(both.then)
