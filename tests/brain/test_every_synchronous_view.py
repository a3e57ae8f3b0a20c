"""Laws that hold in every View of the synchronous modes. What is a proof is worked out here anew, not asked of the brain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from rivha.agent.brain import actions as do
from rivha.agent.brain.actions import Decision
from rivha.agent.brain.decide import decide
from rivha.agent.brain.quorum import Electors, Names, is_easier, keeps_the_rule
from rivha.agent.brain.upkeep import Housekeeping, RecordVoters, describe, upkeep
from rivha.agent.brain.view import View
from rivha.model import Data, Pledge, Role, State
from tests.brain.synchronous_worlds import worlds
from tests.build import ME, a_member

Seen = list[tuple[View, Decision]]


@pytest.fixture(scope="module")
def seen() -> Seen:
    views = [w.view() for w in worlds()]
    return [(v, decide(v)) for v in views]


def with_lease(seen: Seen, *kinds: type) -> Iterator[View]:
    """Never none: a law about nothing proves nothing."""
    found = [v for v, d in seen if isinstance(d.lease.action, kinds)]
    assert found
    yield from found


def records(seen: Seen) -> Iterator[tuple[View, Electors]]:
    found = 0
    for v, _ in seen:
        for chore in upkeep(v, describe(v, a_member(ME)), Housekeeping()):
            if isinstance(chore, RecordVoters):
                found += 1
                yield v, chore.electors
    assert found


def by_votes(v: View) -> bool:
    """Votes are asked for: a synchronous mode, or voters that such a mode left behind."""
    return v.policy.synchronous_mode != "off" or bool(v.voters)


def operator_named_me(v: View, *, loss: bool) -> bool:
    f = v.cluster.failover if v.cluster else None
    return f is not None and f.candidate == ME and f.leader is None and (f.accept_loss or not loss)


def both_witnesses(v: View) -> bool:
    w, c = v.witness, v.cluster
    assert c is not None
    if w is None or w.silent_s < v.policy.suspect_after_s:
        return False
    return c.leader is None or (w.unrenewed_s or 0.0) >= v.policy.suspect_after_s


def elected(v: View, mine: Pledge) -> bool:
    """q + 1 voters have pledged, of whom I am one, and the most advanced."""
    assert v.cluster is not None
    if v.sync is None:
        return False
    no_better = [p for p in v.cluster.pledges if p.name in v.voters and (p.timeline, p.lsn) <= (mine.timeline, mine.lsn)]
    return ME in v.voters and len(no_better) > v.sync.quorum


def handed_over(v: View, mine: Pledge) -> bool:
    """The leader's Postgres has stopped, the key is gone, and I hold the record that it ended with."""
    r = v.cluster.resigned if v.cluster else None
    if r is None or not v.nobody_leads or not r.lsn:
        return False
    return (r.timeline == mine.timeline) and mine.lsn > r.lsn and (r.candidate == ME or ME in v.voters)


def test_there_is_always_an_answer_and_it_gives_its_reason(seen: Seen):
    for v, d in seen:
        assert all((d.lease.reason, d.lease.rule, d.postgres.reason, d.postgres.rule))
        upkeep(v, describe(v, a_member(ME)), Housekeeping())


def test_nobody_wins_without_a_proof_or_an_operator_who_accepts_the_loss(seen: Seen):
    for v in with_lease(seen, do.Win):
        mine = v.my_pledge
        assert mine is not None
        assert v.running
        assert v.postgres.role is Role.STANDBY
        if by_votes(v):
            accepted = operator_named_me(v, loss=True) and v.nobody_leads
            assert accepted or elected(v, mine) or handed_over(v, mine)
            assert v.nobody_leads or both_witnesses(v)
        else:
            assert v.nobody_leads


def test_nobody_pledges_against_a_leader_that_one_witness_has_seen(seen: Seen):
    for v in with_lease(seen, do.MakePledge):
        assert v.cluster is not None
        assert v.my_pledge is None
        if by_votes(v):
            said_so = v.nobody_leads and (v.cluster.resigned is not None or operator_named_me(v, loss=True))
            assert said_so or (both_witnesses(v) and ME in v.voters)
        else:
            assert v.nobody_leads


def test_a_pause_stands_for_nothing_unless_an_operator_named_me(seen: Seen):
    for v in with_lease(seen, do.Win, do.MakePledge, do.Acquire):
        if v.policy.paused:
            assert operator_named_me(v, loss=False) or v.is_primary


def test_a_machine_that_must_not_lead_never_wins(seen: Seen):
    assert not any(a_member(ME, tags=v.tags).nofailover for v in with_lease(seen, do.Win))


def test_the_free_key_is_taken_without_votes_by_the_holder_alone(seen: Seen):
    """Or by the primary of a cluster whose record etcd has lost."""
    for v in with_lease(seen, do.Acquire):
        assert v.nobody_leads
        assert v.my_pledge is None or v.i_am_the_holder
        assert v.sync is None or v.sync.leader == ME
        if v.postgres.role is Role.STANDBY:
            assert v.i_am_the_holder
            assert v.postgres.upstream is None
        elif v.sync is None:
            assert v.is_primary


def test_nothing_streams_while_my_pledge_stands_or_may_land(seen: Seen):
    held = 0
    for v, d in seen:
        may_land = by_votes(v) and v.a_pledge_may_land and v.postgres.role is Role.STANDBY and not v.postgres.streaming
        if v.my_pledge is None and not may_land:
            continue
        held += 1
        action = d.postgres.action
        assert not isinstance(action, do.Clone | do.Rewind)
        assert not (isinstance(action, do.Follow | do.Start) and action.upstream is not None)
    assert held


def test_a_voter_gives_up_no_data(seen: Seen):
    kept = 0
    for v, d in seen:
        if ME in v.voters and v.postgres.unfinished != "bootstrap":
            kept += v.wish("reinitialize") is not None
            assert not isinstance(d.postgres.action, do.Clone | do.Rewind | do.SetAside)
    assert kept


def test_a_voter_does_not_follow_while_it_stands_against_its_leader(seen: Seen):
    for v, d in seen:
        if v.other_leader is not None and ME in v.voters and both_witnesses(v) and not v.policy.paused:
            assert not isinstance(d.postgres.action, do.Follow)


def test_electors_become_easier_only_past_the_barrier_and_take_in_only_who_streams(seen: Seen):
    for v, after in records(seen):
        before = Electors(v.voters, v.sync.quorum if v.sync else 0)
        in_force = v.memory.in_force
        if is_easier(before, after):
            assert in_force is not None
            assert in_force.passed
            assert in_force.text == v.postgres.synchronous_standby_names
            assert not v.sync_doubtful
        streams = {r.application_name for r in v.postgres.replication if r.state == "streaming" and r.flush_lsn is not None}
        assert after.voters - before.voters <= streams


def test_electors_keep_the_rule_with_the_names_in_force(seen: Seen):
    for v, after in records(seen):
        names = Names.parse(v.postgres.synchronous_standby_names)
        assert v.i_lead
        assert v.sync_doubtful or (names is not None and keeps_the_rule(after, names)) or not after.voters


def test_names_keep_the_rule_with_the_electors_and_are_not_changed_while_a_record_may_land(seen: Seen):
    changed = 0
    for v, d in seen:
        if isinstance(d.postgres.action, do.Synchronize):
            changed += 1
            names = Names.parse(d.postgres.action.names)
            assert names is not None
            assert v.i_lead
            assert not v.sync_doubtful
            assert keeps_the_rule(Electors(v.voters, v.sync.quorum if v.sync else 0), names)
    assert changed


def test_a_promotion_names_somebody_if_somebody_is_there(seen: Seen):
    promoted = 0
    for v, d in seen:
        if not isinstance(d.postgres.action, do.Promote):
            continue
        promoted += 1
        assert v.i_lead
        names = Names.parse(d.postgres.action.names)
        assert names is not None
        if v.i_am_the_holder:  # what somebody wrote by hand is mended by who leads
            assert keeps_the_rule(Electors(v.voters, v.sync.quorum if v.sync else 0), names)
        members = v.cluster.members if v.cluster else ()
        able = [m for m in members if m.name != ME and m.state == "running" and m.role == "replica" and not m.leaving]
        if v.synchronous and able:
            assert names.members
    assert promoted


def test_the_key_is_given_back_only_when_no_postgres_is_left(seen: Seen):
    for v in with_lease(seen, do.Resign):
        assert not v.busy
        assert v.down or v.policy.paused


def test_who_gives_the_key_back_or_writes_it_anew_starts_no_primary_in_the_same_tick(seen: Seen):
    """A new term refuses what is still under way only once it has begun."""
    for _, d in seen:
        if isinstance(d.lease.action, do.Resign | do.Rebind):
            assert not isinstance(d.postgres.action, do.Promote)
            assert not (isinstance(d.postgres.action, do.Start) and d.postgres.action.primary)


def test_a_primary_starts_only_by_who_leads_or_by_the_holder_of_a_lease_while_etcd_is_silent(seen: Seen):
    started = 0
    for v, d in seen:
        if isinstance(d.postgres.action, do.Start) and d.postgres.action.primary:
            started += 1
            assert v.i_lead or (v.cluster is None and v.lease is not None)
    assert started


def test_a_primary_that_neither_lease_nor_voters_vouch_for_is_being_stopped(seen: Seen):
    stopped = 0
    for v, d in seen:
        if v.is_primary and not v.policy.paused and v.step_down_at is not None and v.now >= v.step_down_at:
            stopped += 1
            assert isinstance(d.postgres.action, do.Stop) or v.busy_with("stop", "handover")
    assert stopped


def test_a_half_made_directory_is_never_started(seen: Seen):
    for v, d in seen:
        if v.postgres.data is not Data.VALID:
            assert not isinstance(d.postgres.action, do.Start | do.Promote)


def test_the_views_are_not_all_alike(seen: Seen):
    """What a sample proves hangs on what it holds: most rules of these modes fire often."""
    fired = Counter(rule for _, d in seen for rule in (d.lease.rule, d.postgres.rule))

    assert sum(v.postgres.state is State.RUNNING for v, _ in seen) > len(seen) / 3
    assert fired["win_when_i_rank_first"] > 50
    assert fired["name_the_standbys_that_commits_wait_for"] > 50
