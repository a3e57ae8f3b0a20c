"""What a look leaves behind."""

from __future__ import annotations

from dataclasses import replace

from rivha.agent.brain import actions as do
from rivha.agent.brain.memory import Failures, remember
from rivha.model import Outcome, State
from tests.build import ME, NOW, PRIMARY, STANDBY, TERM, a_view, decided


def test_a_primary_found_dead_is_a_crash_once():
    w = a_view().me(PRIMARY, State.CRASHED).leads().remembers(primary_alive=True)
    once = remember(w.view())

    assert w.view().memory.crashes == (NOW,)
    assert not once.primary_alive
    assert remember(replace(w.view(), memory=once)).crashes == once.crashes


def test_a_stop_that_we_made_is_no_crash():
    w = a_view().me(PRIMARY, State.CRASHED).leads().remembers(primary_alive=True).busy("stop")

    assert w.view().memory.crashes == ()


def test_old_crashes_are_forgotten():
    w = a_view().me(PRIMARY).leads().remembers(crashes=(NOW - 500, NOW - 10))

    assert w.view().memory.crashes == (NOW - 10,)


def test_a_start_that_was_given_up_is_remembered_until_postgres_runs():
    w = a_view().me(PRIMARY, State.CRASHED).leads().remembers(starting_since=NOW - 301, last_leader="db2")

    assert w.view().memory.start_took_too_long
    assert not a_view().me(PRIMARY).leads().remembers(start_took_too_long=True).view().memory.start_took_too_long


def test_a_new_term_of_mine_begins_with_a_clean_slate():
    """Who resigned and leads again does so because nobody else could: it must try again, not resign for ever."""
    w = a_view().me(PRIMARY, State.CRASHED).leads().failures("start", 3).failures("rewind", 1)
    m = w.remembers(last_term=TERM - 1, crashes=(NOW - 3,), start_took_too_long=True).view().memory

    assert (m.crashes, set(m.failures), m.start_took_too_long) == ((), {"rewind"}, False)


def test_who_took_the_key_back_that_it_gave_away_remembers_that_nobody_else_could_lead():
    gave = a_view().me(PRIMARY, State.CRASHED).leaderless().resigned(ME).view().memory
    again = a_view().me(PRIMARY, State.CRASHED).leads()
    again.memory = replace(gave, last_term=TERM - 1)
    other = a_view().me(PRIMARY, State.CRASHED).leader("db1")
    other.memory = replace(gave, last_term=TERM - 1)

    assert gave.gave_back
    assert again.view().memory.took_back
    assert not other.view().memory.took_back
    assert not other.view().memory.gave_back


def test_that_nobody_else_could_lead_is_forgotten_once_my_postgres_has_lasted():
    again = a_view().me(PRIMARY).leads().remembers(took_back=True)

    assert again.remembers(primary_since=NOW - 100).view().memory.took_back
    assert not again.remembers(primary_since=NOW - 130).view().memory.took_back
    dead = a_view().me(PRIMARY, State.CRASHED).leads().remembers(took_back=True, primary_since=NOW - 100)
    assert dead.view().memory.took_back


def test_leaderless_since_the_first_look_that_saw_nobody():
    assert a_view().me().leaderless(3.0).view().memory.leaderless_since == NOW - 3.0
    assert a_view().me().leader("db1").remembers(leaderless_since=5.0).view().memory.leaderless_since is None


def test_patience_begins_anew_when_what_nobody_could_read_has_been_mended():
    """While it could not be read the others could not pledge either: my old pledge must not win before they have."""
    garbled = a_view().me().leaderless(100.0).pledged().etcd(complaints=("history: is not JSON",)).view()
    mended = a_view().me().leaderless(100.0).pledged()
    mended.memory = garbled.memory
    after = mended.view()

    assert garbled.memory.standing_since is None
    assert after.memory.standing_since == NOW
    assert after.memory.leaderless_since == NOW - 100.0
    assert decided(mended).lease.reason == "nobody leads; holding back: waiting for the pledge of db3"


def test_a_member_that_cannot_be_read_is_no_reason_to_be_patient_anew():
    w = a_view().me().leaderless(100.0).pledged().etcd(complaints=("members/db3: is not JSON",))

    assert w.view().memory.standing_since == NOW - 100.0


def test_a_silent_etcd_changes_nothing_about_who_led():
    memory = a_view().me().remembers(last_leader="db3", last_term=7).etcd_silent().view().memory

    assert (memory.last_leader, memory.last_term) == ("db3", 7)


def test_failures_are_counted_in_a_row_and_forgotten_on_success():
    failed = a_view().me().failures("clone", 2).ended("clone", "failed").view().memory
    done = a_view().me().failures("clone", 2).ended("clone", "done").view().memory

    assert failed.failures["clone"] == Failures(3, NOW - 1)
    assert "clone" not in done.failures


def test_a_comparison_counts_for_the_term_it_was_made_in():
    memory = a_view().me(STANDBY).leader("db1").ended("compare", result="diverged", term=50).view().memory

    assert (memory.history, memory.compared_term) == ("diverged", 50)


def test_a_rewind_makes_an_earlier_comparison_void():
    assert a_view().me(STANDBY).leader("db1").compared("diverged").ended("rewind").view().memory.history == ""


def test_a_hand_over_is_remembered_with_its_term():
    assert a_view().me(PRIMARY, State.STOPPED).leads().ended("handover", term=50).view().memory.handed_over_term == 50


def test_a_hand_over_is_forgotten_once_postgres_is_a_primary_again():
    """Else it would not be started again, should it die in the same term."""
    assert a_view().me(PRIMARY).leads().remembers(handed_over_term=50).view().memory.handed_over_term == 0
    assert a_view().me(PRIMARY).leads().remembers(handed_over_term=50).busy("handover").view().memory.handed_over_term == 50


def test_only_a_leader_counts_for_how_long_its_primary_is_down():
    """What lies stopped since before it led has not been given back in vain."""
    stopped = a_view().me(PRIMARY, State.STOPPED)

    assert stopped.leads().view().memory.dead_since == NOW
    assert stopped.leaderless().view().memory.dead_since is None
    assert stopped.leads().busy("start").view().memory.dead_since is None


def test_a_job_is_folded_in_once():
    w = a_view().me().ended("clone", "failed")
    again = remember(w.view())

    assert again.failures["clone"].in_a_row == 1


def test_a_silence_is_counted_from_when_the_look_began_that_met_it():
    """hang_timeout would else be longer by what a look at a Postgres that does not answer takes."""
    silent = a_view().me(PRIMARY, State.SILENT).leads()
    seen = replace(silent.view(), postgres_seen_at=990.0, now=991.5)

    assert remember(replace(seen, memory=replace(seen.memory, silent_since=None))).silent_since == 990.0


def test_who_was_told_to_stream_from_nobody_won_no_key_until_it_has_been_frozen():
    """It looks like a winner. A key that names it, or `sync`, comes out of a backup."""
    w = a_view().me().leads().ended("follow")

    assert w.view().memory.cut_loose
    assert decided(w).lease.rule == "let_a_key_run_out_that_i_did_not_win"
    assert decided(w).postgres.rule == "promote_the_elected"
    assert decided(w).postgres.action == do.Nothing()
    holder = a_view().me().leaderless().mode("quorum").sync(ME).remembers(cut_loose=True)
    assert decided(holder).lease.action == do.Nothing()
    assert decided(holder.remembers(cut_loose=False)).lease.action == do.Acquire()

    loose = a_view().me().leads().remembers(cut_loose=True)
    for kind, more in (("compare", {}), ("start", {}), ("pledge", {"result": Outcome.REFUSED}), ("pledge", {"outcome": "failed"})):
        assert loose.ended(kind, **more).view().memory.cut_loose, kind
    for kind, more in (("pledge", {"result": Outcome.UNKNOWN}), ("follow", {"term": TERM}), ("start", {"term": TERM}), ("clone", {})):
        assert not loose.ended(kind, **more).view().memory.cut_loose, kind


def test_a_key_of_whose_leadership_sync_tells_another_was_not_won():
    """An agent that began anew remembers nothing, but who takes the key writes its own name to `sync` in the same transaction."""
    assert decided(a_view().me().leads().sync("db1")).lease.rule == "let_a_key_run_out_that_i_did_not_win"
    assert isinstance(decided(a_view().me().leads()).postgres.action, do.Promote)


def test_a_stream_is_missed_since_the_look_began_that_missed_it():
    """Each look takes retry_timeout / 2 while etcd is silent: a standby would stream on from another history that much longer."""
    dry = a_view().me(upstream="10.0.0.1:5432").leader("db1").etcd_silent(60.0)
    seen = replace(dry.view(), postgres_seen_at=990.0, now=991.5)

    assert remember(replace(seen, memory=replace(seen.memory, not_streaming_since=None))).not_streaming_since == 990.0


def test_a_clone_forgets_what_failed_with_the_directory_before():
    """Else every later divergence would be cloned without a try to rewind, and people told to clone what has just been cloned."""
    w = a_view().me(STANDBY).leader("db1").failures("rewind", 2).failures("set_aside", 1).failures("compare", 1).ended("clone")

    assert set(w.view().memory.failures) == {"compare"}
    assert w.ended("clone", "failed").view().spoiled("rewind") == 2
