"""`Dcs` over a real etcd 3.4 or newer, through its JSON gateway. The only place, with its helpers, that knows etcd's words.

`endpoints` decides whom to ask, `watch` reads the stream of changes. It must never report an outcome that it does not know. Called by
the agent's main (which builds it), observer and performer, and by rivhactl.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable

import structlog

from rivha.dcs.base import Delete, KeyValue, Put, Reading, Txn, Unchanged
from rivha.dcs.endpoints import Endpoints, EtcdSettings
from rivha.dcs.node import Answer, Failure
from rivha.dcs.watch import Watch
from rivha.errors import DcsUnavailable
from rivha.model import Outcome

__all__ = ["Etcd", "EtcdSettings"]

log = structlog.get_logger()


class Etcd:
    """The cluster's keys below `prefix` (`/service/demo`). Building it does no I/O; the first call opens the session."""

    def __init__(self, settings: EtcdSettings, prefix: str, clock: Callable[[], float]) -> None:
        self._prefix = prefix.rstrip("/") + "/"
        self._range = {"key": _b64(self._prefix), "range_end": _b64(self._prefix[:-1] + "0")}  # "0" comes after "/"
        self._endpoints = Endpoints(settings, self._range, clock)
        self._out_of_space = False  # it was told
        self._watch = Watch(self._endpoints, self._range, self._prefix, clock)

    async def read(self, budget_s: float) -> Reading:
        answer = await self._endpoints.ask("/kv/range", self._range, budget_s)  # linearizable unless told otherwise
        return Reading(int(answer["header"]["revision"]), tuple(self._item(kv) for kv in answer.get("kvs", ())))

    def _item(self, kv: Answer) -> KeyValue:
        return KeyValue(
            key=_text(kv["key"])[len(self._prefix) :],
            value=_text(kv.get("value", "")),
            mod_revision=int(kv["mod_revision"]),
            create_revision=int(kv["create_revision"]),
            lease_id=int(kv.get("lease", 0)),
        )

    async def commit(self, txn: Txn, budget_s: float) -> Outcome:
        body = {"compare": [self._compare(guard) for guard in txn.when], "success": [self._write(write) for write in txn.then]}
        try:
            answer = await self._endpoints.write("/kv/txn", body, budget_s)
        except Failure as failure:
            if failure.lease_not_found:
                return Outcome.REFUSED
            if failure.final:  # our own mistake, or a permission that the operator must grant
                log.error("etcd refuses a transaction", why=failure.text, keys=[write.key for write in txn.then])
                return Outcome.REFUSED
            if not failure.out_of_space:
                return Outcome.UNKNOWN
            self._tell_out_of_space(failure.text)
            return Outcome.REFUSED if await self._stands_as_read(txn, budget_s) else Outcome.UNKNOWN
        except DcsUnavailable:
            return Outcome.UNKNOWN
        self._out_of_space = False
        return Outcome.DONE if answer.get("succeeded") else Outcome.REFUSED

    def _tell_out_of_space(self, why: str) -> None:
        """Once: it lasts until somebody acts, and a write is tried at every tick."""
        if not self._out_of_space:
            log.error("etcd refuses writes until somebody makes room: nobody can take over, and no voters can be recorded", why=why)
        self._out_of_space = True

    async def _stands_as_read(self, txn: Txn, budget_s: float) -> bool:
        """A transaction that writes one of the keys that it guards was not applied if its guards still hold."""
        guarded = {guard.key for guard in txn.when}
        if not any(write.key in guarded for write in txn.then):
            return False
        try:
            now = {item.key: item.mod_revision for item in (await self.read(budget_s)).items}
        except DcsUnavailable:
            return False
        return all(now.get(guard.key, 0) == guard.mod_revision for guard in txn.when)

    def _compare(self, guard: Unchanged) -> Answer:
        # A key that does not exist compares as one of mod_revision 0
        return {"target": "MOD", "result": "EQUAL", "key": self._key(guard.key), "mod_revision": str(guard.mod_revision)}

    def _write(self, write: Put | Delete) -> Answer:
        if isinstance(write, Delete):
            return {"request_delete_range": {"key": self._key(write.key)}}
        return {"request_put": {"key": self._key(write.key), "value": _b64(write.value), "lease": str(write.lease_id)}}

    def _key(self, key: str) -> str:
        return _b64(self._prefix + key)

    async def grant(self, ttl_s: float, budget_s: float) -> int:
        # May be sent twice: a lease that nobody knows of has no keys and expires
        answer = await self._endpoints.ask("/lease/grant", {"TTL": str(math.ceil(ttl_s))}, budget_s)
        return int(answer["ID"])

    async def renew(self, lease_id: int, budget_s: float) -> float:
        answer = await self._endpoints.ask("/lease/keepalive", {"ID": str(lease_id)}, budget_s)
        return max(float(answer.get("TTL", 0)), 0.0)

    async def revoke(self, lease_id: int, budget_s: float) -> None:
        try:
            await self._endpoints.ask("/lease/revoke", {"ID": str(lease_id)}, budget_s)
        except Failure as failure:
            if not failure.lease_not_found:
                raise

    async def time_to_live(self, lease_id: int, budget_s: float) -> float | None:
        answer = await self._endpoints.ask("/lease/timetolive", {"ID": str(lease_id)}, budget_s)
        left_s = int(answer.get("TTL", 0))
        return None if left_s < 0 else float(left_s)

    async def unrenewed_s(self, lease_id: int, budget_s: float) -> float:
        answer = await self._endpoints.ask("/lease/timetolive", {"ID": str(lease_id)}, budget_s)
        left_s = int(answer.get("TTL", 0))
        # etcd tells whole seconds, rounded down: up to one more may be left.
        return math.inf if left_s < 0 else float(answer.get("grantedTTL", 0)) - left_s - 1.0

    async def watch(self, on_change: Callable[[str], None]) -> None:
        await self._watch.run(on_change)

    async def close(self) -> None:
        await self._endpoints.close()


def _b64(text: str) -> str:
    # replace: half a surrogate pair, out of somebody's JSON, must not make a write impossible
    return base64.b64encode(text.encode(errors="replace")).decode("ascii")


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")
