"""The operator's permanent slots in a cluster, through the configuration, etcd and the agents (HAZARDS F 91)."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import configured
from tests.lab.cluster import Lab
from tests.lab.node import SQL_ERRORS, Node

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


async def holds_from(node: Node) -> int | None:
    """Where the slot keeps WAL from; None while there is none, or nobody tells."""
    try:
        rows = await node.fetch("select restart_lsn - '0/0' as at from pg_replication_slots where slot_name = 'backup'")
    except SQL_ERRORS:
        return None
    return int(rows[0]["at"]) if rows and rows[0]["at"] is not None else None


async def test_standbys_keep_no_more_for_a_permanent_slot_than_the_primary(lab: Lab) -> None:
    async with configured(lab, slots={"backup": {"type": "physical"}}):

        async def everywhere() -> bool:
            return None not in [await holds_from(node) for node in lab.nodes]

        await lab.wait_for(everywhere, "the slot is on every node")
        primary = await lab.primary()
        await primary.fetch("create table consumed as select generate_series(1, 1000) as x")
        await primary.fetch("select pg_replication_slot_advance('backup', pg_current_wal_lsn())")
        consumed = await holds_from(primary)

        async def moved() -> bool:
            return [await holds_from(node) for node in lab.nodes] == [consumed] * 3

        await lab.wait_for(moved, "the slot has moved on everywhere")
        await primary.fetch("drop table consumed")
