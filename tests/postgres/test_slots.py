"""The operator's permanent slots, on real servers (HAZARDS F 91)."""

from __future__ import annotations

import pytest

from tests.postgres.nodes import DYNAMIC, Nodes, caught_up
from tests.postgres.versions import newest, nodes

__all__ = ["newest", "nodes"]
pytestmark = pytest.mark.real

CALLED = {**DYNAMIC, "slots": {"backup": {"type": "physical"}, "feed": {"type": "logical", "database": "postgres", "plugin": "pgoutput"}}}


async def test_a_permanent_slot_is_everywhere_and_holds_no_more_wal_on_a_standby_than_on_the_primary(nodes: Nodes) -> None:
    """One that stood still there would fill the standby's disk, sooner or later."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    for node in (a, b):
        await node.server.configure(CALLED, reload=True)
        await node.status()
    await a.server.keep_slots({b.name}, {})
    await b.server.keep_slots({a.name}, {})
    begin = (await b.status()).slots["backup"]
    await a.commit("t")
    await caught_up(b, a)
    consumed = await a.end_of_wal()
    assert begin < consumed

    await b.status()
    await b.server.keep_slots({a.name}, {"backup": consumed, "not_kept_here": consumed})

    found = (await b.status()).slots
    assert set(found) == {a.name, "backup"}
    assert found["backup"] == consumed
    assert set((await a.status()).slots) == {b.name, "backup"}, "logical ones are not made"
