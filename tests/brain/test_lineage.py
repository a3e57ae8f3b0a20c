"""Whose WAL it is that lies here, and who may stream without a comparison (docs/decisions/0010)."""

from __future__ import annotations

from dataclasses import replace

from rivha.agent.brain import actions as do
from rivha.agent.brain.upkeep import describe
from rivha.model import State, Upstream
from tests.build import BEFORE, NOW, PRIMARY, TERM, World, a_member, a_view, decided

DB1 = Upstream("db1", "10.0.0.1", 5432)


def postgres(world: World) -> do.PostgresAction:
    return decided(world).postgres.action


def test_a_leader_that_went_on_from_another_history_is_compared_with_before_it_is_followed():
    """Two timelines of one number look alike to Postgres (decision 10): only who streamed from one leader in one term has a part of it."""
    w = a_view().me().leader("db1")

    assert postgres(w.remembers(followed=BEFORE + 1)) == do.Compare(DB1, TERM)
    assert postgres(w.remembers(followed=0)) == do.Compare(DB1, TERM)
    assert isinstance(postgres(w.compared("diverged")), do.Stop)
    assert postgres(w.compared("same")) == do.Follow(DB1)
    for said in ((TERM, 0), (TERM - 1, BEFORE), None):
        assert postgres(a_view().me().leader("db1", succeeded=said)) == do.Compare(DB1, TERM)
    assert postgres(a_view().me().leader("db1", succeeded=None).busy("pledge")) == do.Compare(DB1, TERM)


def test_who_is_to_be_compared_streams_from_nobody_until_then():
    """Whom it pointed at may be a standby of the leader's by now, with the leader's twin of the timeline (seed 1004932)."""
    w = a_view().me(upstream="10.0.0.3:5432").leader("db1")

    for streaming in (True, False):
        w.status = replace(w.status, streaming=streaming)
        assert postgres(w.remembers(followed=0)) == do.Follow(None)
    promoting = a_view().me(upstream="10.0.0.3:5432").leader("db1", role="replica").remembers(followed=0)
    assert postgres(promoting) == do.Follow(None)  # not only once the leader accepts writes
    assert postgres(w.compared("diverged")) == do.Stop(fast_s=10.0)
    assert postgres(w.compared("same")) == do.Follow(DB1)
    assert postgres(w.compared("").remembers(followed=BEFORE)) == do.Follow(DB1)
    assert postgres(w.remembers(followed=0).failures("follow", 1, ago_s=0.5)) == do.Compare(DB1, TERM)
    assert w.ended("follow", term=0).view().memory.followed == 0


def test_a_stream_that_broke_while_etcd_is_silent_does_not_go_on_by_itself():
    """Whoever it came from may lead no more, and have been copied from a twin of its timeline, before etcd answers."""
    w = a_view().me(upstream=DB1.address).leader("db1").etcd_silent(60.0)

    assert postgres(w.remembers(not_streaming_since=NOW - 1)) == do.Nothing()  # a link that broke for a moment
    assert postgres(w.remembers(not_streaming_since=NOW - 6)) == do.Follow(None)
    assert postgres(w.failures("follow", 1, ago_s=0.5)) == do.Nothing()
    assert postgres(w.busy("pledge")) == do.Nothing()
    for fine in (a_view().me(upstream=DB1.address, streaming=True), a_view().me(), a_view().me(PRIMARY, State.SILENT)):
        assert not isinstance(postgres(fine.leader("db1").etcd_silent(60.0).remembers(not_streaming_since=NOW - 6)), do.Follow)


def test_what_streams_already_is_compared_when_nobody_knows_from_which_history():
    w = a_view().me(upstream=DB1.address, streaming=True)

    assert postgres(w.leader("db1").remembers(followed=0)) == do.Compare(DB1, TERM)
    assert isinstance(postgres(w.compared("diverged")), do.Stop)
    assert postgres(w.compared("same")) == do.Nothing()
    assert postgres(w.compared("").remembers(followed=TERM)) == do.Nothing()
    assert postgres(w.leader("db1", succeeded=None).remembers(followed=0)) == do.Nothing()  # a leader of a version that does not say


def test_who_streams_what_may_be_another_history_is_no_voter_before_it_is_compared():
    """The leader would count on its flushes, and it might be elected: what it has may not be the leader's (decision 10)."""
    w = a_view().me(upstream=DB1.address, streaming=True).leader("db1").mode("quorum").sync("db1", "db3", 1)

    def leaving(world: World) -> bool:
        return describe(world.view(), a_member("db2")).leaving

    assert leaving(w.remembers(followed=0))
    assert not leaving(w.compared("same"))
    assert not leaving(w.compared("unknown"))  # it may take hours, or never succeed: then numbers are all there is
    assert not leaving(w.compared("").sync("db1", "db2 db3", 1))  # a voter stays one while its agent has just begun
    assert not leaving(w.sync("db1", "db3", 1).remembers(followed=TERM))


def test_what_lies_here_is_of_whom_it_was_told_to_follow_whether_or_not_it_was_seen_to_stream():
    w = a_view().me().leader("db1")

    assert w.ended("follow", term=TERM).view().memory.followed == TERM
    assert w.ended("start", term=TERM).view().memory.followed == TERM
    assert w.ended("start").view().memory.followed == BEFORE  # as a standby of nobody
    assert w.ended("clone").view().memory.followed == 0
    assert a_view().me(PRIMARY).leader("db1").view().memory.followed == 0  # what it writes is nobody's


def test_a_leader_says_from_which_term_it_went_on():
    w = a_view().me(PRIMARY).leads().remembers(last_term=BEFORE)

    assert (w.view().memory.followed, w.view().memory.succeeded) == (TERM, BEFORE)
    assert describe(w.view(), a_member("db2")).succeeded == (TERM, BEFORE)
    assert describe(a_view().me().leader("db1").view(), a_member("db2")).succeeded is None
    for missed in ({"last_term": BEFORE + 1}, {"adrift": True}):  # somebody led in between, or the same one again
        assert w.remembers(last_term=BEFORE, adrift=False).remembers(**missed).view().memory.succeeded == 0


def test_who_may_have_missed_a_leadership_knows_of_no_history_in_common():
    assert a_view().me().leaderless().view().memory.followed == BEFORE
    assert a_view().me().leaderless().remembers(sync_revision=59).view().memory.followed == 0  # whoever takes the lead writes `sync`


def test_a_leader_that_leads_anew_says_first_from_where():
    """What it promoted meanwhile has been streamed already, perhaps."""
    w = a_view().me(upstream=DB1.address, streaming=True)

    assert w.leader("db1").view().memory.followed == TERM
    drifting = w.leader("db1", succeeded=None).view()
    assert drifting.memory.adrift
    assert not drifting.shares_the_leaders_past
    assert w.leader("db1").remembers(adrift=True).view().shares_the_leaders_past  # it has said so since
    assert w.leader("db1", succeeded=(TERM, BEFORE - 1)).remembers(followed=BEFORE, adrift=True).view().memory.adrift


def test_what_streams_and_cannot_be_compared_is_tried_ever_more_seldom():
    """An apply delay of hours, say. As soon as it does not stream, comparing is the way on again."""
    streams = a_view().me().following().leader("db1").remembers(followed=0)

    for in_a_row, waits_s in ((3, 10.0), (6, 32.0), (8, 128.0), (12, 300.0)):
        for ago_s, then in ((waits_s - 1, do.Nothing()), (waits_s + 1, do.Compare(DB1, TERM))):
            assert postgres(streams.compared("unknown", ago_s=ago_s).failures("compare", in_a_row, ago_s)) == then
    cut_off = a_view().me(upstream=DB1.address).leader("db1").remembers(followed=0, not_streaming_since=NOW - 5)
    assert postgres(cut_off.compared("unknown", ago_s=11.0).failures("compare", 12, 11.0)) == do.Compare(DB1, TERM)


def test_who_made_my_timelines_number_again_is_compared_with_whomever_it_followed():
    """It was told to follow whom I followed, and got nothing: its promotion makes the number that I have (decision 10)."""
    twin = a_view().me(timeline=2).leader("db1")

    assert postgres(twin) == do.Compare(DB1, TERM)
    assert postgres(twin.compared("unknown")) == do.Nothing()
    assert postgres(a_view().me(timeline=1).leader("db1", succeeded=None).compared("unknown")) == do.Follow(DB1)


def test_what_streams_already_is_compared_in_a_pause_too():
    """Else it says until the resume that it must not be a voter, and the leader goes on alone."""
    streams = a_view().me().following().leader("db1").mode("quorum").sync("db1").remembers(followed=0).paused()

    assert describe(streams.view(), a_member("db2")).leaving
    assert postgres(streams) == do.Compare(DB1, TERM)
    assert not describe(streams.compared("same").view(), a_member("db2")).leaving
    assert postgres(streams) == do.Nothing()
    assert postgres(streams.compared("diverged")) == do.Nothing(), "hands off: it is rewound after the pause"
