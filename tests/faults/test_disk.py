"""A disk without a free block under the primary: writes go on elsewhere, and nothing acknowledged is missing."""

from __future__ import annotations

import pytest

from tests.faults.catalogue import DISK
from tests.faults.conftest import Director

pytestmark = [pytest.mark.real, pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]

LAB = ("--mode", "quorum", "--disk", "600m")


@pytest.mark.parametrize("fault", DISK)
async def test_nothing_acknowledged_is_lost_by(director: Director, fault: str) -> None:
    trial = await director.suffer(fault)
    assert trial["leader_after"] != trial["leader_before"]
    assert trial["broken"] == []
