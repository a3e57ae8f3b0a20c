"""Faults of the network and of etcd."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rivha.dcs.base import Delete
from tests.sim.network import CLIENT, ETCD

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.world import World


def cut(world: World, pairs: Iterable[tuple[str, str]], seconds: float) -> None:
    """Nothing passes from the first of each pair to the second, for so long."""
    for pair in sorted(pairs):
        world.network.cuts.add(pair)
        world.for_a_while(("cut", pair), seconds, functools.partial(world.network.cuts.discard, pair))


def _cut(world: World, host: str, others: Iterable[str], seconds: float) -> None:
    """Both ways."""
    cut(world, [pair for other in others for pair in ((host, other), (other, host))], seconds)


def cut_from_etcd(world: World, host: Host, seconds: float) -> None:
    """It does not reach etcd for so long, nor etcd it."""
    _cut(world, host.name, [ETCD], seconds)


def all_cut_from_etcd(world: World, _: Host, seconds: float) -> None:
    """etcd is well, and no node reaches it: long enough, and all leases end together (HAZARDS A 17)."""
    for name in world.hosts:
        _cut(world, name, [ETCD], seconds)


def cut_one_way(world: World, host: Host, seconds: float) -> None:
    """Its requests to etcd arrive, the answers do not."""
    cut(world, [(ETCD, host.name)], seconds)


def cut_from_all(world: World, host: Host, seconds: float) -> None:
    """It reaches no other host, no etcd and no client."""
    _cut(world, host.name, [*(h for h in world.hosts if h != host.name), ETCD, CLIENT], seconds)


def cut_from_standbys(world: World, host: Host, seconds: float) -> None:
    """It reaches etcd and the clients, but no other host."""
    _cut(world, host.name, [h for h in world.hosts if h != host.name], seconds)


def cut_from_clients(world: World, host: Host, seconds: float) -> None:
    """HAProxy and the clients do not reach it."""
    _cut(world, host.name, [CLIENT], seconds)


def split_in_two(world: World, host: Host, seconds: float) -> None:
    """This host and its neighbour keep etcd; the others keep each other and the clients."""
    names = sorted(world.hosts)
    here = {host.name, names[(names.index(host.name) + 1) % len(names)]}
    for name in names:
        far = [*(n for n in names if (n in here) != (name in here)), CLIENT if name in here else ETCD]
        _cut(world, name, far, seconds)


def etcd_down(world: World, _: Host, seconds: float) -> None:
    """etcd has no quorum for so long; then it has a new leader, which extends every lease."""
    world.store.up = False

    def up() -> None:
        world.store.up = True
        world.store.change_leader()

    world.for_a_while("etcd", seconds, up)


def etcd_elects(world: World, _: Host, __: float) -> None:
    """etcd is without a leader for 1.5 s; the new one extends every lease."""
    etcd_down(world, _, 1.5)


def etcd_wiped(world: World, _: Host, __: float) -> None:
    """Somebody deletes the cluster's prefix. What leases promise is void until all have heard.

    Not while a node is empty: with nothing in etcd and nothing on its disk, it cannot know that it is not the first of a new cluster.
    """
    if any(not h.instance.disk.system_id for h in world.hosts.values()):
        return
    world.laws.wiped()
    world.store.write(tuple(Delete(key) for key in sorted(world.store.keys)))


def requests_late(world: World, _: Host, seconds: float) -> None:
    """etcd carries out what its sender has long given up."""
    world.network.late = 0.3
    world.for_a_while("late", seconds, lambda: setattr(world.network, "late", 0.0))


def messages_lost(world: World, _: Host, seconds: float) -> None:
    """A fifth of the messages to and from etcd and between agents is lost."""
    world.network.loss = 0.2
    world.for_a_while("loss", seconds, lambda: setattr(world.network, "loss", 0.0))


def slow_network(world: World, _: Host, seconds: float) -> None:
    """Every message takes a hundred times as long: up to 0.2 s one way."""
    _slow(world, 100.0, seconds)


def crawling_network(world: World, _: Host, seconds: float) -> None:
    """Half a second to two, one way: at the budgets' edge."""
    _slow(world, 1000.0, seconds)


def _slow(world: World, factor: float, seconds: float) -> None:
    world.network.slow = factor
    world.for_a_while("slow", seconds, lambda: setattr(world.network, "slow", 1.0))


def deaf_watch(world: World, host: Host, _: float) -> None:
    """Its agent's watch dies silently: only the beat tells it what is new."""
    if host.dcs is not None:
        host.dcs.deaf = True


def member_without_quorum(world: World, host: Host, seconds: float) -> None:
    """The server of etcd that this host asks reaches no other: for so long nothing is answered, and its watch is silent."""
    world.store.isolate(host.name, seconds)


def late_watch(world: World, host: Host, number: float) -> None:
    """The server of etcd that this host asks lags: for twice so many seconds its watch tells of changes up to five seconds late."""
    world.store.tells_late_s[host.name] = number / 4.0
    world.for_a_while((host.name, "watch"), 2 * number, lambda: world.store.tells_late_s.pop(host.name, None))


def old_leader_answers(world: World, host: Host, seconds: float) -> None:
    """The server of etcd that this host asks led, hangs, and does not know that the others elect: for so long its renewals count nowhere.

    etcd issue 15247: before 3.4.31 and 3.5.13 who hangs in a write to its disk answers renewals with the full ttl as long as that lasts.
    """
    world.store.isolate(host.name, seconds, leads=True)
    etcd_elects(world, host, seconds)


def etcd_full(world: World, _: Host, seconds: float) -> None:
    """The quota of etcd is used up, for so long: it answers reads and renews leases, but takes no write and grants no lease."""
    world.store.full = True
    world.for_a_while("etcd's quota", seconds, lambda: setattr(world.store, "full", False))


KINDS: tuple[Callable[[World, Host, float], None], ...] = (
    cut_from_etcd,
    all_cut_from_etcd,
    cut_one_way,
    cut_from_all,
    cut_from_standbys,
    cut_from_clients,
    split_in_two,
    etcd_down,
    etcd_elects,
    etcd_wiped,
    requests_late,
    messages_lost,
    slow_network,
    crawling_network,
    deaf_watch,
    member_without_quorum,
    late_watch,
    old_leader_answers,
    etcd_full,
)
