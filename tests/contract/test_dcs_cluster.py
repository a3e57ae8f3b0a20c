"""What a `Dcs` of three etcd servers promises when they change their leader or lose their quorum."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from rivha.dcs.base import Put, Txn
from rivha.errors import DcsUnavailable
from rivha.model import Outcome
from tests.contract.running import contract
from tests.contract.stores import Store
from tests.etcd_process import eventually

SERVERS = 3
BUDGET_S = 15.0
SHORT_S = 1.0


def status(text: str) -> Txn:
    return Txn((), (Put("status", text),))


async def left_s(store: Store, lease_id: int) -> float:
    left = await store.client().time_to_live(lease_id, BUDGET_S)
    assert left is not None
    return left


@contract
async def test_a_new_leader_of_etcd_gives_every_lease_its_whole_ttl_again(store: Store) -> None:
    """HAZARDS I 1: it does not know how old they are. So a key outlives what its ttl says."""
    dcs = store.client()
    lease_id = await dcs.grant(6, BUDGET_S)
    await dcs.commit(Txn((), (Put("leader", "a", lease_id),)), BUDGET_S)
    left = [await left_s(store, lease_id)]

    async def look() -> None:
        while left[-1] > 3:
            left.append(await left_s(store, lease_id))
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    await eventually(looking.done, "half of the ttl passes")
    await store.elect()

    assert await left_s(store, lease_id) >= 5
    assert [item.key for item in (await dcs.read(BUDGET_S)).items] == ["leader"]


@contract
async def test_an_extended_lease_ends_all_the_same(store: Store) -> None:
    dcs = store.client()
    lease_id = await dcs.grant(2, BUDGET_S)
    await dcs.commit(Txn((), (Put("leader", "a", lease_id),)), BUDGET_S)
    await store.elect()
    keys = ["leader"]

    async def look() -> None:
        while keys:
            keys[:] = [item.key for item in (await dcs.read(BUDGET_S)).items]
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    await eventually(looking.done, "the key goes")
    assert await dcs.renew(lease_id, BUDGET_S) == 0.0


@contract
async def test_without_a_quorum_nothing_is_answered_from_memory_and_a_write_is_unknown(store: Store) -> None:
    dcs = store.client()
    lease_id = await dcs.grant(60, BUDGET_S)
    assert await dcs.commit(status("1"), BUDGET_S) is Outcome.DONE
    store.lose_quorum()

    with pytest.raises(DcsUnavailable):
        await dcs.read(SHORT_S)
    assert await dcs.commit(status("2"), SHORT_S) is Outcome.UNKNOWN
    with pytest.raises(DcsUnavailable):
        await dcs.renew(lease_id, SHORT_S)

    store.regain_quorum()
    (item,) = (await dcs.read(BUDGET_S)).items
    assert item.value in ("1", "2"), "what was unknown may have happened or not"
    assert await dcs.renew(lease_id, BUDGET_S) == 60.0
    assert await dcs.commit(status("3"), BUDGET_S) is Outcome.DONE


@contract
@pytest.mark.parametrize("leader", [True, False], ids=["leader", "follower"])
async def test_a_server_that_reaches_no_other_tells_nothing_old_and_counts_nothing(store: Store, leader: bool) -> None:
    """A leader may renew leases from memory until it notices, up to two election timeouts; one that hangs as well, longer (etcd 15247)."""
    dcs = store.client()
    lease_id = await dcs.grant(60, BUDGET_S)
    assert await dcs.commit(status("1"), BUDGET_S) is Outcome.DONE
    lone = await store.strand(leader=leader)

    with contextlib.suppress(DcsUnavailable):
        assert await lone.renew(lease_id, SHORT_S) == 60.0, "the whole ttl or no answer; never that it is gone"
    with pytest.raises(DcsUnavailable):
        await lone.read(SHORT_S)
    assert await lone.commit(status("2"), SHORT_S) is Outcome.UNKNOWN
    with contextlib.suppress(DcsUnavailable):
        assert (await lone.time_to_live(lease_id, SHORT_S) or 0) > 50
    with pytest.raises(DcsUnavailable):
        await lone.grant(60, SHORT_S)

    store.regain_quorum()
    (item,) = (await dcs.read(BUDGET_S)).items
    assert item.value in ("1", "2"), "what was unknown may have happened or not"
    assert await lone.renew(lease_id, BUDGET_S) == 60.0


@contract
async def test_a_watch_tells_of_changes_after_the_quorum_is_back(store: Store) -> None:
    dcs, other = store.client(), store.client()
    seen: list[str] = []
    watching = asyncio.create_task(dcs.watch(seen.append))
    await eventually(lambda: seen, "the watch begins")
    store.lose_quorum()
    with pytest.raises(DcsUnavailable):
        await dcs.read(SHORT_S)
    store.regain_quorum()
    await other.commit(status("new"), BUDGET_S)

    await eventually(lambda: "status" in seen or seen.count("") > 1, "it tells of the change, or that it has begun again")

    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
