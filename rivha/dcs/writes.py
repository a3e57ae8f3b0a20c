"""Every transaction that the agent and its API write to etcd, one builder each; the docstring says what it guards and why.

Pure. `c` is the Cluster that the decision was based on: what it does not show exactly as it is now, etcd refuses. A key that could not
be parsed counts as absent here, so that every transaction resting on it is refused (it exists, at a revision that is not 0).
These are the actions of the model checked in DESIGN 6 (takeover.py); change the model first. Called by perform.py and the API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rivha.dcs.base import Delete, Put, Txn, Unchanged
from rivha.dcs.records import (
    CONFIG,
    FAILOVER,
    HELD,
    HISTORY,
    INITIALIZE,
    LEADER,
    MEMBERS,
    PLEDGES,
    RESIGNED,
    STATUS,
    SYNC,
    WITHDRAWN,
    config_text,
    failover_text,
    history_text,
    member_text,
    pledge_text,
    resignation_text,
    status_text,
    sync_text,
)
from rivha.model import Cluster, HistoryLine, Lsn, Member, Pledge, Resignation, SyncState


def merge(*txns: Txn) -> Txn:
    """All of them or nothing. Raises ValueError when two contradict each other: etcd would refuse every time."""
    when: dict[str, Unchanged] = {}
    then: dict[str, Put | Delete] = {}
    for txn in txns:
        for compare in txn.when:
            if when.setdefault(compare.key, compare) != compare:
                raise ValueError(f"merge: {compare.key} cannot be at two revisions")
        for write in txn.then:
            if then.setdefault(write.key, write) != write:
                raise ValueError(f"merge: {write.key} is written twice, differently")
    return Txn(tuple(when.values()), tuple(then.values()))


# ---- guards ----------------------------------------------------------------------------------------------------------------------


def _leader_as_read(c: Cluster) -> Unchanged:
    """Nobody took the key, gave it back or lost it since."""
    return Unchanged(LEADER, c.leader.term if c.leader else 0)


def _leader_mine(c: Cluster, me: str) -> Unchanged:
    """I lead, and it is still the leadership that I saw."""
    assert c.leader is not None, f"{me} does not lead: nobody does"
    assert c.leader.name == me, f"{me} does not lead: {c.leader.name} does"
    return Unchanged(LEADER, c.leader.term)


def _leader_absent() -> Unchanged:
    return Unchanged(LEADER, 0)


def _sync_as_read(c: Cluster) -> Unchanged:
    return Unchanged(SYNC, c.sync.revision if c.sync else 0)


# ---- the first leader ------------------------------------------------------------------------------------------------------------


def claim_bootstrap(lease_id: int) -> Txn:
    """I make the first data directory. Guard: `initialize` does not exist.

    The claim hangs on the member lease, so that a bootstrapper that dies does not keep the others waiting for ever.
    """
    return Txn((Unchanged(INITIALIZE, 0),), (Put(INITIALIZE, "", lease_id),))


def finish_bootstrap(c: Cluster, me: str, lease_id: int, system_id: str, config: Mapping[str, object] | None) -> Txn:
    """The cluster exists and I lead it. Guards: `initialize` and `sync` as read, nobody leads, and `config` absent if it is to be written.

    `initialize` as read is my claim (see to it: `c.initialize_lease_id`), or absent when a Postgres that ran before is adopted. A
    config that is there already is the operator's, and is left alone. `lease_id` is the leader's lease, not the claim's.
    """
    assert not c.initialize, f"the cluster is initialized already, as {c.initialize}"
    when = [Unchanged(INITIALIZE, c.initialize_revision), _leader_absent(), _sync_as_read(c)]
    then: list[Put | Delete] = [Put(INITIALIZE, system_id), Put(LEADER, me, lease_id), Put(SYNC, sync_text(me)), Delete(RESIGNED)]
    if config is not None and c.config_revision == 0:
        when.append(Unchanged(CONFIG, 0))
        then.append(Put(CONFIG, config_text(config)))
    return Txn(tuple(when), tuple(then))


def abandon_bootstrap(c: Cluster) -> Txn:
    """My bootstrap failed: let another try. Guard: `initialize` is still the claim that was read, never a system identifier."""
    assert c.initialize == "", "there is no claim to abandon"
    return Txn((Unchanged(INITIALIZE, c.initialize_revision),), (Delete(INITIALIZE),))


# ---- leadership ------------------------------------------------------------------------------------------------------------------


def acquire(c: Cluster, me: str, lease_id: int) -> Txn:
    """Take the free key without an election: for the holder named in `sync`, or in asynchronous mode. Guards: nobody leads, `sync` as read.

    `sync` is rewritten even when its text stays the same: its new revision refuses a candidate that is just about to win. The holder keeps
    its voters: should its Postgres not come up again, they elect.
    """
    mine = c.sync if c.sync is not None and c.sync.leader == me else SyncState(me, frozenset(), 0, 0)
    return Txn((_leader_absent(), _sync_as_read(c)), _take_over(me, lease_id, mine))


def win(c: Cluster, me: str, lease_id: int) -> Txn:
    """The election's one transaction (DESIGN 6.4). Guards: the leader key as read (gone, or still at the term that was pledged against),
    `sync` as read, and every pledge as read: none of them was withdrawn, so none of their writers acknowledges anything.

    Whether these pledges suffice (q + 1 voters, mine the best) is the caller's to decide, from the same `c`. So are the other two reasons
    to win, and so they are guarded too: a resignation that says where its WAL ended, and an operator's request; and `config`, which says
    that nobody need have acknowledged anything (mode off).
    """
    pledges = tuple(Unchanged(PLEDGES + p.name, p.revision) for p in c.pledges)
    basis = (
        Unchanged(RESIGNED, c.resigned.revision if c.resigned else 0),
        Unchanged(FAILOVER, c.failover_revision),
        Unchanged(CONFIG, c.config_revision),
        Unchanged(HELD, c.held_revision),
    )
    # No voters: what only the winner holds is nobody else's yet, so for this moment nobody else may lead.
    alone = SyncState(me, frozenset(), 0, 0)
    return Txn((_leader_as_read(c), _sync_as_read(c), *pledges, *basis), _take_over(me, lease_id, alone))


def _take_over(me: str, lease_id: int, sync: SyncState) -> tuple[Put | Delete, ...]:
    text = sync_text(me, sync.voters, sync.quorum)
    return (Put(LEADER, me, lease_id), Put(SYNC, text), Delete(PLEDGES + me), Delete(RESIGNED))


def record_voters(c: Cluster, me: str, voters: Iterable[str], quorum: int) -> Txn:
    """Any `quorum` + 1 of `voters` may elect from now on; without voters, only I may lead. Guards: the key is mine at the term read,
    `sync` as read.

    Writing what stands there already gives it a new revision, which refuses a write of mine that is still on its way.
    """
    return Txn((_leader_mine(c, me), _sync_as_read(c)), (Put(SYNC, sync_text(me, voters, quorum)),))


def hold_synchronously(c: Cluster, me: str, on: bool) -> Txn:
    """Says whether I go by a synchronous mode: a holder that cannot hear that the mode was turned off goes on without a lease, and is not
    to be succeeded as in asynchronous mode. Guards: the key is mine at the term read, `sync` and what is said now as read.
    """
    return Txn((_leader_mine(c, me), _sync_as_read(c), Unchanged(HELD, c.held_revision)), (Put(HELD, me) if on else Delete(HELD),))


def rebind(c: Cluster, me: str, lease_id: int) -> Txn:
    """Move my leadership to another lease (a new ttl). Guard: the key is mine at the term read. It is a new term afterwards."""
    return Txn((_leader_mine(c, me),), (Put(LEADER, me, lease_id),))


def pledge(c: Cluster, p: Pledge) -> Txn:
    """While it exists I stream from nobody and acknowledge nothing (DESIGN 6.2).

    Guards: the leadership given up on is the last, and `sync` as read. Every new leader writes `sync`: a pledge that was on its way, or
    whose freeze took long, cannot be made once somebody has led since, though the key be gone again. And my own key as read: a pledge
    that may be carried out yet is refused once it was withdrawn.
    """
    return Txn((_leader_as_read(c), _sync_as_read(c), _pledge_as_read(c, p.name)), (Put(PLEDGES + p.name, pledge_text(p)),))


def withdraw(c: Cluster, me: str) -> Txn:
    """I stream again. Guards: the leadership as read, so that nobody won on my pledge meanwhile, and my pledge key as read.

    It is not deleted but written over, also where no pledge stands: the new revision refuses one of mine that is still on its way.
    """
    return Txn((_leader_as_read(c), _pledge_as_read(c, me)), (Put(PLEDGES + me, WITHDRAWN),))


def _pledge_as_read(c: Cluster, name: str) -> Unchanged:
    return Unchanged(PLEDGES + name, c.pledge_revisions.get(name, 0))


def resign(c: Cluster, me: str, r: Resignation, optime: Lsn) -> Txn:
    """My Postgres has stopped, take over at once. Guard: the key is mine at the term that I resign.

    `optime` is the end of my WAL, published with it so that no follower is refused for a lag that it does not have;
    0 leaves what was last published.
    """
    guard = _leader_mine(c, me)
    assert r.term == guard.mod_revision, f"resigning term {r.term}, leading in {guard.mod_revision}"
    status = Put(STATUS, status_text(optime or c.optime, c.slots, c.retain_slots))
    return Txn((guard,), (Delete(LEADER), Put(RESIGNED, resignation_text(r)), status))


# ---- what is published -----------------------------------------------------------------------------------------------------------


def publish_member(m: Member, lease_id: int) -> Txn:
    """What a node says of itself. No guard: nobody else writes this key."""
    return Txn((), (Put(MEMBERS + m.name, member_text(m), lease_id),))


def publish_status(c: Cluster, optime: Lsn, slots: Mapping[str, Lsn], retain_slots: Iterable[str] = ()) -> Txn:
    """The leader's position, which bounds the followers' lag. Guard: the leadership as read, which is to be mine."""
    assert c.leader is not None, "nobody leads, so nobody publishes the leader's position"
    return Txn((_leader_as_read(c),), (Put(STATUS, status_text(optime, slots, retain_slots)),))


def put_history(c: Cluster, lines: Iterable[HistoryLine]) -> Txn:
    """The leader's. Guards: the leadership and `history` as read."""
    assert c.leader is not None, "nobody leads, so nobody writes the history"
    return Txn((_leader_as_read(c), Unchanged(HISTORY, c.history_revision)), (Put(HISTORY, history_text(lines)),))


def restore(c: Cluster, system_id: str | None, config: Mapping[str, object] | None) -> Txn:
    """Writes again what vanished from etcd; for the running leader only (HAZARDS A 16). Guards: the leadership as read, each key absent.

    Nothing to write when neither is missing: then `then` is empty and there is no need to commit it. A config that is there
    but cannot be read is not touched: that is the operator's to mend.
    """
    assert c.leader is not None, "nobody leads: only a running leader knows what was lost"
    when, then = [_leader_as_read(c)], []
    if system_id is not None and c.initialize is None:
        when.append(Unchanged(INITIALIZE, 0))
        then.append(Put(INITIALIZE, system_id))
    if config is not None and c.config_revision == 0:
        when.append(Unchanged(CONFIG, 0))
        then.append(Put(CONFIG, config_text(config)))
    return Txn(tuple(when), tuple(then))


# ---- what operators ask for ------------------------------------------------------------------------------------------------------


def put_config(c: Cluster, config: Mapping[str, object]) -> Txn:
    """The dynamic configuration, whole. Guard: as read, so that two patches at once do not undo each other."""
    return Txn((Unchanged(CONFIG, c.config_revision),), (Put(CONFIG, config_text(config)),))


def file_failover(c: Cluster, leader: str | None, candidate: str | None, scheduled_at: str | None, accept_loss: bool = False) -> Txn:
    """A switchover (`leader` given) or failover. `scheduled_at` is ISO 8601 with zone. Guard: as read, no other request came first."""
    text = failover_text(leader, candidate, scheduled_at, accept_loss)
    return Txn((Unchanged(FAILOVER, c.failover_revision),), (Put(FAILOVER, text),))


def clear_failover(c: Cluster) -> Txn:
    """The request is done, or dropped. Guard: it is still the one that was read."""
    return Txn((Unchanged(FAILOVER, c.failover_revision),), (Delete(FAILOVER),))
