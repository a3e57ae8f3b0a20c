"""A store with etcd's transactions, for the tests of what each write guards."""

from __future__ import annotations

from rivha.dcs import records, writes
from rivha.dcs.base import Delete, KeyValue, Put, Reading, Txn
from rivha.model import Cluster, Pledge

SYSTEM = "7390000000000000001"


class Store:
    """etcd's transactions in ten lines."""

    def __init__(self) -> None:
        self.revision = 1
        self.items: dict[str, KeyValue] = {}

    def commit(self, txn: Txn) -> bool:
        if any((self.items[g.key].mod_revision if g.key in self.items else 0) != g.mod_revision for g in txn.when):
            return False
        self.revision += 1
        for write in txn.then:
            if isinstance(write, Put):
                self.items[write.key] = KeyValue(write.key, write.value, self.revision, self.revision, write.lease_id)
            else:
                self.items.pop(write.key, None)
        return True

    def cluster(self) -> Cluster:
        return records.cluster(Reading(self.revision, tuple(self.items[key] for key in sorted(self.items))))

    def put(self, key: str, value: str) -> None:
        self.commit(Txn((), (Put(key, value),)))

    def expire(self, lease_id: int) -> None:
        self.commit(Txn((), tuple(Delete(key) for key, item in self.items.items() if item.lease_id == lease_id)))


A_LEASE, B_LEASE = 101, 102


def pledge(store: Store, name: str, lsn: int = 7) -> None:
    leader = store.cluster().leader
    assert store.commit(writes.pledge(store.cluster(), Pledge(name, leader.term if leader else 0, 1, lsn)))
