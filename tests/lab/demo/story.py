"""What the demo does: starts a cluster, writes to it, hurts it three times, and settles the account."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.lab.cluster import PATIENCE_S, Lab
from tests.lab.demo.show import Show, roles
from tests.lab.node import Node, now
from tests.lab.timeline import Recorder
from tests.lab.writer import Writer

CALM_S = 2.0  # writing before each fault, so that there is something to interrupt


@dataclass(slots=True)
class Story:
    lab: Lab
    show: Show
    writer: Writer
    recorder: Recorder

    async def begin(self) -> None:
        self.show.heading("Three Postgres nodes with an agent each, one etcd, one HAProxy")
        for node in self.lab.nodes:
            node.start()
        await self._until(self.lab.healed, "starting: the first node creates the database, the others clone it")
        await self.show.cluster(self.lab)
        self.show.line(f"synchronous replication (`{await self.lab.mode()}`): a commit is acknowledged when a standby has it on disk, too")
        await self.writer.prepare()
        self.show.line(f"a client writes through HAProxy, port {self.lab.proxy.primary_port}: one row per transaction")
        self.writer.start()

    async def kill_postgres(self) -> None:
        old = await self.lab.primary()
        self.show.heading(f"1. kill -9 of the primary's Postgres ({old.name}); its agent lives")

        async def fault() -> None:
            old.kill_postmaster()

        await self._suffer(fault, old)

    async def lose_node(self) -> None:
        old = await self.lab.primary()
        self.show.heading(f"2. the primary's whole node is lost ({old.name}): agent and Postgres, kill -9")

        async def power_returns() -> None:
            self.show.line(f"{old.name} is switched on again")
            old.start()

        await self._suffer(old.kill_everything, old, then=power_returns)

    async def switch_over(self) -> None:
        old = await self.lab.primary()
        candidate = next(node for node in self.lab.nodes if node is not old)
        self.show.heading(f"3. a switchover, planned: {old.name} hands over to {candidate.name}")

        async def fault() -> None:
            code, text = await old.ask("POST", "/switchover", {"leader": old.name, "candidate": candidate.name}, PATIENCE_S)
            self.show.line(f"{old.name} answers {code}: {text.strip()}")

        await self._suffer(fault, old)

    async def settle(self) -> bool:
        """Shows the account; False when something is missing, or there that was refused."""
        account = await self.lab.account(self.writer)
        self.show.account(account)
        if account.lost or account.ghosts:
            self.show.line(f"[bold red]that must not happen: lost {account.lost}, refused and there {account.ghosts}[/bold red]")
            return False
        self.show.line("Whoever took over held every acknowledged row: of those who may elect, enough must agree that one of them has all.")
        return True

    async def _suffer(self, fault: Callable[[], Awaitable[None]], old: Node, *, then: Callable[[], Awaitable[None]] | None = None) -> None:
        """The fault, the way back, and how long each step took."""
        await asyncio.sleep(CALM_S)
        fault_at = now()
        await fault()

        async def writes_again() -> bool:
            return self.writer.writing_since(fault_at) and self.writer.longest_gap(fault_at).end is not None and await self._somebody(old)

        await self._until(writes_again, "writes stand still")
        if then is not None:
            await then()
        await self._until(self.lab.healed, "waiting until every node streams again")
        gap = self.writer.longest_gap(fault_at)
        self.show.timeline(await self.recorder.timeline(fault_at, old.name, gap), old.name)
        await self.show.cluster(self.lab)

    async def _somebody(self, old: Node) -> bool:
        """A leader that is alive: the last writes to a dying one must not count as the way back."""
        leader = await self.lab.leader()
        return leader is not None and (leader is not old or old.postmaster() is not None)

    async def _until(self, condition: Callable[[], Awaitable[bool]], text: str) -> None:
        async with self.show.waiting(text) as progress:

            async def told() -> bool:
                progress.news(await roles(self.lab))
                return await condition()

            await self.lab.wait_for(told, text, 2 * PATIENCE_S)
