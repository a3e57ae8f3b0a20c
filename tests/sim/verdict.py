"""The laws of liveness and of what is left, judged once after healing: every promise of DESIGN 13 that needs time to come true."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rivha.model import Cluster, Role
from tests.sim.disk import agree
from tests.sim.server import Instance

if TYPE_CHECKING:
    from tests.sim.laws import Laws


def judge(laws: Laws) -> None:
    """After healing: one legitimate primary, everybody streams from it, nothing is left over, nothing more was lost than forgiven."""
    world, c = laws.world, laws.cluster()
    leader = c.leader.name if c.leader else None
    writable = [i.host for i in world.instances.values() if i.writable]
    if leader is None and not writable and _no_copy_is_left(laws):
        return
    if leader is None or writable != [leader]:
        laws.break_("liveness: one legitimate primary", f"leader {leader}, writable {writable}")
        return
    primary = world.instances[leader]
    for host in world.hosts.values():
        i = host.instance
        if host.name != leader and (i.role is not Role.STANDBY or i.receiving != leader):
            laws.break_("liveness: every live node streams from the primary", f"{host.name}: {i.state.value}, exits {host.exits[-2:]}")
        if host.core is not None and host.core.desk.wishes:
            laws.break_("liveness: no wish is left over", f"{host.name}: {list(host.core.desk.wishes.values())}")
        if i.role is Role.STANDBY and i.replay_paused:
            laws.break_("liveness: every standby replays", f"{host.name}, at {i.replayed} of {i.disk.end}")
        if i.disk.marker:
            laws.break_("liveness: no unfinished directory is left over", f"{host.name}: {i.disk.marker}")
    if c.pledges or c.failover or c.complaints:
        laws.break_("liveness: no pledge and no request is left over", f"{c.pledges} {c.failover} {c.complaints}")
    _nothing_more_is_lost(laws, {entry.ident for entry in primary.disk.wal})
    strict = world.shape.settings.get("synchronous_mode_strict")  # it may rightly have nobody to wait for
    if not strict and not any(a.at > world.whole_at for a in world.clients.acknowledged):
        laws.break_("liveness: rows are acknowledged", "none since the cluster was whole")
    if unsettled := laws.unsettled():
        laws.break_("liveness: the voters are as the configuration says, and commits are acknowledged", unsettled)
    _histories_agree(laws, primary, c)
    _the_scripts_know(laws, leader)
    _settings_are_in_force(laws, c)


def _no_copy_is_left(laws: Laws) -> bool:
    """A disk was lost while the others were being copied anew: then there is a backup to restore, and nothing to judge."""
    lost = laws.world.happened["disk_lost"] + laws.world.happened["directory_removed"]
    return lost > 0 and not any(i.disk.system_id and not i.disk.marker for i in laws.world.instances.values())


def _nothing_more_is_lost(laws: Laws, held: set[int]) -> None:
    lost = [a for a in laws.world.clients.acknowledged if a.ident not in held and a.ident not in laws.forgiven]
    if lost:
        laws.break_("acknowledged rows are missing", f"{len(lost)}, the first is row {lost[0].number} of {lost[0].host}")


def _histories_agree(laws: Laws, primary: Instance, c: Cluster) -> None:
    """Every standby holds a prefix of the primary's WAL; etcd knows the timelines that ended and a position that was reached."""
    for i in laws.world.instances.values():
        if agree(i.disk.wal, primary.disk.wal) < len(i.disk.wal):
            laws.break_("a standby streams on another history", i.host)
    if c.optime > primary.disk.end:
        laws.break_("the published position was never reached", f"{c.optime}, the primary is at {primary.disk.end}")
    if not history_is_written(laws, primary):
        laws.break_("liveness: the history is written", f"timeline {primary.disk.timeline}, etcd knows {c.history[-1:]}")


def history_is_written(laws: Laws, primary: Instance) -> bool:
    """etcd knows where the timeline before the primary's ended. Garbage there is noticed at a beat, and so is its end."""
    c = laws.cluster()
    return [(h.timeline, h.lsn) for h in primary.disk.past[-1:]] == [(h.timeline, h.lsn) for h in c.history[-1:]]


def _the_scripts_know(laws: Laws, leader: str) -> None:
    """The scripts of who leads have been told so, and nobody else's believe it: a virtual address is in one place (HAZARDS C 47)."""
    for host in laws.world.hosts.values():
        if (host.told.role == "primary") != (host.name == leader):
            laws.break_("the scripts were not told who leads", f"{host.name}: {host.told.lines[-2:]}, {leader} leads")


def _settings_are_in_force(laws: Laws, c: Cluster) -> None:
    """The leader key hangs on a lease of the configured ttl."""
    if not ttl_is_in_force(laws):
        laws.break_("liveness: the configured ttl is in force", f"{c.config}")


def ttl_is_in_force(laws: Laws) -> bool:
    c = laws.cluster()
    wanted, lease = c.config.get("ttl") if c.config else None, laws.world.store.leases.get(c.leader.lease_id) if c.leader else None
    return lease is None or not isinstance(wanted, int) or lease.ttl_s == wanted
