"""Mutants of single rules of the synchronous modes: the rest of docs/model/takeover.py's mistakes, and rules that no other mutant touches.

See mutants.py.
"""

from __future__ import annotations

import math
from dataclasses import replace

from rivha.agent.brain import actions as do
from rivha.agent.brain import holding, leading, quorum, succession, synchronous, votes
from rivha.agent.brain.view import View
from rivha.dcs import records, writes
from rivha.dcs.base import Txn
from rivha.model import Cluster, Pledge
from tests.sim.planting import Garden

# ---- mistakes of the model -------------------------------------------------------------------------------------------------------


def strangers_are_made_voters(g: Garden) -> None:
    """A voter is added whether or not it streams from the leader (stranger-votes)."""
    g.put(lambda v: synchronous._named_now(v) | {m.name for m in v.cluster.members}, "_streaming", synchronous)


def hands_over_to_anybody(g: Garden) -> None:
    """Whoever has the whole timeline by its number takes over what was handed over, voter, candidate or not (hand-over-to-anybody)."""

    def holds(v: View, pledge: Pledge) -> bool:
        r = v.cluster.resigned if v.cluster and v.nobody_leads else None
        return r is not None and bool(r.lsn) and pledge.timeline == r.timeline and pledge.lsn > r.lsn

    g.put(holds, "holds_the_whole", votes)
    g.put(lambda v: None, "why_i_have_none", votes)


def resignation_outlives_who_leads_again(g: Garden) -> None:
    """Who gave the key back and takes it again leaves its resignation in etcd (resigned-kept)."""
    before = writes.acquire

    def acquire(c: Cluster, me: str, lease_id: int) -> Txn:
        txn = before(c, me, lease_id)
        return replace(txn, then=tuple(write for write in txn.then if write.key != records.RESIGNED))

    g.put(acquire, "acquire", writes)


def promotes_while_its_record_is_in_doubt(g: Garden) -> None:
    """Promoted again in its term, it names the voters of now, and a write of `sync` from before may land yet (late-sync-at-start)."""
    before = leading.promote_the_elected
    g.instead(before, lambda v: before(replace(v, sync_doubtful=False)))


# ---- a postmaster that died ------------------------------------------------------------------------------------------------------


def the_dead_keep_the_key(g: Garden) -> None:
    """Who leaves its dead Postgres to the voters does not give them the key, for as long as it takes."""
    g.without(holding.give_the_key_back_to_the_voters)
    g.put(float("inf"), "GIVE_BACK_S", succession)


def the_dead_say_where_they_ended(g: Garden) -> None:
    """What a dead Postgres's control file knows is given for the end of its WAL: who has that much takes over alone."""
    before = holding.give_the_key_back_to_the_voters

    def give_back(v: View) -> do.LeaseVerdict | None:
        found = before(v)
        return do.Verdict(do.Resign(None, v.postgres.wal_lsn or 0, "planted"), "planted") if found is not None else None

    g.instead(before, give_back)


# ---- nobody left, and nobody else ------------------------------------------------------------------------------------------------


def strict_blocks_nothing(g: Garden) -> None:
    """In strict mode a primary without standbys goes on alone."""
    g.put(quorum.NOBODY, "BLOCK", quorum)


def who_is_gone_is_waited_for(g: Garden) -> None:
    """No voter is ever given up, however long it has been silent."""
    g.put(lambda v, name: False, "is_lost", synchronous)


def who_lives_is_given_up(g: Garden) -> None:
    """degrade_after is counted from the primary's beginning, whatever the standbys have replied since."""
    before = synchronous.is_lost
    g.put(lambda v, name: before(replace(v, memory=replace(v.memory, replies={})), name), "is_lost", synchronous)


def the_elected_wait_for_a_leader(g: Garden) -> None:
    """Who was elected, and lost the key before its promotion, waits for somebody to lead, and nobody else may."""
    g.without(holding.lead_again_as_i_was_elected)


def the_leases_end_convicts(g: Garden) -> None:
    """A leader whose key is gone is lost, though its agent answers (the other half: one_witness_convicts)."""
    before = View.leader_is_lost.fget  # type: ignore[attr-defined]

    def leader_is_lost(v: View) -> bool:
        silent = replace(v.witness, silent_s=math.inf) if v.witness is not None else None
        return before(replace(v, witness=silent))  # type: ignore[no-any-return]

    g.put(property(leader_is_lost), "leader_is_lost", View)
