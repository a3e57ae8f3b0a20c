"""Each transaction that decides who leads, against a store that has moved on since: what it guards is what makes it safe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rivha.dcs import records, writes
from rivha.dcs.base import Txn
from rivha.model import Pledge, Resignation
from tests.dcs.store import A_LEASE, B_LEASE, SYSTEM, Store, pledge

# ---- the first leader


def test_a_bootstrap_from_claim_to_leader() -> None:
    store = Store()
    assert store.commit(writes.claim_bootstrap(1))
    claimed = store.cluster()
    assert store.commit(writes.finish_bootstrap(claimed, "a", A_LEASE, SYSTEM, {"ttl": 10}))

    c = store.cluster()
    assert (claimed.initialize, claimed.initialize_lease_id) == ("", 1)
    assert (c.initialize, c.initialize_lease_id, c.config) == (SYSTEM, 0, {"ttl": 10})
    assert c.leader is not None
    assert (c.leader.name, c.leader.lease_id) == ("a", A_LEASE)
    assert c.sync is not None
    assert (c.sync.leader, c.sync.voters) == ("a", frozenset())


def test_only_one_node_bootstraps() -> None:
    store = Store()
    assert store.commit(writes.claim_bootstrap(1))
    assert not store.commit(writes.claim_bootstrap(2))


def test_a_bootstrapper_whose_claim_expired_cannot_finish_even_over_somebody_elses_claim() -> None:
    store = Store()
    store.commit(writes.claim_bootstrap(1))
    mine = store.cluster()
    store.expire(1)
    assert not store.commit(writes.finish_bootstrap(mine, "a", A_LEASE, SYSTEM, None))
    store.commit(writes.claim_bootstrap(2))
    assert not store.commit(writes.finish_bootstrap(mine, "a", A_LEASE, SYSTEM, None))


def test_a_bootstrap_does_not_finish_when_somebody_leads() -> None:
    store = Store()
    store.commit(writes.claim_bootstrap(1))
    c = store.cluster()
    store.put("leader", "b")
    assert not store.commit(writes.finish_bootstrap(c, "a", A_LEASE, SYSTEM, None))


def test_a_config_that_is_there_already_stays(store: Store) -> None:
    store = Store()
    store.put("config", '{"ttl":20}')
    store.commit(writes.claim_bootstrap(1))
    assert store.commit(writes.finish_bootstrap(store.cluster(), "a", A_LEASE, SYSTEM, {"ttl": 10}))
    assert store.cluster().config == {"ttl": 20}


def test_a_failed_bootstrap_makes_room_for_another_but_never_for_a_second_cluster() -> None:
    store = Store()
    store.commit(writes.claim_bootstrap(1))
    c = store.cluster()
    assert store.commit(writes.abandon_bootstrap(c))
    assert store.commit(writes.claim_bootstrap(2))
    assert not store.commit(writes.abandon_bootstrap(c))
    store.put("initialize", SYSTEM)
    with pytest.raises(AssertionError):
        writes.abandon_bootstrap(store.cluster())
    with pytest.raises(AssertionError):
        writes.finish_bootstrap(store.cluster(), "a", A_LEASE, SYSTEM, None)


# ---- leadership


def test_a_free_key_is_acquired_once_and_leaves_no_voters_of_another(store: Store) -> None:
    store.put("sync", records.sync_text(None, ["b"]))
    store.expire(A_LEASE)
    pledge(store, "a")
    c = store.cluster()

    assert store.commit(writes.acquire(c, "a", A_LEASE + 10))
    assert not store.commit(writes.acquire(c, "b", B_LEASE))

    now = store.cluster()
    assert now.leader is not None
    assert (now.leader.name, now.pledges) == ("a", ())
    assert now.sync is not None
    assert (now.sync.leader, now.sync.voters, now.sync.quorum) == ("a", frozenset(), 0)


def test_the_holder_that_leads_again_keeps_its_voters_and_a_winner_has_none(store: Store) -> None:
    store.put("sync", records.sync_text("a", ["b", "c"], 1))
    store.expire(A_LEASE)
    c = store.cluster()
    assert c.sync is not None

    assert store.commit(writes.acquire(c, "a", A_LEASE + 10))
    again = store.cluster().sync
    assert again is not None
    assert (again.leader, again.voters, again.quorum) == ("a", frozenset("bc"), 1)
    assert again.revision > c.sync.revision

    pledge(store, "b")
    assert store.commit(writes.win(store.cluster(), "b", B_LEASE))
    won = store.cluster().sync
    assert won is not None
    assert (won.leader, won.voters, won.quorum) == ("b", frozenset(), 0)


def test_a_key_that_is_held_is_not_acquired(store: Store) -> None:
    assert not store.commit(writes.acquire(store.cluster(), "b", B_LEASE))


def test_the_holder_that_came_back_first_refuses_the_candidate_that_was_about_to_win(store: Store) -> None:
    store.put("sync", records.sync_text("a"))
    store.expire(A_LEASE)
    pledge(store, "b")
    about_to_win = store.cluster()

    assert store.commit(writes.acquire(about_to_win, "a", A_LEASE))
    store.expire(A_LEASE)  # even when its lease is lost again: `sync` was rewritten, with the same text

    assert not store.commit(writes.win(about_to_win, "b", B_LEASE))


def test_a_pledge_that_took_long_is_refused_once_somebody_has_led_since(store: Store) -> None:
    """The key was gone when the freeze began and is gone now; in between another led, and its writes are not in the frozen WAL."""
    store.expire(A_LEASE)
    pledge(store, "b")
    seen = store.cluster()
    assert store.commit(writes.win(seen, "b", B_LEASE))
    store.expire(B_LEASE)

    assert not store.commit(writes.pledge(seen, Pledge("c", 3, 1, 7)))


@pytest.mark.parametrize("key_is_gone", [True, False])
def test_a_win_by_pledges_with_the_key_at_its_term_or_gone(store: Store, key_is_gone: bool) -> None:
    pledge(store, "b", lsn=9)
    pledge(store, "c")
    if key_is_gone:
        store.expire(A_LEASE)
    before = store.cluster()

    assert store.commit(writes.win(before, "b", B_LEASE))

    c = store.cluster()
    assert c.leader is not None
    assert (c.leader.name, c.leader.lease_id) == ("b", B_LEASE)
    assert c.leader.term > (before.leader.term if before.leader else 0)
    assert c.sync is not None
    assert (c.sync.leader, c.sync.voters) == ("b", frozenset())
    assert [p.name for p in c.pledges] == ["c"]


Meddling = Callable[[Store], object]


@pytest.mark.parametrize(
    "meddle",
    [
        pytest.param(lambda s: s.commit(writes.withdraw(s.cluster(), "c")), id="a pledge was withdrawn"),
        pytest.param(lambda s: s.commit(writes.pledge(s.cluster(), Pledge("c", 3, 1, 99))), id="a pledge was replaced"),
        pytest.param(lambda s: s.put("sync", records.sync_text("a", {"b", "c", "d"}, 2)), id="the voters changed"),
        pytest.param(lambda s: s.commit(writes.rebind(s.cluster(), "a", A_LEASE + 1)), id="the leader moved its lease"),
        pytest.param(lambda s: s.commit(writes.win(s.cluster(), "c", 103)), id="another won"),
        pytest.param(lambda s: s.expire(A_LEASE), id="the key is gone that was there"),
    ],
)
def test_nothing_of_what_a_win_rests_on_may_have_changed(store: Store, meddle: Meddling) -> None:
    pledge(store, "b")
    pledge(store, "c")
    c = store.cluster()
    meddle(store)

    assert not store.commit(writes.win(c, "b", B_LEASE))


def test_a_pledge_is_made_against_the_leadership_that_was_seen(store: Store) -> None:
    c = store.cluster()
    pledge(store, "b")
    pledge(store, "c")
    store.commit(writes.win(store.cluster(), "b", B_LEASE))

    assert not store.commit(writes.pledge(c, Pledge("c", 1, 1, 7)))


def test_a_pledge_is_not_withdrawn_once_somebody_won_on_it(store: Store) -> None:
    pledge(store, "b")
    pledge(store, "c")
    c = store.cluster()
    store.commit(writes.win(c, "b", B_LEASE))

    assert not store.commit(writes.withdraw(c, "c"))
    assert store.commit(writes.withdraw(store.cluster(), "c"))
    assert store.cluster().pledges == ()


def test_an_unreadable_pledge_can_be_withdrawn_by_its_writer(store: Store) -> None:
    store.put("rivha/pledges/b", "garbage")

    assert store.commit(writes.withdraw(store.cluster(), "b"))
    assert store.cluster().pledges == ()
    assert store.cluster().complaints == ()


def test_a_pledge_that_is_still_on_its_way_is_refused_once_it_was_withdrawn(store: Store) -> None:
    """The leader and `sync` are as it read them; its own key is not."""
    before = store.cluster()
    late = writes.pledge(before, Pledge("b", 1, 1, 7))

    assert store.commit(writes.withdraw(before, "b"))
    assert not store.commit(late)
    assert store.commit(writes.pledge(store.cluster(), Pledge("b", 1, 1, 7)))


def test_voters_are_recorded_by_the_leader_in_office_and_no_late_record_of_its_own_comes_through(store: Store) -> None:
    c = store.cluster()
    late = writes.record_voters(c, "a", {"b"}, 0)

    assert store.commit(writes.record_voters(c, "a", {"b", "c"}, 1))  # what stood there before, written anew
    assert not store.commit(late)
    now = store.cluster().sync
    assert now is not None
    assert (now.voters, now.quorum) == ({"b", "c"}, 1)


def test_a_resignation_gives_the_key_back_and_says_so_at_once(store: Store) -> None:
    c = store.cluster()
    assert c.leader is not None
    resignation = Resignation(c.leader.term, "a", candidate="b", lsn=70, reason="switchover")

    assert store.commit(writes.resign(c, "a", resignation, 70))

    now = store.cluster()
    assert (now.leader, now.optime) == (None, 70)
    assert now.resigned is not None
    assert replace(now.resigned, revision=0) == resignation
    assert not store.commit(writes.resign(c, "a", resignation, 70))


def test_a_crashed_leader_that_does_not_know_its_position_leaves_the_last_one(store: Store) -> None:
    store.commit(writes.publish_status(store.cluster(), 60, {"b": 50}, ["b"]))
    c = store.cluster()
    assert c.leader is not None
    store.commit(writes.resign(c, "a", Resignation(c.leader.term, "a"), 0))

    now = store.cluster()
    assert (now.optime, now.slots, now.retain_slots) == (60, {"b": 50}, ("b",))


def test_whoever_takes_over_clears_the_resignation(store: Store) -> None:
    for take in (writes.acquire, writes.win):
        c = store.cluster()
        assert c.leader is not None
        store.commit(writes.resign(c, c.leader.name, Resignation(c.leader.term, c.leader.name), 0))
        assert store.commit(take(store.cluster(), "b", B_LEASE))
        assert store.cluster().resigned is None


def test_a_leader_moves_to_another_lease_unless_it_was_deposed(store: Store) -> None:
    c = store.cluster()
    assert store.commit(writes.rebind(c, "a", A_LEASE + 1))
    store.expire(A_LEASE)
    leader = store.cluster().leader
    assert leader is not None
    assert leader.lease_id == A_LEASE + 1
    assert not store.commit(writes.rebind(c, "a", A_LEASE + 2))


def test_nobody_resigns_or_rebinds_for_another(store: Store) -> None:
    c = store.cluster()
    actions: list[Callable[[], Txn]] = [
        lambda: writes.rebind(c, "b", 1),
        lambda: writes.resign(c, "b", Resignation(1, "b"), 0),
        lambda: writes.resign(c, "a", Resignation(1, "a"), 0),
        lambda: writes.rebind(replace(c, leader=None), "a", 1),
    ]
    for action in actions:
        with pytest.raises(AssertionError):
            action()


def test_an_unreadable_sync_stops_every_change_of_leadership(store: Store) -> None:
    pledge(store, "b")
    store.put("sync", "garbage")
    assert not store.commit(writes.win(store.cluster(), "b", B_LEASE))
    store.expire(A_LEASE)
    assert not store.commit(writes.win(store.cluster(), "b", B_LEASE))
    assert not store.commit(writes.acquire(store.cluster(), "a", A_LEASE))


def test_that_a_leader_holds_synchronously_is_said_by_the_leader_alone_and_stays_when_another_wins(store: Store) -> None:
    c = store.cluster()
    late = writes.hold_synchronously(c, "a", False)
    assert store.commit(writes.hold_synchronously(c, "a", True))
    assert not store.commit(late)
    pledge(store, "b")
    pledge(store, "c")
    before = store.cluster()
    assert store.commit(writes.win(before, "b", B_LEASE))
    assert store.cluster().held_revision > 0
    assert not store.commit(writes.hold_synchronously(before, "a", False))
