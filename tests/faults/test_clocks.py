"""Wall clocks that jump by ten minutes in opposite directions: nobody decides by them."""

from __future__ import annotations

import pytest

from tests.faults import clock
from tests.faults.catalogue import CLOCKS
from tests.faults.conftest import Director

pytestmark = [
    pytest.mark.real,
    pytest.mark.faults,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(clock.missing() is not None, reason=str(clock.missing())),
]

LAB = ("--mode", "quorum", "--clocks")


@pytest.mark.parametrize("fault", CLOCKS)
async def test_nothing_acknowledged_is_lost_by(director: Director, fault: str) -> None:
    trial = await director.suffer(fault)
    assert trial["broken"] == []
