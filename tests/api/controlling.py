"""Asks the routes that change something, and records what they write. For test_control.py and test_switching.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rivha.agent.brain.view import View
from rivha.agent.desk import Desk
from rivha.api.control import Control
from rivha.api.reply import Reply
from rivha.dcs.base import Txn
from rivha.model import Outcome
from tests.api.views import NOW


async def call(desk: Desk, method: str, path: str, body: object = None) -> Reply:
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    async with asyncio.timeout(15):
        return await Control(desk).routes()[method, path](raw)


def recording(desk: Desk, then: Callable[[], View] | None = None, outcome: Outcome = Outcome.DONE) -> list[Txn]:
    """Writes end up in the list; `then` is the View of the tick after a write."""
    written: list[Txn] = []

    async def commit(txn: Txn) -> Outcome:
        written.append(txn)
        if then is not None:
            asyncio.get_running_loop().call_soon(lambda: desk.publish(then()))
        return outcome

    desk.commit = commit
    return written


def later(view: View, **changes: Any) -> View:
    """What a read shows that was sent after NOW."""
    assert view.cluster is not None
    cluster = replace(view.cluster, **changes)
    return replace(view, cluster=cluster, last_cluster=cluster, cluster_seen_at=NOW + 1)
