"""etcd goes away and comes back. With voters that prove that nobody else was elected, no write waits for it; in asynchronous mode the lease
is all there is, and the primary steps down in time (DESIGN 7)."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import configured, shows, writes_again, writing
from tests.lab.cluster import Lab
from tests.lab.node import now

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

TTL_S = 10


async def test_without_etcd_a_primary_with_voters_goes_on_past_the_end_of_its_lease(lab: Lab) -> None:
    leader = await lab.primary()
    pid = leader.postmaster()
    async with writing(lab) as writer:
        await lab.etcd.stop()
        stopped = now()

        async def outlived() -> bool:
            return max(writer.acknowledged.values()) > stopped + 1.5 * TTL_S

        await lab.wait_for(outlived, "writes are acknowledged long after the lease's end")
        await lab.etcd.start()
        assert await lab.heal() is leader
        assert leader.postmaster() == pid
        account = await lab.account(writer)
        assert (account.lost, account.ghosts, account.unknown, account.refused) == ((), (), 0, 0)


async def test_without_etcd_an_asynchronous_primary_steps_down_and_with_it_writes_go_on(lab: Lab) -> None:
    async with configured(lab, synchronous_mode="off"):
        await shows(lab, set(), 0, "")
        async with writing(lab) as writer:
            await lab.etcd.stop()

            async def nobody() -> bool:
                return not [node for node in lab.nodes if await node.healthy("/primary")] and await lab.primaries() == set()

            await lab.wait_for(nobody, "nobody takes writes while etcd is gone")
            await lab.etcd.start()
            back = now()
            await writes_again(lab, writer, back)
            await lab.heal()
            account = await lab.account(writer)
            assert (account.lost, account.ghosts) == ((), ())


async def test_a_short_absence_of_etcd_is_sat_out(lab: Lab) -> None:
    leader = await lab.primary()
    pid = leader.postmaster()
    await lab.etcd.kill()
    await lab.etcd.start()
    assert await lab.heal() is leader
    assert leader.postmaster() == pid


async def test_an_etcd_that_forgot_everything_gets_its_records_back_from_the_running_primary(lab: Lab) -> None:
    leader = await lab.primary()
    before = await lab.keys()
    for key in before:
        await lab.etcd.delete(lab.prefix + key)
    assert await lab.heal() is leader

    async def restored() -> bool:
        keys = await lab.keys()
        return keys.get("initialize") == before["initialize"] and "config" in keys

    await lab.wait_for(restored, "initialize and config are back")
    assert await lab.voters() == {node.name for node in lab.nodes} - {leader.name}
    assert await lab.primaries() == {leader.name}
