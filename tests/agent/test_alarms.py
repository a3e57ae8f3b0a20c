"""What somebody on call must see is a WARNING, once each time that it begins."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from rivha.agent.alarms import Alarms
from rivha.agent.brain.actions import Acquire
from rivha.agent.brain.decide import decide
from rivha.agent.brain.memory import Failures
from rivha.agent.brain.view import View
from rivha.agent.journal import Entry, Journal
from rivha.model import State
from tests.build import NOW, PRIMARY, STANDBY, TERM, World, a_row, a_view
from tests.sim.world import World as Simulated

GOES_ON_ALONE = "commits wait for nobody from now on: this node goes on alone"
NOBODY_CONFIRMS = "commits wait, and no standby is there to confirm them"


def told(*worlds: World | View, fenced: tuple[int, ...] = ()) -> list[str]:
    """Looks at them one after another, each twice: a beat brings no news."""
    alarms = Alarms()
    with capture_logs() as logs:
        for i, world in enumerate(worlds):
            view = world if isinstance(world, View) else world.view()
            for _ in range(2):
                view = replace(view, now=view.now + 0.1)
                alarms.look(view, decide(view), fenced[i] if fenced else 0)
    assert all(entry["log_level"] == "warning" for entry in logs)
    return [
        " ".join([entry["event"], *(f"{k}={v}" for k, v in entry.items() if k in ("why", "leader", "resigned") and v)]) for entry in logs
    ]


def leading() -> World:
    return a_view().me(PRIMARY).leads().mode("quorum").sync("db2", "db1 db3", 1).names('ANY 1 ("db1","db3")').replies(db1=0.1, db3=0.1)


def test_all_is_well():
    assert told(leading(), leading()) == []


@pytest.mark.parametrize("role", [PRIMARY, STANDBY])
def test_a_postgres_that_died(role):
    before = a_view().me(role).leader("db1") if role is STANDBY else leading()
    dead = a_view().me(role, State.CRASHED).leader("db1")
    assert told(before, dead) == ["Postgres has died: its postmaster is gone, and this agent did not stop it"]


def test_a_postgres_that_somebody_else_shut_down():
    down = a_view().me(STANDBY, State.STOPPED).leader("db1")
    assert told(a_view().me(STANDBY).leader("db1"), down) == ["Postgres was shut down, and not by this agent"]
    assert told(a_view().me(STANDBY).leader("db1"), down.paused()) == []


def test_a_postgres_that_this_agent_stopped_has_not_died():
    dead = a_view().me(STANDBY, State.CRASHED).leader("db1")
    up = a_view().me(STANDBY).leader("db1").view()
    assert told(replace(up, now=up.now - 5), dead.ended("stop")) == []
    assert told(a_view().me(STANDBY).leader("db1"), a_view().me(STANDBY, State.CRASHED).leader("db1"), fenced=(0, 1)) == []


def test_a_postgres_that_dies_long_after_it_was_started():
    up = a_view().me(STANDBY).leader("db1").ended("start")
    dead = a_view().me(STANDBY, State.CRASHED).leader("db1").ended("start")
    assert len(told(up, dead)) == 1


def test_a_postgres_that_hangs():
    hangs = leading().me(PRIMARY, State.SILENT).remembers(silent_since=900.0)
    assert told(leading(), hangs) == ["Postgres hangs and is killed why=Postgres has answered nothing for 100 s"]


def voter() -> World:
    return a_view().me(STANDBY).leader("db1").mode("quorum").sync("db1", "db2 db3", 1)


def winner() -> World:
    return voter().witness().pledged("db2", 100).pledged("db3", 100)


def test_a_takeover_is_told_once_etcd_says_so():
    mine = a_view().me(STANDBY).leads().mode("quorum").sync("db2")
    assert told(voter(), winner(), mine) == ["this node takes over from db1 why=db1 is lost and I rank first"]


def test_a_takeover_that_etcd_refused_is_none():
    assert told(voter(), winner(), voter().leader("db3").sync("db3", "db2")) == []


def test_a_takeover_with_an_accepted_loss():
    lost = a_view().me(STANDBY).leaderless(10.0).mode("quorum").sync("db1").wanted(None, "db2", accept_loss=True).pledged("db2")
    mine = a_view().me(STANDBY).leads().mode("quorum").sync("db2")
    text = "this node takes over from db1, by --accept-loss: commits that were acknowledged may be missing here"
    assert told(lost, mine) == [f"{text} why=nobody leads and I rank first"]


def test_commits_that_wait_for_nobody():
    alone = a_view().me(PRIMARY).leads().mode("quorum").sync("db2").names("").streams()
    blind = leading().etcd_silent().remembers(last_leader="db2")
    assert told(leading(), alone, blind, alone) == [GOES_ON_ALONE]
    assert told(leading(), alone, leading(), alone) == [GOES_ON_ALONE, GOES_ON_ALONE]
    assert told(a_view().me(PRIMARY).leads().mode("off").names("").streams()) == []


def test_a_mode_that_was_just_turned_on_is_no_alarm():
    fresh = a_view().me(PRIMARY).leads().mode("quorum").sync("db2").names("").streams(a_row("db1"), a_row("db3"))
    assert told(fresh) == []


def test_commits_that_nobody_confirms():
    strict = leading().streams().settings(synchronous_mode_strict=True)
    lost = strict.replies(db1=60.0, db3=60.0).remembers(primary_since=900.0)
    assert told(leading(), lost) == [NOBODY_CONFIRMS]


def test_a_voter_that_commits_do_not_wait_for_confirms_none():
    """Its name is not in force yet: that it is there helps nobody."""
    strict = leading().names('ANY 1 ("db1")').settings(synchronous_mode_strict=True).remembers(primary_since=900.0)
    rows = strict.streams(a_row("db3")).replies(db1=60.0, db3=0.1)
    assert told(rows) == [NOBODY_CONFIRMS]
    assert told(rows.names('ANY 1 ("db1","db3")')) == []


def test_a_postgres_that_was_promoted_by_hand():
    standby = a_view().me(STANDBY).following().leader("db1")
    assert told(standby, a_view().me(PRIMARY).leader("db1")) == [
        "Postgres here was promoted by hand beside the leader, and is stopped leader=db1"
    ]


def test_a_primary_that_hears_of_another_leader():
    assert told(leading(), a_view().me(PRIMARY).leader("db3")) == [
        "Postgres here is a primary beside the leader, and is stopped leader=db3"
    ]


def streams_uncompared(times: int, followed: int = 0) -> World:
    """So many comparisons have failed."""
    failures = {"compare": Failures(times, NOW - 1, why="still being replayed")} if times else {}
    return a_view().me(STANDBY).following().leader("db1").remembers(followed=followed, failures=failures)


def test_a_standby_that_cannot_be_compared_while_it_streams():
    text = "what streams here cannot be compared with the leader's history leader=db1 why=still being replayed"

    assert told(streams_uncompared(0), streams_uncompared(2)) == []
    assert told(*(streams_uncompared(times) for times in (2, 3, 4, 0, 3))) == [text]
    assert streams_uncompared(3).view().problem == "still being replayed"
    assert told(streams_uncompared(3, followed=TERM)) == []
    assert streams_uncompared(3, followed=TERM).view().problem == ""


def test_the_journal_says_what_the_tick_cost():
    view = leading().view()
    journal = Journal()
    journal.record(Entry(5.0, 0.0, view, decide(view), 0.001))
    journal.took(6.0, 9.0)  # a tick that brought nothing new
    assert journal.latest is not None
    assert journal.latest.seconds == 0.001
    journal.took(5.0, 0.25)
    assert journal.latest.seconds == 0.25


def test_the_tick_tells_the_journal():
    """Of a tick that wrote to etcd: more than its look took."""
    world = Simulated(1, script=[])
    world.lasts_s = 5.0
    assert not world.run()
    journals = [host.core.journal for host in world.hosts.values() if host.core is not None]
    acquired = [entry for journal in journals for entry in journal if isinstance(entry.decision.lease.action, Acquire)]
    assert acquired
    assert all(entry.seconds > entry.view.now - entry.at > 0 for entry in acquired)
