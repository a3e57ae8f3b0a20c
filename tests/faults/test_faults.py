"""Real faults on a real network: whatever happens, nothing that was acknowledged is missing, and the cluster is whole again.

The judgement is made by the clients' ledger alone (tests/faults/ledger.py) after every fault; how long writes were out is reported, and
measured properly by `./scripts/bench failover`. A few run always; all of them by `./scripts/test faults`.
"""

from __future__ import annotations

import pytest

from tests.faults.catalogue import ORDINARY
from tests.faults.conftest import Director

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

LAB = ("--mode", "quorum")
ALWAYS = (
    "postmaster_killed",
    "primary_powered_off",
    "primary_partitioned_briefly",
    "agent_killed_and_restarted",
    "primary_cut_from_etcd",
    "agent_frozen",
    "switchover",
)


@pytest.mark.parametrize("fault", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.faults) for name in ORDINARY])
async def test_nothing_acknowledged_is_lost_by(director: Director, fault: str) -> None:
    trial = await director.suffer(fault)
    assert trial["acknowledged"] > 0
    assert trial["broken"] == []
