"""Planted bugs: what somebody could have got wrong in the real code, one by one. A simulator that does not notice them proves nothing.

Each is a function that plants itself (mutants_lease.py, mutants_work.py, mutants_lot.py, mutants_edges.py, mutants_sync.py,
mutants_rules.py, mutants_guards.py, mutants_rare.py); its docstring says what is wrong with it. Most of the synchronous modes' are in
mutants_voting.py. `breaks` is the law that must notice it: any other does not count, nor does a cluster that never was whole, unless the
bug strikes at once. `hints` are seeds that are known to notice it, and `within` is how many of the seeds 0, 1, 2, ... must do, both
counted from `first`: a million for those of the synchronous modes. `scripts/sim --mutant NAME --many N --from M` looks for more. What
needs a rare constellation has a script of its own instead of the seeds' random ones: the seeds then only shuffle who and when. A mutant
that survives means that the world lacks a fault or a law.
"""

from __future__ import annotations

from tests.sim import mutants_edges as of_edges
from tests.sim import mutants_lease as of_lease
from tests.sim import mutants_lot as by_lot
from tests.sim import mutants_work as of_work
from tests.sim.mutants_guards import OF_GUARDS
from tests.sim.mutants_models import OF_MODELS
from tests.sim.mutants_needless import OF_NEEDLESS
from tests.sim.mutants_rare import OF_RARE
from tests.sim.mutants_voting import OF_RULES, OF_VOTES
from tests.sim.planting import Mutant
from tests.sim.shape import QUORUM, SETTINGS, SYNCHRONOUS, Shape

DIVERGED = "1.1 cut_from_standbys leader 25; 2 cut_from_etcd leader 20"  # an old primary with a tail of its own
FAST = {**SETTINGS, "ttl": 3, "retry_timeout": 1}

_ASYNCHRONOUS = (
    Mutant(of_lease.expiry_counted_from_the_reply, ("acknowledged without the leader key",), (0,), 4, "2.2 suspended_in_renew leader 8"),
    Mutant(of_lease.no_fence, ("two primaries",), (0,), 8, "2 config_edited_on_a_slow_disk leader 30"),
    Mutant(of_lease.fence_trusts_the_brain, ("two primaries",), (0,), 8, "2 config_edited_on_a_slow_disk leader 30"),
    Mutant(of_lease.neither_fence_nor_step_down, ("acknowledged without the leader key",), (0,), 8, "2 cut_from_etcd leader 30"),
    Mutant(
        of_lease.blind_primary_restarts_without_its_lease,
        ("a primary was started without a lease that lives",),
        (0,),
        8,
        "2 cut_from_etcd leader 30",
    ),
    Mutant(
        of_lease.promotes_without_a_last_look,
        ("promoted without a lease that lives",),
        (0,),
        8,
        "2 power_off leader 30; 3 suspended_in_renew db1 1.8",
    ),
    Mutant(of_lease.lease_never_rebound, ("liveness: the configured ttl is in force",), (0,), 8, "2 ttl_edited leader 15"),
    Mutant(
        of_lease.rebound_lease_taken_for_granted,
        ("acknowledged without the leader key",),
        (6,),
        40,
        "2 requests_late leader 12; 2.2 ttl_edited leader 15; 4 requests_late leader 8; 4.2 ttl_edited leader 1;"
        "8.5 cut_from_etcd leader 60",
    ),
    Mutant(
        of_lease.a_live_lease_is_leadership,
        ("a second primary goes on",),
        (0,),
        8,
        "2 leaders_agent_unheard leader 5",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(
        of_lease.unknown_taken_for_done,
        ("promoted without leadership",),
        (0,),
        8,
        "1 requests_late leader 60;" + ";".join(f"{at} agent_told_to_end leader 1" for at in range(2, 58, 5)),
    ),
    Mutant(
        of_lease.unknown_resignation_forgotten,
        ("a primary was started while another leads",),
        (0,),
        4,
        "1 cut_one_way_in_resign leader 2; 2 data_unmounted leader 1",
    ),
    Mutant(of_lease.stale_read_taken_for_truth, ("acknowledged without the leader key",), (0,), 8, "2 cut_from_etcd leader 30"),
    Mutant(
        of_lease.leader_ignores_a_foreign_key,
        ("a second primary goes on",),
        (0,),
        4,
        "2 agent_frozen leader 30; 18 agent_killed db1 1; 18 agent_killed db2 1; 18 agent_killed db3 1",
    ),
    Mutant(
        of_lease.wins_without_comparing,
        ("the key was taken from its holder",),
        (1, 4),
        24,
        "2 power_off leader 40; 9 requests_late leader 25",
        Shape(5),
    ),
    Mutant(
        of_lease.takes_the_key_from_its_holder,
        ("the key was taken from its holder",),
        (1,),
        40,
        "2 agent_frozen leader 10.05; 2.1 slow_network leader 30",
    ),
    Mutant(
        of_lease.withdraws_blindly,
        ("a pledge was taken back while nobody leads",),
        (0, 3, 4),
        8,
        "1 requests_late leader 60;" + ";".join(f"{at} power_off leader 4.5" for at in range(2, 57, 5)),
        Shape(4, FAST),
    ),
    Mutant(
        of_lease.claims_without_comparing,
        ("two nodes bootstrap at once",),
        (0, 1),
        4,
        at_once=True,
    ),
    Mutant(
        of_lease.resigns_another_leadership,
        ("resigned what it did not hold",),
        (0, 2),
        8,
        "2 requests_late leader 60;" + ";".join(f"{at} agent_told_to_end leader 1" for at in range(3, 43, 10)),
    ),
    Mutant(
        of_work.ranks_by_priority_and_name_alone,
        ("asked to lead over a better pledge",),
        (1,),
        8,
        "2 one_cut_from_leader db2 20; 5 power_off leader 30",
    ),
    Mutant(of_work.pledges_before_it_froze, ("pledged while it streams",), (0,), 8, "2 agent_frozen leader 30"),
    Mutant(of_work.streams_while_it_is_pledged, ("streams while its pledge stands",), (0,), 8, "2 power_off leader 10"),
    Mutant(
        of_work.pledge_lost_at_a_restart,
        ("streams while its pledge stands",),
        (0, 3, 8, 9),
        20,
        "1 cut_from_etcd_in_pledge leader 9.754; 2 agent_frozen leader 40; 14 postmaster_killed db1 1; 14 postmaster_killed db2 1",
    ),
    Mutant(
        of_work.worst_candidate_wins, ("asked to lead over a better pledge",), (0,), 8, "1.5 cut_from_standbys db2 6; 3 power_off leader 30"
    ),
    Mutant(
        of_work.impatient_candidate,
        ("won before others could pledge",),
        (0, 2, 3),
        8,
        "1.5 cut_from_standbys db2 6; 2 deaf_watch db1 1; 2 deaf_watch db3 1; 3 power_off leader 30",
    ),
    Mutant(
        of_work.patience_counted_from_the_key,
        ("won before others could pledge", "asked to lead over a better pledge"),
        (0, 2, 3),
        8,
        "1.5 cut_from_standbys db2 6; 2 pause leader 30; 2.5 deaf_watch db1 1; 2.5 deaf_watch db3 1; 3 power_off leader 40",
    ),
    Mutant(
        of_work.lag_limit_ignored,
        ("a winner lagged more than maximum_lag_on_failover",),
        (0,),
        8,
        "2 cut_from_standbys leader 20; 8 power_off leader 20",
        Shape(settings={**SETTINGS, "maximum_lag_on_failover": 600}),
    ),
    Mutant(
        of_work.old_primarys_tail_may_stand,
        ("an old primary's tail was elected",),
        (0,),
        4,
        "2 cut_from_all leader 20; 21.9 power_off leader 30",
        Shape(2),
    ),
    Mutant(
        of_work.nofailover_ignored,
        ("a node with the tag nofailover was elected",),
        (2, 4, 7),
        8,
        "3 power_off leader 30",
        Shape(tags={"db2": {"nofailover": True}}),
    ),
    Mutant(
        of_work.candidates_name_ignored,
        ("another than the named candidate took over",),
        (0,),
        8,
        "; ".join(f"{at} switchover db{at % 3 + 1} 1" for at in range(2, 58, 8)),
    ),
    Mutant(
        of_work.sleeper_leads_again,
        ("an old primary leads again although another has led since",),
        (0,),
        4,
        "2 power_off leader 20; 21 power_off leader 30",
    ),
    Mutant(
        of_work.marker_not_honoured,
        ("a directory with a marker was started",),
        (0, 1),
        8,
        "1 slow_copies leader 12; 1 agent_killed_in_rewind leader 15; 1.1 cut_from_standbys leader 25; 2 cut_from_etcd leader 20;"
        "35 all_cut_from_etcd db1 25",
    ),
    Mutant(of_work.resigns_while_postgres_runs, ("resigned while its Postgres runs",), (0,), 8, "2 agent_told_to_end leader 1"),
    Mutant(of_work.leads_with_nothing, ("liveness: one legitimate primary",), (0,), 8, "2 disk_lost leader 1"),
    Mutant(of_work.crash_loop_never_given_up, ("a crash loop was never given up",), (0,), 8, "2 crash_loop leader 30"),
    Mutant(of_work.compare_skipped, ("a standby streams on another history",), (0,), 8, DIVERGED),
    Mutant(of_work.diverged_is_started, ("a standby streams on another history",), (0,), 8, DIVERGED),
    Mutant(of_work.always_moved_aside, ("a directory was replaced that could have followed",), (0, 1), 10, at_once=True),
    Mutant(of_work.postgres_that_hangs_is_left_alone, ("a hanging Postgres keeps its leadership",), (0,), 4, "2 postgres_hung leader 20"),
    Mutant(of_work.pause_not_honoured, ("started while paused",), (0,), 8, "2 pause leader 40; 5 postmaster_killed leader 1"),
    Mutant(of_work.request_never_cleared, ("liveness: no pledge and no request is left over",), (0,), 8, "2 switchover leader 1"),
    Mutant(
        of_work.hands_over_to_whoever_does_not_stream,
        ("handed over to a standby that does not stream",),
        (0, 1),
        8,
        "2 cut_from_standbys db1 40; 10 switchover db1 1",
    ),
    Mutant(of_work.wish_never_refused, ("liveness: no wish is left over",), (0,), 8, "2 reinit_asked leader 1"),
    Mutant(of_work.history_never_written, ("liveness: the history is written",), (0,), 8, "2 power_off leader 10"),
    Mutant(
        of_work.lost_config_means_defaults,
        ("a winner lagged more than maximum_lag_on_failover",),
        (0,),
        8,
        "1 etcd_wiped leader 1; 14 cut_from_standbys leader 20; 20 power_off leader 20",
        Shape(settings={**SETTINGS, "maximum_lag_on_failover": 600}),
    ),
    Mutant(
        of_work.primary_answered_before_it_is_writable,
        ("/primary is answered for a standby",),
        (0,),
        8,
        "1 slow_promotion leader 10; 2 power_off leader 30",
    ),
    Mutant(
        of_work.judged_before_the_leader_is_writable,
        ("asked of a leader that is not ready",),
        (0,),
        8,
        "1 slow_promotion leader 10; 2 power_off leader 12",
    ),
    Mutant(
        of_work.rewound_before_the_checkpoint,
        ("asked of a leader that is not ready",),
        (0,),
        8,
        "1 slow_checkpoint leader 15; 1.1 cut_from_standbys leader 14; 2 cut_from_etcd leader 12",
    ),
    Mutant(
        by_lot.pledges_the_timeline_it_once_received,
        ("a pledge that is not true",),
        (0,),
        8,
        "2 power_off leader 20; 30 power_off leader 20",
    ),
    Mutant(
        by_lot.only_members_of_now_are_awaited,
        ("won before others could pledge",),
        (0,),
        4,
        "2 cut_from_etcd db1 25; 2 cut_from_etcd db2 30; 2 cut_from_etcd db3 35; 5 power_off leader 60",
    ),
    Mutant(
        by_lot.silence_taken_for_no_primary,
        ("two primaries",),
        (0,),
        4,
        "2 postgres_hung leader 6; 2.5 config_edited_on_a_slow_disk leader 20",
    ),
)
_EDGES = (
    Mutant(
        of_edges.no_margin_for_clocks,
        ("acknowledged without the leader key",),
        (0,),
        8,
        "1 clock_drifts leader 0.1; 4 cut_from_etcd leader 40",
    ),
    Mutant(
        of_edges.leases_go_by_the_wall_clock,
        ("acknowledged without the leader key",),
        (0,),
        8,
        "4 cut_from_etcd leader 40; 4.5 wall_clock_jumps leader 0.1",
    ),
    Mutant(of_edges.fence_does_not_hear_of_a_pause, ("stopped while paused",), (0,), 8, "2 pause leader 40; 5 etcd_down leader 20"),
    Mutant(
        of_edges.routed_until_postgres_has_stopped,
        ("/primary is answered while its Postgres shuts down",),
        (0,),
        8,
        "1 slow_stop leader 4; 2 switchover leader 1",
    ),
    Mutant(
        of_edges.end_of_the_wal_is_not_published,
        ("a hand-over did not publish where its WAL ends",),
        (0,),
        8,
        "2 agent_told_to_end leader 1",
    ),
    Mutant(
        of_edges.preferred_voters_are_not_waited_for,
        ("a lesser voter did not wait for one that is preferred",),
        (0,),
        8,
        "; ".join(f"{at} power_off leader 6" for at in range(2, 58, 8)),
        Shape(4, {**QUORUM, "synchronous_node_count": 2}, {"db1": {"failover_priority": 2}}),
        first=SYNCHRONOUS,
    ),
    Mutant(
        of_edges.pause_holds_only_for_what_runs,
        ("replaced while paused",),
        (0,),
        8,
        "1.1 cut_from_standbys leader 8; 5 power_off leader 20; 20 pause leader 30",
    ),
    Mutant(of_edges.slots_are_never_made, ("a standby streams without a slot",), (0,), 8, "2 agent_killed leader 1"),
    Mutant(
        of_edges.priority_ranks_nobody,
        ("a lesser voter did not wait for one that is preferred",),
        (4,),
        8,
        "; ".join(f"{at} power_off leader 6" for at in range(2, 58, 8)),
        Shape(settings=QUORUM, tags={"db3": {"failover_priority": 2}}),
        first=SYNCHRONOUS,
    ),
    Mutant(
        of_edges.an_empty_voter_pledges,
        ("the winner lacks acknowledged rows",),
        (0,),
        8,
        "2 one_cut_from_leader db2 20; 3 disk_lost db1 0.5; 3.2 power_off leader 40",
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
)
_ALL = (*_ASYNCHRONOUS, *OF_MODELS, *OF_GUARDS, *OF_RARE, *_EDGES, *OF_VOTES, *OF_RULES, *OF_NEEDLESS)
MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in _ALL}
