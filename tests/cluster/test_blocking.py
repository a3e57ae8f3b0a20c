"""The event loop never blocks: not in a bootstrap, a clone, a crash, a failover, a rewind, a switchover."""

from __future__ import annotations

import pytest

from tests.lab.cluster import Lab
from tests.lab.node import Wishes

pytestmark = pytest.mark.real


async def test_no_blocking_call_in_the_loop_from_bootstrap_to_rejoin():
    async with Lab(2, wishes=Wishes(module="tests.lab.watched")) as lab:
        for node in lab.nodes:
            node.start()
        first = await lab.up()
        first.kill_postmaster()
        second = await lab.heal()
        status, text = await second.ask("POST", "/switchover", {"leader": second.name}, timeout_s=60)
        assert status == 200, text
        third = await lab.heal()
        await third.kill_everything()
        fourth = await lab.primary()
        assert fourth is not third
        third.start()
        await lab.heal()

        for node in lab.nodes:
            blocking = [r for r in node.log_records() if "Blocking" in str(r)]
            assert not blocking, f"{node.name}: {blocking[0]}"
