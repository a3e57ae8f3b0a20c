"""A Postgres that somebody promoted past its agent, while another node leads (HAZARDS B 35)."""

from __future__ import annotations

from rivha.agent.brain import actions as do
from rivha.model import State
from tests.build import ME, PRIMARY, STANDBY, TERM, World, a_view, decided


def lost() -> World:
    """db1 leads, and is lost; I vote."""
    return a_view().me(STANDBY).leader("db1").mode("quorum").sync("db1", "db2 db3", 1).witness()


def lease(world: World) -> do.LeaseAction:
    return decided(world).lease.action


def test_a_verdict_is_forgotten_when_postgres_is_seen_as_a_primary_since():
    """Somebody promoted it by hand: what it wrote then is not the leader's, though the term is the same (HAZARDS B 35)."""
    compared = a_view().leader("db1").compared("same")

    assert compared.me(STANDBY).view().memory.history == "same"
    assert compared.me(PRIMARY, State.STOPPED).view().memory.history == "same", "an old primary that is about to follow"
    assert compared.me(PRIMARY).view().memory.history == ""


def test_a_primary_beside_the_last_leader_has_strayed_until_it_streams_again():
    stray = a_view().me(PRIMARY).leader("db1")

    assert stray.view().memory.strayed
    assert a_view().me(PRIMARY).leaderless().sync("db1").view().memory.strayed
    assert a_view().remembers(strayed=True).me(STANDBY).leader("db1").view().memory.strayed
    assert not a_view().remembers(strayed=True).me(STANDBY).following().leader("db1").view().memory.strayed
    assert not a_view().me(PRIMARY).leads().view().memory.strayed
    assert not a_view().me(PRIMARY).leaderless().sync(ME).view().memory.strayed, "I led last"
    assert not a_view().me(PRIMARY, State.STOPPED).leader("db1").view().memory.strayed


def test_a_voters_directory_that_was_promoted_stays_down_until_a_leader_can_tell_what_it_is_worth():
    """Also when the agent does not know any more that it strayed: it was restarted."""
    stopped = a_view().me(PRIMARY, State.STOPPED).leaderless(5.0).mode("quorum")

    assert decided(stopped.sync("db1", "db2 db3", 1)).postgres.action == do.Nothing()
    assert isinstance(decided(stopped.sync("db1", "db3 db4", 1)).postgres.action, do.Start), "an old primary, no voter"


def test_a_voter_that_was_promoted_by_hand_does_not_stand():
    """It would rank first, by its timeline alone, and lacks what was acknowledged meanwhile (HAZARDS B 35)."""
    assert lease(lost()) == do.MakePledge(TERM)
    assert lease(lost().remembers(strayed=True)) == do.Nothing()
    assert lease(lost().pledges(db2=200, db3=150).remembers(strayed=True)) == do.Nothing()
    accepted = lost().leaderless().wanted(None, ME, accept_loss=True)
    assert lease(accepted.remembers(strayed=True)) == do.MakePledge(TERM), "an operator takes it upon himself"
