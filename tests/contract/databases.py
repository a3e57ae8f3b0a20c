"""The Postgres servers that the contract of Postgres is tested on: real ones (tests/postgres/nodes.py) and the simulator's model."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol

from rivha.model import Lsn, PostgresStatus, Upstream
from rivha.postgres.base import Postgres
from tests.contract.running import RealTime, VirtualTime
from tests.postgres.nodes import DYNAMIC, Nodes, eventually
from tests.sim.disk import Entry
from tests.sim.postgres import SimPostgres
from tests.sim.server import Instance
from tests.sim.syncrep import Answer

AGES_S = 3600.0


class Session(Protocol):
    """A client's connection."""

    async def commit(self, table: str) -> str:
        """Makes a table in one transaction. How it ended, in syncrep.Answer's words."""
        ...

    async def waits(self) -> bool:
        """Whether its commit waits for standbys."""
        ...

    async def cancel(self) -> None:
        """Somebody cancels what it does."""
        ...


class Node(Protocol):
    """One server, under the adapter that is tested, and what a client and a root user of its machine can do."""

    name: str
    server: Postgres
    deaths: list[float]

    @property
    def upstream(self) -> Upstream: ...

    async def status(self) -> PostgresStatus: ...

    async def streams(self) -> bool: ...

    def again(self) -> Node:
        """The same server under a new agent."""
        ...

    async def commit(self, table: str) -> None: ...

    async def has(self, table: str) -> bool: ...

    async def end_of_wal(self) -> Lsn: ...

    async def has_replayed(self, upto: Lsn) -> bool: ...

    async def pause_replay(self) -> None: ...

    async def hold_promotion(self) -> None:
        """A promotion that is asked for now does not end before `let_promotion_end`. Of a standby that streams from nobody."""
        ...

    async def is_being_promoted(self) -> bool:
        """Postgres was asked to, and held up."""
        ...

    def let_promotion_end(self) -> None: ...

    async def session(self) -> Session: ...

    def kill_postmaster(self) -> object: ...

    def leave_children(self) -> None:
        """The postmaster is killed, and its children stand still."""
        ...

    def hang(self) -> None: ...

    def go_on(self) -> None: ...

    async def stop_reporting(self, standby: Any) -> None:
        """The standby takes WAL and flushes nothing of it any more, and this one, its upstream, has endless patience with it."""
        ...

    def mark(self, what: str) -> None:
        """As if `what` (rewind, clone) had been interrupted."""
        ...

    def lose_directory(self) -> None:
        """Somebody removes it under the Postgres that runs."""
        ...

    @property
    def runs(self) -> bool:
        """Whether any process of it is left."""
        ...

    @property
    def copying(self) -> bool:
        """Whether a clone has begun to write."""
        ...

    @property
    def aside(self) -> int:
        """How many directories were moved out of the way."""
        ...


class Databases(Protocol):
    def run(self, work: Coroutine[Any, Any, Any]) -> Any: ...

    def node(self, name: str) -> Any: ...

    async def primary(self, name: str = "a") -> Any: ...

    async def standby(self, of: Any, name: str = "b") -> Any: ...

    def close(self) -> None: ...


async def names(node: Node, text: str) -> None:
    """Commits of the node wait for these from now on."""
    await node.server.synchronize(text)


class RealNodes(Nodes):
    def __init__(self, bin_dir: Path, folder: Path) -> None:
        super().__init__(bin_dir, folder)
        self._time = RealTime()
        self.run = self._time.run

    def close(self) -> None:
        try:
            self.run(self.end())
        finally:
            self._time.close()


class ModelSession:
    def __init__(self, instance: Instance) -> None:
        self._i = instance
        self._entry: Entry | None = None

    async def commit(self, table: str) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def told(_: Entry, how: Answer) -> None:
            if not answer.done():
                answer.set_result(how.value)

        self._entry = self._i.commit(table, told)
        return await answer

    async def waits(self) -> bool:
        await asyncio.sleep(0.01)
        return self._entry is not None and self._entry.ident in self._i.syncrep.waiting

    async def cancel(self) -> None:
        assert self._entry is not None
        self._i.syncrep.cancel(self._entry)


class ModelNode:
    def __init__(self, instance: Instance) -> None:
        self._i = instance
        self.name = instance.host
        self.deaths: list[float] = []
        self.server = SimPostgres(instance)
        self.server.on_death(lambda: self.deaths.append(instance.world.loop.now))

    @property
    def upstream(self) -> Upstream:
        host, port = self._i.world.hosts[self.name].address
        return Upstream(self.name, host, port)

    async def status(self) -> PostgresStatus:
        return await self.server.status(5.0)

    async def streams(self) -> bool:
        return (await self.status()).streaming

    def again(self) -> ModelNode:
        return ModelNode(self._i)

    async def commit(self, table: str) -> None:
        assert await ModelSession(self._i).commit(table) == Answer.ACKNOWLEDGED

    async def has(self, table: str) -> bool:
        return self._i.sees(table)

    async def end_of_wal(self) -> Lsn:
        return self._i.disk.end

    async def has_replayed(self, upto: Lsn) -> bool:
        await asyncio.sleep(0.01)
        return self._i.replayed >= upto

    async def pause_replay(self) -> None:
        self._i.replay_paused = True

    async def hold_promotion(self) -> None:
        self._i.trouble.promote_s = AGES_S

    async def is_being_promoted(self) -> bool:
        await asyncio.sleep(0.01)
        return self._i.promoting

    def let_promotion_end(self) -> None:
        self._i.trouble.promote_s = 0.0

    async def session(self) -> Session:
        return ModelSession(self._i)

    def kill_postmaster(self) -> None:
        self._i.die()

    def leave_children(self) -> None:
        self._i.die()
        self._i.left_until = AGES_S

    def hang(self) -> None:
        self._i.trouble.hung = True

    def go_on(self) -> None:
        self._i.trouble.hung = False

    async def stop_reporting(self, standby: ModelNode) -> None:
        standby._i.trouble.flush_s = AGES_S

    def mark(self, what: str) -> None:
        self._i.disk.marker = what

    def lose_directory(self) -> None:
        self._i.disk.wipe()

    @property
    def runs(self) -> bool:
        return self._i.alive or self._i.left

    @property
    def copying(self) -> bool:
        return self.server.copying

    @property
    def aside(self) -> int:
        return self._i.disk.aside


class ModelNodes:
    """Hosts of a world, in the order in which they are wanted; their names are the world's."""

    def __init__(self) -> None:
        self._time = VirtualTime()
        self._free = list(self._time.world.instances.values())
        self.run = self._time.run
        self.close = self._time.close

    def node(self, _: str) -> ModelNode:
        return ModelNode(self._free.pop(0))

    async def primary(self, name: str = "a") -> ModelNode:
        node = self.node(name)
        await node.server.configure(DYNAMIC, reload=False)
        await node.server.bootstrap()
        return node

    async def standby(self, of: ModelNode, name: str = "b") -> ModelNode:
        node = self.node(name)
        await of.server.keep_slots({*(await of.status()).slots, node.name}, {})
        await node.server.clone(of.upstream)
        await node.server.start(primary=False, upstream=of.upstream)
        await eventually(node.streams)
        return node
