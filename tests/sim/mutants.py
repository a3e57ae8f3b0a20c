"""Planted bugs: what somebody could have got wrong in the real code, one by one. A simulator that does not notice them proves nothing.

Each is a function that plants itself (mutants_lease.py, mutants_work.py); its docstring says what is wrong with it. `hints` are seeds that
are known to notice it, and `within` is how many of the seeds 0, 1, 2, ... must do. `scripts/sim --mutant NAME --many N` looks for more.
What needs a rare constellation has a script of its own instead of the seeds' random ones: the seeds then only shuffle who and when. A
mutant that survives means that the world lacks a fault or a law. The synchronous modes' own (voters, barriers) come with issue 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.sim import mutants_lease as of_lease
from tests.sim import mutants_lot as by_lot
from tests.sim import mutants_work as of_work
from tests.sim.planting import Garden
from tests.sim.shape import SETTINGS, Shape

FAST = {**SETTINGS, "ttl": 3, "retry_timeout": 1}


@dataclass(frozen=True, slots=True)
class Mutant:
    plant: Callable[[Garden], None]
    hints: tuple[int, ...]
    within: int  # seeds
    script: str = ""  # faults.parse, but with ";" between the faults
    shape: Shape = Shape()  # noqa: RUF009 - of the script's cluster; frozen

    @property
    def name(self) -> str:
        return self.plant.__name__

    @property
    def what(self) -> str:
        return (self.plant.__doc__ or "").strip()


_ALL = (
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
    Mutant(of_lease.unknown_taken_for_done, (98, 160), 200),
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
    Mutant(of_work.lag_limit_ignored, (113,), 300),
    Mutant(of_work.old_primarys_tail_may_stand, (0,), 4, "2 cut_from_all leader 20; 21.9 power_off leader 30", Shape(2)),
    Mutant(of_work.nofailover_ignored, (2, 4, 7), 8, "3 power_off leader 30", Shape(tags={"db2": {"nofailover": True}})),
    Mutant(of_work.candidates_name_ignored, (11, 260), 300),
    Mutant(of_work.sleeper_leads_again, (0,), 4, "2 power_off leader 20; 21 power_off leader 30"),
    Mutant(of_work.marker_not_honoured, (0, 1), 10),
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
MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in _ALL}
