"""What every `Dcs` promises, whatever stands behind it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rivha.dcs.base import Dcs, Delete, Put, Reading, Txn, Unchanged
from rivha.model import Outcome
from tests.contract.running import contract
from tests.contract.stores import Store
from tests.etcd_process import eventually

BUDGET_S = 5.0
NO_LEASE = 4711
LARGE_WRITES, LARGE = 30, 700_000  # 21 MB: more than the buffers of two connections
HEARS_S = 5.0  # what is on its way to a watch has come by then
SMALL_WRITES = 300  # more than etcd keeps for a watch that does not read, 128 messages


def put(key: str, value: str = "x", lease_id: int = 0) -> Txn:
    return Txn((), (Put(key, value, lease_id),))


def create(key: str, value: str = "x") -> Txn:
    return Txn((Unchanged(key, 0),), (Put(key, value),))


async def values(dcs: Dcs) -> dict[str, str]:
    return {item.key: item.value for item in (await dcs.read(BUDGET_S)).items}


async def revision_of(dcs: Dcs, key: str) -> int:
    return next(item.mod_revision for item in (await dcs.read(BUDGET_S)).items if item.key == key)


@asynccontextmanager
async def watching(dcs: Dcs) -> AsyncIterator[list[str]]:
    seen: list[str] = []
    task = asyncio.create_task(dcs.watch(seen.append))
    try:
        await eventually(lambda: seen, "the watch begins")
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ---- reading and writing


@contract
async def test_an_empty_prefix_reads_as_no_keys_at_some_revision(dcs: Dcs) -> None:
    reading = await dcs.read(BUDGET_S)

    assert reading.items == ()
    assert reading.revision > 0


@contract
async def test_a_read_shows_what_anybody_wrote_before_it(store: Store) -> None:
    writer, reader = store.client(), store.client()

    for number in range(20):
        assert await writer.commit(put("leader", str(number)), BUDGET_S) is Outcome.DONE
        assert await values(reader) == {"leader": str(number)}


@contract
async def test_a_reading_carries_revisions_and_leases(dcs: Dcs) -> None:
    lease_id = await dcs.grant(30, BUDGET_S)
    await dcs.commit(put("members/ä b", "Grüße", lease_id), BUDGET_S)
    first = (await dcs.read(BUDGET_S)).items[0]
    await dcs.commit(put("members/ä b", "", lease_id), BUDGET_S)
    reading = await dcs.read(BUDGET_S)

    (second,) = reading.items
    assert (first.key, first.value, first.lease_id) == ("members/ä b", "Grüße", lease_id)
    assert (second.value, second.create_revision) == ("", first.mod_revision)
    assert first.mod_revision < second.mod_revision <= reading.revision


@contract
async def test_a_neighbours_keys_are_not_seen(store: Store) -> None:
    """`/service/demo` ends with a slash where it matters: `/service/demo2` is another cluster. Here: one key just above the prefix."""
    dcs = store.client()
    await dcs.commit(put("~last"), BUDGET_S)

    assert list(await values(dcs)) == ["~last"]


@contract
async def test_all_writes_of_a_transaction_happen_at_one_revision(dcs: Dcs) -> None:
    await dcs.commit(put("old"), BUDGET_S)

    assert await dcs.commit(Txn((), (Put("a", "1"), Put("b", "2"), Delete("old"), Delete("never was"))), BUDGET_S) is Outcome.DONE

    reading = await dcs.read(BUDGET_S)
    assert [item.key for item in reading.items] == ["a", "b"]
    assert {item.mod_revision for item in reading.items} == {reading.revision}


@contract
async def test_a_compare_with_the_revision_read_holds_and_with_any_other_does_not(dcs: Dcs) -> None:
    await dcs.commit(put("sync", "1"), BUDGET_S)
    revision = await revision_of(dcs, "sync")

    for wrong in (0, revision - 1, revision + 1):
        assert await dcs.commit(Txn((Unchanged("sync", wrong),), (Put("sync", "2"),)), BUDGET_S) is Outcome.REFUSED
    assert await dcs.commit(Txn((Unchanged("sync", revision),), (Put("sync", "3"),)), BUDGET_S) is Outcome.DONE
    assert await dcs.commit(Txn((Unchanged("sync", revision),), (Put("sync", "4"),)), BUDGET_S) is Outcome.REFUSED
    assert await values(dcs) == {"sync": "3"}


@contract
async def test_absent_means_absent_now(dcs: Dcs) -> None:
    assert await dcs.commit(create("leader"), BUDGET_S) is Outcome.DONE
    assert await dcs.commit(create("leader"), BUDGET_S) is Outcome.REFUSED
    assert await dcs.commit(Txn((), (Delete("leader"),)), BUDGET_S) is Outcome.DONE
    assert await dcs.commit(create("leader"), BUDGET_S) is Outcome.DONE


@contract
async def test_a_key_that_is_absent_has_no_revision(dcs: Dcs) -> None:
    assert await dcs.commit(Txn((Unchanged("gone", 7),), (Put("a", "1"),)), BUDGET_S) is Outcome.REFUSED


@contract
async def test_one_compare_that_fails_is_enough_and_nothing_is_written(dcs: Dcs) -> None:
    await dcs.commit(put("a", "1"), BUDGET_S)
    guards = (Unchanged("a", await revision_of(dcs, "a")), Unchanged("b", 9))
    before = await dcs.read(BUDGET_S)

    assert await dcs.commit(Txn(guards, (Put("a", "2"), Delete("a2"), Put("c", "3"))), BUDGET_S) is Outcome.REFUSED

    assert await dcs.read(BUDGET_S) == before


@contract
async def test_of_many_who_create_the_same_key_exactly_one_succeeds(store: Store) -> None:
    clients = [store.client() for _ in range(8)]

    outcomes = await asyncio.gather(*(c.commit(create("leader", str(i)), BUDGET_S) for i, c in enumerate(clients)))

    assert sorted(outcomes) == [Outcome.DONE] + [Outcome.REFUSED] * 7
    assert await values(clients[0]) == {"leader": str(outcomes.index(Outcome.DONE))}


# ---- leases


@contract
async def test_a_lease_that_is_not_renewed_takes_its_keys_with_it(dcs: Dcs) -> None:
    lease_id = await dcs.grant(1, BUDGET_S)
    await dcs.commit(Txn((), (Put("leader", "a", lease_id), Put("config", "{}"))), BUDGET_S)
    keys: list[str] = ["leader", "config"]

    async def look() -> None:
        while "leader" in keys:
            keys[:] = await values(dcs)
            await asyncio.sleep(0.05)

    looking = asyncio.create_task(look())
    await eventually(looking.done, "the key expires")

    assert keys == ["config"]
    assert await dcs.renew(lease_id, BUDGET_S) == 0.0
    assert await dcs.time_to_live(lease_id, BUDGET_S) is None
    assert await dcs.commit(put("leader", "a", lease_id), BUDGET_S) is Outcome.REFUSED
    await looking


@contract
async def test_a_renewed_lease_lives_on(dcs: Dcs) -> None:
    lease_id = await dcs.grant(30, BUDGET_S)

    assert await dcs.renew(lease_id, BUDGET_S) == 30.0

    left_s = await dcs.time_to_live(lease_id, BUDGET_S)
    assert left_s is not None
    assert 0 < left_s <= 30


@contract
async def test_a_revoked_lease_is_gone_at_once_and_revoking_it_again_is_no_error(dcs: Dcs) -> None:
    lease_id = await dcs.grant(30, BUDGET_S)
    await dcs.commit(put("leader", "a", lease_id), BUDGET_S)

    await dcs.revoke(lease_id, BUDGET_S)
    await dcs.revoke(lease_id, BUDGET_S)

    assert await values(dcs) == {}
    assert await dcs.renew(lease_id, BUDGET_S) == 0.0
    assert await dcs.time_to_live(lease_id, BUDGET_S) is None


@contract
async def test_every_lease_is_another_one(dcs: Dcs) -> None:
    assert await dcs.grant(30, BUDGET_S) != await dcs.grant(30, BUDGET_S)


@contract
async def test_a_transaction_on_a_lease_that_never_was_is_refused_whole(dcs: Dcs) -> None:
    assert await dcs.commit(Txn((), (Put("a", "1"), Put("leader", "a", NO_LEASE))), BUDGET_S) is Outcome.REFUSED
    assert await values(dcs) == {}


@contract
async def test_a_key_written_again_without_its_lease_outlives_it(dcs: Dcs) -> None:
    """How `initialize` changes from a claim into a fact."""
    lease_id = await dcs.grant(30, BUDGET_S)
    await dcs.commit(put("initialize", "", lease_id), BUDGET_S)
    await dcs.commit(put("initialize", "7000000000000000000"), BUDGET_S)

    await dcs.revoke(lease_id, BUDGET_S)

    assert await values(dcs) == {"initialize": "7000000000000000000"}


# ---- watching


@contract
async def test_a_watch_says_that_it_began_and_then_what_changes(store: Store) -> None:
    dcs, other = store.client(), store.client()
    async with watching(dcs) as seen:
        assert seen == [""]
        await other.commit(Txn((), (Put("leader", "a"), Put("members/a", "{}"))), BUDGET_S)
        await eventually(lambda: {"leader", "members/a"} <= set(seen), "both keys of the transaction are told")
        del seen[:]
        await other.commit(Txn((), (Delete("leader"),)), BUDGET_S)
        await eventually(lambda: "leader" in seen, "the deletion is told")


@contract
async def test_a_watch_tells_of_a_lease_that_ran_out(store: Store) -> None:
    dcs = store.client()
    lease_id = await dcs.grant(1, BUDGET_S)
    await dcs.commit(put("leader", "a", lease_id), BUDGET_S)
    async with watching(dcs) as seen:
        await eventually(lambda: "leader" in seen, "the expiry is told")


@contract
async def test_a_watch_goes_on_over_a_compaction_and_a_new_one_starts_after_it(store: Store) -> None:
    dcs, late = store.client(), store.client()
    async with watching(dcs) as seen:
        for number in range(5):
            await dcs.commit(put("status", str(number)), BUDGET_S)
        store.compact()
        async with watching(late) as seen_late:
            await dcs.commit(put("failover"), BUDGET_S)
            await eventually(lambda: "failover" in seen and "failover" in seen_late, "both tell of the change")


@contract
async def test_a_watch_that_is_behind_a_compaction_begins_anew(store: Store) -> None:
    """Its client stood still while more was written than connections hold, and what it has not heard of is forgotten."""
    writer, dcs = store.client(), await store.client_behind_a_wall()
    async with watching(dcs) as seen:
        await writer.commit(put("status", "1"), BUDGET_S)
        await eventually(lambda: "status" in seen, "the watch tells of changes")
        del seen[:]
        written = 0
        while "" not in seen:  # how much connections and etcd itself hold is not for us to say: until it is too much
            assert written < 3 * (LARGE_WRITES + SMALL_WRITES), "it begins anew, for it cannot tell of all that happened"
            store.hold()
            for size in [LARGE] * LARGE_WRITES + [1] * SMALL_WRITES:
                await writer.commit(put("status", "x" * size), BUDGET_S)
                written += 1
            store.compact()
            store.let_go()
            await asyncio.sleep(HEARS_S)
        await writer.commit(put("failover"), BUDGET_S)
        await eventually(lambda: "failover" in seen, "it tells of changes again")
        assert seen.count("status") < written


@contract
async def test_a_reading_is_equal_to_itself_when_nothing_happened(dcs: Dcs) -> None:
    await dcs.commit(put("config", "{}"), BUDGET_S)
    first: Reading = await dcs.read(BUDGET_S)

    assert (await dcs.read(BUDGET_S)).items == first.items


# ---- what the models must not be too kind in


@contract
async def test_a_transaction_that_changes_nothing_takes_no_revision(dcs: Dcs) -> None:
    before = await dcs.read(BUDGET_S)

    assert await dcs.commit(Txn((), (Delete("never was"),)), BUDGET_S) is Outcome.DONE

    assert await dcs.read(BUDGET_S) == before


@contract
async def test_a_lease_lasts_at_least_two_seconds_and_whole_ones(dcs: Dcs) -> None:
    """HAZARDS I 1: one and a half election timeouts, rounded up, at etcd's defaults."""
    assert await dcs.renew(await dcs.grant(1, BUDGET_S), BUDGET_S) == 2.0
    assert await dcs.renew(await dcs.grant(4.2, BUDGET_S), BUDGET_S) == 5.0


@contract
async def test_how_long_a_lease_is_not_renewed_counts_from_its_own_ttl_and_never_says_too_much(dcs: Dcs) -> None:
    """The second witness of DESIGN 6.1: an operator may have raised the ttl since the lease was granted."""
    lease_id = await dcs.grant(5, BUDGET_S)
    assert await dcs.unrenewed_s(lease_id, BUDGET_S) <= 0.0
    silent: list[float] = []

    async def look() -> None:
        while not silent or silent[-1] < 2.0:
            silent.append(await dcs.unrenewed_s(lease_id, BUDGET_S))
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    await eventually(looking.done, "two seconds pass")
    await dcs.renew(lease_id, BUDGET_S)
    assert await dcs.unrenewed_s(lease_id, BUDGET_S) <= 0.0
    await dcs.revoke(lease_id, BUDGET_S)
    assert await dcs.unrenewed_s(lease_id, BUDGET_S) == math.inf


@contract
async def test_the_time_that_a_lease_has_left_runs_down_and_a_renewal_restores_it(dcs: Dcs) -> None:
    lease_id = await dcs.grant(5, BUDGET_S)
    left: list[float | None] = []

    async def look() -> None:
        while not left or (left[-1] or 0) > 2:
            left.append(await dcs.time_to_live(lease_id, BUDGET_S))
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    await eventually(looking.done, "three seconds pass")
    await dcs.renew(lease_id, BUDGET_S)

    assert left == sorted(left, key=lambda s: -(s or 0))
    after = await dcs.time_to_live(lease_id, BUDGET_S)
    assert after is not None
    assert after >= 4


@contract
async def test_all_keys_of_a_lease_go_at_one_revision(dcs: Dcs) -> None:
    lease_id = await dcs.grant(30, BUDGET_S)
    await dcs.commit(Txn((), (Put("a", "1", lease_id), Put("b", "2", lease_id), Put("c", "3"))), BUDGET_S)
    before = await dcs.read(BUDGET_S)

    await dcs.revoke(lease_id, BUDGET_S)

    after = await dcs.read(BUDGET_S)
    assert [item.key for item in after.items] == ["c"]
    assert after.revision == before.revision + 1


@contract
async def test_a_key_moves_to_the_lease_of_its_last_writer(dcs: Dcs) -> None:
    """How the leader key is rebound when the ttl changes."""
    old, new = await dcs.grant(30, BUDGET_S), await dcs.grant(60, BUDGET_S)
    await dcs.commit(put("leader", "a", old), BUDGET_S)
    await dcs.commit(put("leader", "a", new), BUDGET_S)

    await dcs.revoke(old, BUDGET_S)

    (item,) = (await dcs.read(BUDGET_S)).items
    assert (item.value, item.lease_id) == ("a", new)
