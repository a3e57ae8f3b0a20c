"""etcd goes away and comes back. In asynchronous mode the lease is all there is: the primary steps down in time (DESIGN 7)."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import writes_again, writing
from tests.lab.cluster import Lab
from tests.lab.node import now

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


async def test_without_etcd_the_primary_steps_down_and_with_it_writes_go_on(lab: Lab) -> None:
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
    assert await lab.primaries() == {leader.name}
