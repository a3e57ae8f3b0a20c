"""What the standbys have shown: fresh replies, and the barrier. One look after another, as the tick does it."""

from __future__ import annotations

from dataclasses import replace

from rivha.agent.brain.evidence import InForce
from rivha.agent.brain.view import View
from rivha.model import State
from tests.build import NOW, PRIMARY, STANDBY, World, a_row, a_view

ONE = 'ANY 1 ("db1","db3")'
BOTH = 'ANY 2 ("db1","db3")'


def leading(names: str = ONE, lsn: int = 100) -> World:
    world = a_view().me(PRIMARY, lsn=lsn).leads().mode("quorum")
    world.status = replace(world.status, synchronous_standby_names=names, names_confirmed=True)
    return world


def looks(*worlds: World) -> View:
    """Each world a second after the one before, with what was remembered of it; the last View."""
    view = None
    for n, world in enumerate(worlds):
        if view is not None:
            world.memory = view.memory
        world.more.update(now=NOW + n, postgres_seen_at=NOW + n)
        view = world.view()
    assert view is not None
    return view


def barrier(*worlds: World) -> InForce:
    found = looks(*worlds).memory.in_force
    assert found is not None
    return found


# ---- replies


def test_a_first_reply_may_be_from_long_ago():
    assert looks(leading().streams(a_row("db1"))).memory.replies["db1"].changed_at is None


def test_a_reply_counts_from_the_look_that_was_the_first_to_see_it():
    changed = looks(leading().streams(a_row("db1")), leading().streams(a_row("db1", reply="t2")))
    same = looks(leading().streams(a_row("db1")), leading().streams(a_row("db1", reply="t2")), leading().streams(a_row("db1", reply="t2")))

    assert changed.memory.replies["db1"].changed_at == NOW + 1
    assert same.memory.replies["db1"].changed_at == NOW + 1


def test_a_standby_that_is_only_catching_up_or_has_flushed_nothing_has_replied_nothing():
    for row in (a_row("db1", state="catchup", reply="t2"), a_row("db1", flush=None, reply="t2")):
        assert "db1" not in looks(leading().streams(), leading().streams(row)).memory.replies


def test_a_standby_that_is_away_for_long_begins_anew():
    gone = leading().streams().replies(db1=0.0)
    gone.more.update(now=NOW + 70, postgres_seen_at=NOW + 70)

    assert gone.view().memory.replies == {}


def test_what_a_primary_of_old_heard_proves_nothing_to_a_standby():
    assert a_view().me(STANDBY).leader("db1").replies(db1=0.1, db3=0.1).view().memory.replies == {}


def test_a_dead_connection_beside_a_new_one_neither_hides_its_replies_nor_makes_any_up():
    """A standby that reconnected: the old WAL sender stays until wal_sender_timeout, before or behind the new one."""
    stale = a_row("db1", reply="old")
    for order in (1, -1):
        both = [leading().streams(*(stale, a_row("db1", reply=text))[::order]) for text in ("t1", "t2", "t2")]
        seen = looks(leading().streams(stale), *both).memory.replies["db1"]
        assert seen.changed_at == NOW + 2, order

    left = looks(leading().streams(stale, a_row("db1", reply="t1")), leading().streams(stale))
    assert left.memory.replies["db1"].changed_at is None


# ---- the barrier


def test_names_that_were_not_seen_in_force_everywhere_begin_no_barrier():
    unconfirmed = leading().streams(a_row("db1"))
    unconfirmed.status = replace(unconfirmed.status, names_confirmed=False)
    disagreeing = leading().streams(a_row("db1"), a_row("db3", sync="async"))
    stranger = leading().streams(a_row("db1"), a_row("backup", sync="potential"))

    for world in (unconfirmed, disagreeing, stranger, leading().streams(a_row("db1")).busy("synchronize")):
        assert barrier(world, world).lsn is None


def test_the_barrier_is_the_end_of_the_wal_when_the_names_were_seen_in_force_everywhere():
    first = leading(lsn=500).streams(a_row("db1"), a_row("db3"))

    assert barrier(first, first) == InForce(ONE, 500, {"db1": frozenset({"t1"}), "db3": frozenset({"t1"})})


def test_it_passes_when_as_many_as_acknowledge_have_flushed_it_and_said_so_since():
    before = leading(lsn=500).streams(a_row("db1", 400), a_row("db3", 400))
    lagging = leading(lsn=600).streams(a_row("db1", 499, "t2"), a_row("db3", 499, "t2"))
    unsaid = leading(lsn=600).streams(a_row("db1", 500), a_row("db3", 500))
    one = leading(lsn=600).streams(a_row("db1", 500, "t2"), a_row("db3", 400, "t2"))

    assert not barrier(before, before, lagging).passed
    assert not barrier(before, before, unsaid).passed
    assert barrier(before, before, one).passed


def test_of_two_that_must_acknowledge_two_must_have_flushed():
    before = leading(BOTH, 500).streams(a_row("db1", 400), a_row("db3", 400))
    one = leading(BOTH, 500).streams(a_row("db1", 500, "t2"), a_row("db3", 400, "t2"))
    stranger = leading(BOTH, 500).streams(a_row("db1", 500, "t2"), a_row("db4", 500, "t2", "async"))
    twice = leading(BOTH, 500).streams(a_row("db1", 500, "t2"), a_row("db1", 500, "t3"))
    both = leading(BOTH, 500).streams(a_row("db1", 500, "t2"), a_row("db3", 500, "t2"))

    assert [barrier(before, before, w).passed for w in (one, stranger, twice, both)] == [False, False, False, True]


def test_names_compare_without_case_as_postgresql_does():
    before = leading('ANY 1 ("DB1")', 500).streams(a_row("db1", 400))

    assert barrier(before, before, leading('ANY 1 ("DB1")', 500).streams(a_row("db1", 500, "t2"))).passed


def test_a_barrier_that_was_passed_stays_passed_under_the_same_names_only():
    passed = leading().streams(a_row("db1"), a_row("db3")).names(ONE, passed=True)

    assert barrier(passed, leading().streams()).passed
    assert not barrier(passed, leading(BOTH).streams(a_row("db1", reply="t2"), a_row("db3", reply="t2"))).passed


def test_a_server_whose_names_are_not_confirmed_begins_anew():
    passed = leading().streams(a_row("db1")).names(ONE, passed=True)
    started = leading().streams(a_row("db1")).names(ONE, confirmed=False, passed=True)

    assert not barrier(passed, started).passed


def test_nobody_to_wait_for_is_a_barrier_that_everybody_passes():
    assert barrier(leading("").streams(), leading("").streams(), leading("").streams()).passed


def test_names_that_are_not_of_our_writing_never_pass():
    own = leading("FIRST 1 (db1)").streams(a_row("db1", sync="sync"))

    assert barrier(own, own, own, own) == InForce("FIRST 1 (db1)")


def test_a_standby_and_a_dead_primary_have_no_names_in_force_and_a_silent_one_keeps_what_was_seen():
    for world in (
        a_view().me(STANDBY).leader("db1"),
        a_view().me(PRIMARY, State.CRASHED).leads(),
        a_view().me(PRIMARY, State.STOPPED).leads(),
    ):
        assert world.remembers(in_force=InForce(ONE, 1, {}, True)).view().memory.in_force is None
    silent = a_view().me(PRIMARY, State.SILENT).leads().remembers(in_force=InForce(ONE, 1, {}, True))
    assert silent.view().memory.in_force == InForce(ONE, 1, {}, True)
