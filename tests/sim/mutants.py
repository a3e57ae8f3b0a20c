"""Planted bugs: what somebody could have got wrong in the real code, one by one. A simulator that does not notice them proves nothing.

Each is a function that plants itself (mutants_lease.py, mutants_work.py, mutants_lot.py, mutants_sync.py, mutants_rules.py); its docstring
says what is wrong with it.
`hints` are seeds that are known to notice it, and `within` is how many of the seeds 0, 1, 2, ... must do, both counted from `first`: a
million for those of the synchronous modes. `scripts/sim --mutant NAME --many N --from M` looks for more. What needs a rare constellation
has a script of its own instead of the seeds' random ones: the seeds then only shuffle who and when. A mutant that survives means that the
world lacks a fault or a law.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.sim import mutants_lease as of_lease
from tests.sim import mutants_lot as by_lot
from tests.sim import mutants_rules as of_rules
from tests.sim import mutants_sync as of_sync
from tests.sim import mutants_work as of_work
from tests.sim.planting import Garden
from tests.sim.shape import QUORUM, SETTINGS, SYNCHRONOUS, Shape

FAST = {**SETTINGS, "ttl": 3, "retry_timeout": 1}


@dataclass(frozen=True, slots=True)
class Mutant:
    plant: Callable[[Garden], None]
    hints: tuple[int, ...]
    within: int  # seeds
    script: str = ""  # faults.parse, but with ";" between the faults
    shape: Shape = Shape()  # noqa: RUF009 - of the script's cluster; frozen
    first: int = 0  # the seed that `hints` and `within` are counted from

    @property
    def name(self) -> str:
        return self.plant.__name__

    @property
    def seeds(self) -> tuple[int, ...]:
        """The hints first."""
        return tuple(self.first + n for n in (*self.hints, *(n for n in range(self.within) if n not in self.hints)))

    @property
    def what(self) -> str:
        return (self.plant.__doc__ or "").strip()


_ASYNCHRONOUS = (
    Mutant(of_lease.expiry_counted_from_the_reply, (0,), 4, "2.2 suspended_in_renew leader 8"),
    Mutant(of_lease.no_fence, (62, 182), 300),
    Mutant(of_lease.fence_trusts_the_brain, (62, 182), 300),
    Mutant(of_lease.neither_fence_nor_step_down, (0, 2), 10),
    Mutant(of_lease.blind_primary_restarts_without_its_lease, (0, 2), 10),
    Mutant(of_lease.promotes_without_a_last_look, (16, 28), 100),
    Mutant(of_lease.lease_never_rebound, (29, 109), 150),
    Mutant(
        of_lease.rebound_lease_taken_for_granted,
        (6,),
        40,
        "2 requests_late leader 12; 2.2 ttl_edited leader 15; 4 requests_late leader 8; 4.2 ttl_edited leader 1;"
        "8.5 cut_from_etcd leader 60",
    ),
    Mutant(of_lease.a_live_lease_is_leadership, (1, 3), 10),
    Mutant(
        of_lease.unknown_taken_for_done,
        (0,),
        8,
        "1 requests_late leader 60;" + ";".join(f"{at} agent_told_to_end leader 1" for at in range(2, 58, 5)),
    ),
    Mutant(of_lease.unknown_resignation_forgotten, (0,), 4, "1 cut_one_way_in_resign leader 2; 2 data_unmounted leader 1"),
    Mutant(of_lease.stale_read_taken_for_truth, (2, 7), 20),
    Mutant(
        of_lease.leader_ignores_a_foreign_key,
        (0,),
        4,
        "2 agent_frozen leader 30; 18 agent_killed db1 1; 18 agent_killed db2 1; 18 agent_killed db3 1",
    ),
    Mutant(of_lease.wins_without_comparing, (89,), 300),
    Mutant(of_lease.takes_the_key_from_its_holder, (1,), 40, "2 agent_frozen leader 10.05; 2.1 slow_network leader 30"),
    Mutant(
        of_lease.withdraws_blindly,
        (0, 3, 4),
        8,
        "1 requests_late leader 60;" + ";".join(f"{at} power_off leader 4.5" for at in range(2, 57, 5)),
        Shape(4, FAST),
    ),
    Mutant(of_lease.claims_without_comparing, (0, 1), 4),
    Mutant(
        of_lease.resigns_another_leadership,
        (0, 2),
        8,
        "2 requests_late leader 60;" + ";".join(f"{at} agent_told_to_end leader 1" for at in range(3, 43, 10)),
    ),
    Mutant(of_work.pledges_before_it_froze, (0, 2), 10),
    Mutant(of_work.streams_while_it_is_pledged, (0, 1), 10),
    Mutant(
        of_work.pledge_lost_at_a_restart,
        (0, 3, 8, 9),
        20,
        "1 cut_from_etcd_in_pledge leader 9.754; 2 agent_frozen leader 40; 14 postmaster_killed db1 1; 14 postmaster_killed db2 1",
    ),
    Mutant(of_work.worst_candidate_wins, (7, 68), 150),
    Mutant(
        of_work.impatient_candidate,
        (0, 2, 3),
        8,
        "1.5 cut_from_standbys db2 6; 2 deaf_watch db1 1; 2 deaf_watch db3 1; 3 power_off leader 30",
    ),
    Mutant(
        of_work.patience_counted_from_the_key,
        (0, 2, 3),
        8,
        "1.5 cut_from_standbys db2 6; 2 pause leader 30; 2.5 deaf_watch db1 1; 2.5 deaf_watch db3 1; 3 power_off leader 40",
    ),
    Mutant(of_work.lag_limit_ignored, (865, 1018, 1062), 1500),
    Mutant(of_work.old_primarys_tail_may_stand, (0,), 4, "2 cut_from_all leader 20; 21.9 power_off leader 30", Shape(2)),
    Mutant(of_work.nofailover_ignored, (2, 4, 7), 8, "3 power_off leader 30", Shape(tags={"db2": {"nofailover": True}})),
    Mutant(of_work.candidates_name_ignored, (11, 260), 300),
    Mutant(of_work.sleeper_leads_again, (0,), 4, "2 power_off leader 20; 21 power_off leader 30"),
    Mutant(
        of_work.marker_not_honoured,
        (0, 1),
        8,
        "1 slow_copies leader 12; 1 agent_killed_in_rewind leader 15; 1.1 cut_from_standbys leader 25; 2 cut_from_etcd leader 20;"
        "35 all_cut_from_etcd db1 25",
    ),
    Mutant(of_work.resigns_while_postgres_runs, (1, 2), 10),
    Mutant(of_work.leads_with_nothing, (3, 4), 20),
    Mutant(of_work.crash_loop_never_given_up, (4, 7), 20),
    Mutant(of_work.compare_skipped, (0, 4), 20),
    Mutant(of_work.diverged_is_started, (4, 5), 20),
    Mutant(of_work.always_moved_aside, (0, 1), 10),
    Mutant(of_work.postgres_that_hangs_is_left_alone, (0,), 4, "2 postgres_hung leader 20"),
    Mutant(of_work.pause_not_honoured, (22, 74), 100),
    Mutant(of_work.request_never_cleared, (0, 1), 10),
    Mutant(of_work.hands_over_to_whoever_does_not_stream, (0, 1), 8, "2 cut_from_standbys db1 40; 10 switchover db1 1"),
    Mutant(of_work.wish_never_refused, (98, 117), 200),
    Mutant(of_work.history_never_written, (0, 1), 10),
    Mutant(of_work.lost_config_means_defaults, (3, 201), 300),
    Mutant(of_work.primary_answered_before_it_is_writable, (4, 16), 40),
    Mutant(of_work.judged_before_the_leader_is_writable, (4, 7), 20),
    Mutant(of_work.rewound_before_the_checkpoint, (4, 34), 100),
    Mutant(by_lot.pledges_the_timeline_it_once_received, (0,), 200),
    Mutant(
        by_lot.only_members_of_now_are_awaited,
        (0,),
        4,
        "2 cut_from_etcd db1 25; 2 cut_from_etcd db2 30; 2 cut_from_etcd db3 35; 5 power_off leader 60",
    ),
    Mutant(by_lot.silence_taken_for_no_primary, (0,), 4, "2 postgres_hung leader 6; 2.5 config_edited_on_a_slow_disk leader 20"),
)
LAGGARD = "4 one_cut_from_leader db3 10; 5.2 power_off leader 30"  # a voter that lacks what another holds
AGAIN = "2 one_cut_from_leader db2 20; 7 etcd_down leader 20; 7 cut_from_standbys leader 15"  # stopped in office, and promoted in it
_SYNCHRONOUS = (
    Mutant(of_sync.wins_with_q, (9, 2), 40, first=SYNCHRONOUS),
    Mutant(
        of_sync.any_pledges_elect_any_of_them,
        (2, 5),
        16,
        LAGGARD + "; 5 agent_frozen_in_pledge db2 9.9",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(of_sync.a_stranger_wins, (3,), 100, first=SYNCHRONOUS),
    Mutant(
        of_sync.the_modes_end_is_taken_for_heard,
        (0,),
        8,
        "2 cut_from_standbys leader 80; 8 cut_from_etcd leader 70; 20 mode_edited db1 16",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(of_sync.pledges_without_freezing, (0, 2), 10, first=SYNCHRONOUS),
    Mutant(
        of_sync.late_pledges_are_not_refused,
        (0, 2),
        8,
        "1 pledges_land_late db1 40; " + "; ".join(f"{at} leaders_agent_unheard leader 4" for at in (2, 9, 16, 23, 30)),
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(of_sync.one_witness_convicts, (6, 9), 20, first=SYNCHRONOUS),
    Mutant(
        of_sync.hands_over_to_who_is_behind,
        (0,),
        8,
        "2.6 one_cut_from_leader db3 30; 3 agent_told_to_end leader 1; 3.05 power_off db2 30",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(of_sync.voters_before_the_barrier, (0,), 8, LAGGARD, Shape(settings=QUORUM), first=SYNCHRONOUS),
    Mutant(
        of_sync.no_barrier, (0,), 8, "2 one_flushes_slowly db3 16; 4 nosync_for_a_while db2 20", Shape(settings=QUORUM), first=SYNCHRONOUS
    ),
    Mutant(of_sync.electors_first, (0,), 60, first=SYNCHRONOUS),
    Mutant(of_sync.names_first, (0, 2), 60, first=SYNCHRONOUS),
    Mutant(of_sync.alone_before_etcd_says_so, (5, 6), 60, first=SYNCHRONOUS),
    Mutant(of_sync.reloads_are_taken_at_once, (3, 4), 60, first=SYNCHRONOUS),
    Mutant(
        of_sync.names_count_when_they_are_written,
        (0,),
        8,
        "2 slow_reload leader 10; 2 slow_reload leader 10.04; 2.1 one_flushes_slowly db3 16; 4 nosync_for_a_while db2 20",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        of_sync.late_records_are_not_refused,
        (0,),
        8,
        "1 sync_lands_late db1 50;" + ";".join(f"{at} nosync_for_a_while db{at % 3 + 1} 1.2" for at in range(2, 50, 4)),
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        of_sync.records_are_written_unguarded,
        (0,),
        8,
        "1 sync_lands_late db1 60;"
        + ";".join(f"{at} nosync_for_a_while db{at % 3 + 1} 2" for at in range(2, 50, 4))
        + ";"
        + ";".join(f"{at}.3 power_off leader 5" for at in range(6, 50, 12)),
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(of_sync.configure_changes_the_names, (0, 3), 60, first=SYNCHRONOUS),
    Mutant(
        of_sync.leaving_voters_are_kept,
        (0,),
        8,
        "; ".join(f"2 reinit_asked db{n} 1" for n in (1, 2, 3)),
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        of_sync.voters_give_up_their_data,
        (0,),
        8,
        "; ".join(f"2 reinit_asked db{n} 1" for n in (1, 2, 3)),
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(of_sync.promotes_before_the_names, (0,), 8, AGAIN, Shape(settings=QUORUM), first=SYNCHRONOUS),
    Mutant(
        of_sync.promotes_with_any_names,
        (0,),
        8,
        AGAIN,
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        of_sync.names_lost_at_a_restart,
        (0,),
        8,
        "2 etcd_down leader 20; 4 postmaster_killed leader 1",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(of_sync.proof_of_stale_replies, (6, 7), 8, "2 split_in_two db2 40", Shape(settings=QUORUM), first=SYNCHRONOUS),
)
BACK = "2 cut_from_etcd db1 8; 2 cut_from_etcd db2 8; 2.5 agent_told_to_end db3 3"  # db3 gives the key back, and takes it again
# db3, fenced, is a standby with a tail that nobody else has while db1, elected, is not promoted yet; and db1 does not reach it.
STRAY = "1 agent_frozen_in_win db1 0.0043; 2 cut_from_standbys db3 30; 2 cut_from_etcd db3 9"
STRICT = {**QUORUM, "synchronous_mode_strict": True}
FAST_QUORUM = {**QUORUM, "ttl": 3, "retry_timeout": 1}
_RULES = (
    Mutant(of_rules.strangers_are_made_voters, (0,), 16, STRAY, Shape(settings=QUORUM), first=SYNCHRONOUS),
    Mutant(
        of_rules.hands_over_to_anybody,
        (0,),
        8,
        "2 agent_frozen db1 8; 2.1 agent_told_to_end leader 5",
        Shape(settings={**SETTINGS, "synchronous_mode": "on"}),
        first=SYNCHRONOUS,
    ),
    Mutant(
        of_rules.resignation_outlives_who_leads_again,
        (0,),
        16,
        BACK + "; 20 one_cut_from_leader db1 10; 21.2 power_off db2 30; 21.2 power_off db3 30",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        of_rules.promotes_while_its_record_is_in_doubt,
        (3, 26),
        80,
        "9.5 sync_lands_late db1 60; 10 nosync_for_a_while db1 20; 12.6 etcd_down leader 3.6; 12.65 disk_full leader 2",
        Shape(settings=FAST_QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(of_rules.the_dead_keep_the_key, (0,), 8, "2 postmaster_killed leader 1", Shape(settings=QUORUM), first=SYNCHRONOUS),
    Mutant(
        of_rules.the_dead_say_where_they_ended,
        (0,),
        16,
        "4 one_cut_from_leader db3 10; 5.2 agent_frozen db2 10; 5.2 postmaster_killed leader 1",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        of_rules.strict_blocks_nothing,
        (0,),
        8,
        "; ".join(f"2 nosync_for_a_while db{n} 20" for n in (1, 2, 3)),
        Shape(settings=STRICT),
        first=SYNCHRONOUS,
    ),
    Mutant(
        of_rules.who_is_gone_is_waited_for,
        (0,),
        8,
        "2 power_off db1 60; 2 power_off db2 60",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(of_rules.who_lives_is_given_up, (0,), 8, "2 power_off leader 10", Shape(settings=QUORUM), first=SYNCHRONOUS),
    Mutant(
        of_rules.the_elected_wait_for_a_leader,
        (0,),
        16,
        "1 power_off_in_win db1 0.02; 2 power_off leader 40",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(of_rules.the_leases_end_convicts, (0,), 16, "2 cut_from_etcd leader 30", Shape(settings=QUORUM), first=SYNCHRONOUS),
)
_ALL = (*_ASYNCHRONOUS, *_SYNCHRONOUS, *_RULES)
MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in _ALL}
