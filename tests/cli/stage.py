"""A cluster for rivhactl: keys in a real etcd, and a real REST server per member before a desk that reads those keys.

There is no Postgres and no brain: `Stage` writes what agents would publish. `obey` makes it carry out the requests that are filed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rivha.agent.brain.actions import Decision, Nothing, Verdict
from rivha.agent.desk import Desk
from rivha.agent.journal import Entry, Journal
from rivha.api.app import Api
from rivha.api.settings import RestSettings
from rivha.dcs import records
from rivha.dcs.base import Delete, Put, Txn
from rivha.dcs.etcd import Etcd, EtcdSettings
from rivha.metrics import Metrics
from rivha.model import Cluster, Member, Outcome
from tests.api.views import END, a_primary, a_standby, a_view

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str


class Stage:
    def __init__(self, host: str, scope: str, names: str = "abc", **settings: Any) -> None:
        self.host = host
        self.scope = scope
        self.names = names
        self.etcd = Etcd(EtcdSettings((host,)), f"/service/{scope}/", time.monotonic)
        self.desks: dict[str, Desk] = {}
        self.apis: dict[str, Api] = {}
        self.ports: dict[str, int] = {}
        self.obey = True
        self.refuse_wishes = ""
        self.done: list[tuple[str, str, dict[str, object]]] = []  # (member, kind, detail) of wishes
        self._settings = settings
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Stage:
        await self.put("initialize", "7277694203142172922")
        await self.put("config", '{"ttl":10,"loop_wait":1,"retry_timeout":3}')
        await self.put("history", '[[2,50331744,"no recovery target specified","2026-07-01T00:00:00+00:00","a"]]')
        for name in self.names:
            desk = Desk(time.monotonic, Journal(), self._commit, self._reload, lambda: None)
            self.desks[name] = desk
            self.apis[name] = Api(RestSettings(listen_port=0, **self._settings), desk, Metrics(self.scope, name), self.scope)
            await self.apis[name].start()
            self.ports[name] = self.apis[name].port
        await self.lead(self.names[0])
        await self.look()
        self._task = asyncio.create_task(self._live())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        lived = not self._task.done()
        self._task.cancel()
        await asyncio.wait([self._task])
        assert lived, f"the stage broke down: {self._task.exception()!r}"
        for api in self.apis.values():
            await api.stop()
        await self.etcd.close()

    # ---- what agents would write

    async def put(self, key: str, value: str) -> None:
        assert await self.etcd.commit(Txn((), (Put(key, value),)), 10) is Outcome.DONE

    async def delete(self, key: str) -> None:
        assert await self.etcd.commit(Txn((), (Delete(key),)), 10) is Outcome.DONE

    async def publish(self, name: str, **changes: Any) -> None:
        member = Member(
            name,
            role="replica",
            state="running",
            conn_url=f"postgres://127.0.0.1:{5400 + ord(name[0])}/postgres",
            api_url=f"http://127.0.0.1:{self.ports[name]}/patroni",
            version="0.1",
            timeline=3,
            xlog_location=END,
            receive_lsn=END,
            replay_lsn=END,
            replication_state="streaming",
        )
        await self.put(f"members/{name}", records.member_text(replace(member, **changes)))

    async def lead(self, leader: str) -> None:
        await self.put("leader", leader)
        await self.put("status", records.status_text(END, {}))
        for name in self.names:
            if name == leader:
                await self.publish(name, role="primary", receive_lsn=None, replay_lsn=None, replication_state=None)
            else:
                await self.publish(name)

    async def cluster(self) -> Cluster:
        return records.cluster(await self.etcd.read(10))

    # ---- what agents would do

    async def _commit(self, txn: Txn) -> Outcome:
        return await self.etcd.commit(txn, 3)

    async def _reload(self) -> str:
        return "nothing changed"

    async def look(self) -> Cluster:
        sent_at = time.monotonic()
        cluster = await self.cluster()
        for name, desk in self.desks.items():
            leads = cluster.leader is not None and cluster.leader.name == name
            view = a_view("a" if leads else "b", a_primary() if leads else a_standby(), now=sent_at, cluster=cluster)
            paused = bool((cluster.config or {}).get("pause"))
            view = replace(view, me=name, wall=time.time(), policy=replace(view.policy, paused=paused))
            lease, postgres = Verdict(Nothing(), f"{name} keeps the lease", "keep_it"), Verdict(Nothing(), "all is well", "stay")
            desk.journal.record(Entry(sent_at, view.wall, view, Decision(lease, postgres), 0.004))
            desk.publish(view)
        return cluster

    async def _live(self) -> None:
        while True:
            cluster = await self.look()
            if self.obey and cluster.failover is not None and cluster.failover.scheduled_at is None:
                leader = cluster.leader.name if cluster.leader else ""
                await self.delete("leader")
                await self.lead(cluster.failover.candidate or next(name for name in self.names if name != leader))
                await self.delete("failover")
            for name, desk in self.desks.items():
                for wish in list(desk.wishes.values()):
                    self.done.append((name, wish.kind, dict(wish.detail)))
                    desk.settle(wish.number, not self.refuse_wishes, self.refuse_wishes)
            await asyncio.sleep(0.02)

    # ---- rivhactl

    async def ctl(self, *arguments: str, says: str = "", etcd: str | None = None, **environment: str) -> Said:
        """One run of the program itself, without a terminal; `says` is typed."""
        where = ("--etcd", self.host) if etcd is None else ("--etcd", etcd) if etcd else ()
        return await rivhactl(*where, *arguments, says=says, **environment)


async def rivhactl(*arguments: str, says: str = "", **environment: str) -> Said:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RIVHA", "PATRONI"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "rivha.cli",
        *arguments,
        cwd=ROOT,
        env={**inherited, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(120):
            out, err = await process.communicate(says.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())
