"""What one look sees, on the models of etcd and PostgreSQL."""

from __future__ import annotations

from rivha.agent.observe import Observer
from rivha.dcs.base import KeyValue
from tests.sim.etcd import SimDcs
from tests.sim.postgres import SimPostgres
from tests.sim.world import World


def test_an_etcd_restored_from_a_backup_and_written_up_to_the_same_revision_is_read_anew():
    world = World(0)
    store = world.store
    observer = Observer(SimDcs(store, world.network, "db1"), SimPostgres(world.instances["db1"]), world.loop.time)

    def leader_of(value: str) -> str | None:
        store.revision = 7
        store.keys = {"leader": KeyValue("leader", value, 7, 7, 1)}
        seen = world.loop.run_until_complete(observer.look(1.0)).cluster
        return seen.leader.name if seen is not None and seen.leader is not None else None

    assert [leader_of("db2"), leader_of("db3")] == ["db2", "db3"]
    world.loop.close()
