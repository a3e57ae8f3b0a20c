"""Mutants of what takes three events: lineages, a full etcd, a record that nobody has read, a mode changed meanwhile. See mutants.py."""

from __future__ import annotations

from dataclasses import replace

from rivha.agent import tick
from rivha.agent.brain import following, holding, leading, succession, synchronous
from rivha.agent.brain.actions import LeaseVerdict
from rivha.agent.brain.view import View
from rivha.dcs import records, writes
from rivha.dcs.base import Put, Txn
from rivha.model import Cluster, Outcome
from tests.sim.etcd import Store
from tests.sim.planting import Garden, Mutant
from tests.sim.shape import QUORUM, SETTINGS, SYNCHRONOUS, Shape

# ---- whose WAL it is (docs/decisions/0010) ---------------------------------------------------------------------------------------


def of_one_leader_is_of_one_history(g: Garden) -> None:
    """Who was told to follow the same leader has a part of the same WAL, though it got nothing and made the number of its timeline anew."""

    def shares(v: View) -> bool:
        m = v.memory
        return m.followed != 0 and not m.adrift and m.followed in (v.term, v.leader_went_on_from)

    g.put(property(shares), "shares_the_leaders_past", View)


def an_older_number_is_an_older_history(g: Garden) -> None:
    """A timeline of a lower number than the leader's is taken for one that the leader has been on, in whatever term it was received."""

    def shares(v: View) -> bool:
        m = v.memory
        return m.followed != 0 and not m.adrift and (m.followed == v.term or v.mine_is_an_older_timeline)

    g.put(property(shares), "shares_the_leaders_past", View)


def who_is_not_compared_may_vote(g: Garden) -> None:
    """What streams from a leader that has led in another life becomes a voter while it is still being compared."""
    before = synchronous.why_i_am_no_voter
    g.put(lambda v: None if (why := before(v)) and "not been compared" in why else why, "why_i_am_no_voter", synchronous)


# ---- etcd out of space -----------------------------------------------------------------------------------------------------------


def the_dead_wait_for_room_in_etcd(g: Garden) -> None:
    """A primary that died stays down for as long as etcd refuses to take its key back."""
    g.put(float("inf"), "GIVE_BACK_S", succession)


def a_full_etcd_may_have_written(g: Garden) -> None:
    """What an etcd without space was asked to write counts as unknown, as if it had not answered."""
    before = Store.commit

    def commit(self: Store, txn: Txn) -> Outcome:
        outcome = before(self, txn)
        full = self.full and any(isinstance(write, Put) for write in txn.then)
        return Outcome.UNKNOWN if full and outcome is Outcome.REFUSED else outcome

    g.put(commit, "commit", Store)


# ---- a record that nobody has read -----------------------------------------------------------------------------------------------


def a_record_counts_unread(g: Garden) -> None:
    """The voters' proof rests on those of before, though etcd has said that others were recorded, until they are read."""
    g.put(lambda self, v: (v.key_is_mine or v.cluster is None) and not self.chores.done.sync_settled, "_sync_is_doubtful", tick.Tick)


def silence_settles_a_record(g: Garden) -> None:
    """A record of voters of unknown outcome is forgotten once etcd does not answer at all."""
    before = tick.Tick._sync_is_doubtful
    g.put(lambda self, v: v.cluster is not None and before(self, v), "_sync_is_doubtful", tick.Tick)


# ---- a mode that is changed in the middle ----------------------------------------------------------------------------------------


def the_elected_wait_when_the_mode_ends(g: Garden) -> None:
    """Who was elected, and lost the key before its promotion, waits for its own votes once the mode is off."""
    rule = holding.lead_again_as_i_was_elected

    def again(v: View) -> LeaseVerdict | None:
        return rule(v) if v.synchronous else None

    g.instead(rule, again)


def who_leads_again_keeps_its_pledge(g: Garden) -> None:
    """Who pledged in mode off, and leads again as the holder once the mode is on, leaves its pledge standing."""
    before = writes.acquire

    def acquire(c: Cluster, me: str, lease_id: int) -> Txn:
        txn = before(c, me, lease_id)
        return replace(txn, then=tuple(write for write in txn.then if write.key != records.PLEDGES + me))

    g.put(acquire, "acquire", writes)


# ---- what etcd was restored to, and settings ---------------------------------------------------------------------------------------


def a_key_is_leadership_however_it_came(g: Garden) -> None:
    """Who finds its name in the leader key is promoted, though it follows another and was never elected."""
    g.put(lambda v: None, "why_i_was_not_elected", holding, leading)


def stopped_replay_is_left_alone(g: Garden) -> None:
    """A standby that stopped to replay for a setting that is too small is not started anew, since it streams."""
    g.without(following.restart_with_the_primarys_sizes)


# db2 leads on timeline 2 and db4 follows it; db3 got nothing, and makes timeline 2 anew when both are gone from its sight.
ROLLING = "1.5 power_off db1 300; 2 cut_from_standbys db3 32; 16 cut_from_etcd db4 25; 17.5 power_off db2 300"
# db1 follows that second one, and leads on timeline 3 when db4 comes back.
ROLLING_ON = "1.5 power_off db1 14.5; 2 cut_from_standbys db3 14; 8 cut_from_etcd db4 34; 8.5 power_off db2 300; 30 power_off db3 300"
# db3 follows db2's timeline 2 and its agent freezes; db1 makes another, db2 is rewound to it, leads again, and db3 streams from it.
REWOUND = (
    "1.5 power_off db1 8; 8 agent_frozen db3 32; 9 power_off db2 11; 12 failover_with_loss db1 0; 30 switchover db2 0;"
    "36 slow_comparison db3 2"
)
NO_SPACE = "1 etcd_full db1 60; 5 postmaster_killed leader 1"
UNREAD = "2 cut_from_standbys db1 6; 7 cut_from_etcd_in_sync db1 {}; 11 cut_from_standbys db1 40"
LAGGING = {**SETTINGS, "maximum_lag_on_failover": 100_000, "ttl": 5, "retry_timeout": 2}
OF_RARE = (
    Mutant(
        of_one_leader_is_of_one_history,
        ("streams from another history",),
        (2, 6),
        8,
        ROLLING,
        Shape(4, LAGGING, {"db2": {"failover_priority": 2}}),
    ),
    Mutant(
        an_older_number_is_an_older_history,
        ("streams from another history",),
        (2, 6),
        8,
        ROLLING_ON,
        Shape(4, LAGGING, {"db2": {"failover_priority": 2}}),
    ),
    Mutant(
        who_is_not_compared_may_vote,
        ("a voter of another history",),
        (6,),
        16,
        REWOUND,
        Shape(settings={**LAGGING, "synchronous_mode": "quorum"}, tags={"db2": {"failover_priority": 2}}),
        first=SYNCHRONOUS,
    ),
    Mutant(
        the_dead_wait_for_room_in_etcd,
        ("a dead Postgres keeps the key",),
        (0,),
        4,
        NO_SPACE,
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        a_full_etcd_may_have_written,
        ("a dead Postgres keeps the key",),
        (0,),
        4,
        NO_SPACE,
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        a_record_counts_unread,
        ("/primary is answered by who was succeeded",),
        (0,),
        40,
        UNREAD.format(2.415),
        Shape(2, QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        silence_settles_a_record,
        ("/primary is answered by who was succeeded",),
        (0,),
        40,
        UNREAD.format(0.1),
        Shape(2, QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        the_elected_wait_when_the_mode_ends,
        ("liveness: one legitimate primary",),
        (0,),
        16,
        "1 power_off_in_win db1 0.02; 2 power_off leader 40; 6 mode_edited db1 16",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        who_leads_again_keeps_its_pledge,
        ("liveness: no pledge and no request is left over",),
        (6,),
        40,
        "2 mode_edited db1 0; 8 cut_from_etcd db1 14; 8 cut_from_etcd db2 40; 8 cut_from_etcd db3 40; 23 mode_edited db1 0.04",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(a_key_is_leadership_however_it_came, ("promoted on a key that nobody won",), (0,), 8, "3 key_restored db2 0"),
    Mutant(
        stopped_replay_is_left_alone,
        ("liveness: every standby replays",),
        (0,),
        4,
        "3 sizes_raised db1 0",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
)
