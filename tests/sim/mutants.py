"""Planted bugs: what somebody could have got wrong in the real code, one by one. A simulator that does not notice them proves nothing.

Each is a function that plants itself (mutants_lease.py, mutants_work.py); its docstring says what is wrong with it. `hints` are seeds that
are known to notice it, and `within` is how many of the seeds 0, 1, 2, ... must do. `scripts/sim --mutant NAME --many N` looks for more. A
mutant that survives means that the world lacks a fault or a law. The synchronous modes' own (voters, barriers) come with issue 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.sim import mutants_lease as of_lease
from tests.sim import mutants_work as of_work
from tests.sim.planting import Garden


@dataclass(frozen=True, slots=True)
class Mutant:
    plant: Callable[[Garden], None]
    hints: tuple[int, ...]
    within: int  # seeds

    @property
    def name(self) -> str:
        return self.plant.__name__

    @property
    def what(self) -> str:
        return (self.plant.__doc__ or "").strip()


_ALL = (
    Mutant(of_lease.expiry_counted_from_the_reply, (), 0),
    Mutant(of_lease.no_fence, (62, 182), 183),
    Mutant(of_lease.fence_trusts_the_brain, (62, 182), 183),
    Mutant(of_lease.neither_fence_nor_step_down, (0, 2), 3),
    Mutant(of_lease.blind_primary_restarts_without_its_lease, (0, 2), 3),
    Mutant(of_lease.promotes_without_a_last_look, (0, 16), 17),
    Mutant(of_lease.lease_never_rebound, (29, 109), 110),
    Mutant(of_lease.rebound_lease_taken_for_granted, (), 0),
    Mutant(of_lease.a_live_lease_is_leadership, (1, 3), 4),
    Mutant(of_lease.unknown_taken_for_done, (160, 223), 224),
    Mutant(of_lease.unknown_resignation_forgotten, (), 0),
    Mutant(of_lease.stale_read_taken_for_truth, (2, 7), 8),
    Mutant(of_lease.leader_ignores_a_foreign_key, (), 0),
    Mutant(of_lease.wins_without_comparing, (), 0),
    Mutant(of_lease.takes_the_key_from_its_holder, (), 0),
    Mutant(of_lease.withdraws_blindly, (), 0),
    Mutant(of_lease.claims_without_comparing, (), 0),
    Mutant(of_lease.resigns_another_leadership, (), 0),
    Mutant(of_work.pledges_before_it_froze, (), 0),
    Mutant(of_work.streams_while_it_is_pledged, (), 0),
    Mutant(of_work.pledge_lost_at_a_restart, (), 0),
    Mutant(of_work.worst_candidate_wins, (), 0),
    Mutant(of_work.impatient_candidate, (), 0),
    Mutant(of_work.patience_counted_from_the_key, (), 0),
    Mutant(of_work.lag_limit_ignored, (), 0),
    Mutant(of_work.old_primarys_tail_may_stand, (), 0),
    Mutant(of_work.nofailover_ignored, (), 0),
    Mutant(of_work.candidates_name_ignored, (), 0),
    Mutant(of_work.sleeper_leads_again, (), 0),
    Mutant(of_work.marker_not_honoured, (), 0),
    Mutant(of_work.resigns_while_postgres_runs, (), 0),
    Mutant(of_work.leads_with_nothing, (), 0),
    Mutant(of_work.crash_loop_never_given_up, (), 0),
    Mutant(of_work.compare_skipped, (), 0),
    Mutant(of_work.diverged_is_started, (), 0),
    Mutant(of_work.always_moved_aside, (), 0),
    Mutant(of_work.postgres_that_hangs_is_left_alone, (), 0),
    Mutant(of_work.pause_not_honoured, (), 0),
    Mutant(of_work.request_never_cleared, (), 0),
    Mutant(of_work.hands_over_to_whoever_does_not_stream, (), 0),
    Mutant(of_work.wish_never_refused, (), 0),
    Mutant(of_work.history_never_written, (), 0),
    Mutant(of_work.lost_config_means_defaults, (), 0),
    Mutant(of_work.primary_answered_before_it_is_writable, (), 0),
    Mutant(of_work.judged_before_the_leader_is_writable, (), 0),
    Mutant(of_work.rewound_before_the_checkpoint, (), 0),
)
MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in _ALL}
