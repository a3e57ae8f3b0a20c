"""How fast a cluster comes into being: `./scripts/bench bootstrap [--rounds 5]`.

Each round does both, on empty directories: one agent alone until a client's transaction is committed, and three agents started at
once until both standbys stream. Everything that an agent does is counted, from the start of its Python on.
"""

from __future__ import annotations

import asyncio
import sys

import asyncpg

from benchmarks.report import Figure, Machine, parser, prepare, say, show
from tests.lab.cluster import Lab
from tests.lab.node import SQL_ERRORS, Node, close, now

LOOK_S = 0.02  # the resolution of all figures here; shorter, and looking would cost what is measured
HAPROXY_HOLDS_S = 1.8  # haproxy.cfg: clients of a HAProxy that has just started are held for 1.6 s
DEADLINE_S = 60.0


async def writable(node: Node) -> float:
    """When a client's transaction was committed, on a node whose agent calls itself the primary."""
    while not await node.healthy("/primary"):
        await asyncio.sleep(LOOK_S)
    connection = await node.connect()
    try:
        await connection.execute("create table first_write as select 1 as one")
        return now()
    finally:
        await close(connection)


async def writable_through_haproxy(lab: Lab) -> float:
    """The same for a client that knows HAProxy's address only, and tries again every 20 ms."""
    while True:
        try:
            connection = await asyncpg.connect(
                host="127.0.0.1",
                port=lab.proxy.primary_port,
                user="postgres",
                password=lab.passwords.superuser,
                database="postgres",
                timeout=5,
            )
        except SQL_ERRORS:
            await asyncio.sleep(LOOK_S)
            continue
        try:
            await connection.execute("create table if not exists routed_write as select 1 as one")
            return now()
        finally:
            await close(connection)


async def all_stream(lab: Lab) -> float:
    """When the primary had both others streaming; over one connection, so that looking costs little."""
    primary = await lab.primary()
    connection = await primary.connect()
    try:
        while await connection.fetchval("select count(*) from pg_stat_replication where state = 'streaming'") < len(lab.nodes) - 1:
            await asyncio.sleep(LOOK_S)
        return now()
    finally:
        await close(connection)


async def alone(postgres: int | None) -> tuple[float, float]:
    """Seconds until (direct, routed) writes succeed on a cluster of one."""
    async with Lab(1, postgres=postgres) as lab, asyncio.timeout(DEADLINE_S):
        await asyncio.sleep(HAPROXY_HOLDS_S)
        began = now()
        lab.nodes[0].start()
        direct, routed = await asyncio.gather(writable(lab.nodes[0]), writable_through_haproxy(lab))
        return direct - began, routed - began


async def three(postgres: int | None) -> tuple[float, float]:
    """Seconds until a write through HAProxy succeeds, and until two standbys stream, of three agents started at once."""
    async with Lab(3, postgres=postgres) as lab, asyncio.timeout(DEADLINE_S):
        await asyncio.sleep(HAPROXY_HOLDS_S)
        began = now()
        for node in lab.nodes:
            node.start()
        routed, streaming = await asyncio.gather(writable_through_haproxy(lab), all_stream(lab))
        return routed - began, streaming - began


async def main() -> int:
    options = parser(__doc__ or "").parse_args()
    prepare()
    machine = Machine.here(options.postgres)
    firsts, thirds = [], []
    for number in range(1, options.rounds + 1):
        firsts.append(await alone(options.postgres))
        thirds.append(await three(options.postgres))
        say(f"round {number}: first node writable {firsts[-1][0]:.2f} s, routed {firsts[-1][1]:.2f} s; three stream {thirds[-1][1]:.2f} s")
    figures = [
        Figure("first node writable, initdb included", "s", tuple(direct for direct, _ in firsts), 2.0),
        Figure("first node writable through HAProxy", "s", tuple(routed for _, routed in firsts)),
        Figure("three nodes streaming", "s", tuple(streaming for _, streaming in thirds), 6.0),
        Figure("of three: writable through HAProxy", "s", tuple(routed for routed, _ in thirds)),
    ]
    return show(machine, figures, options.json)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
