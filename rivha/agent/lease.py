"""The leases as this node believes them: expiry is counted from before the request left (HAZARDS A 2).

The leader key and the member key hang on different leases, so that a node that still publishes itself cannot thereby keep a leadership
that its tick no longer vouches for (HAZARDS A 4). Used by the performer only.
"""

from __future__ import annotations

from collections.abc import Callable

from rivha.agent.brain.view import Lease
from rivha.dcs.base import Dcs

RENEW_SHARE = 0.3  # of the ttl: how old a member lease may become before it is renewed


class Leases:
    """`leader` is None while I hold no leadership; `member` from the first publication on."""

    def __init__(self, dcs: Dcs, clock: Callable[[], float]) -> None:
        self._dcs = dcs
        self._clock = clock
        self.leader: Lease | None = None
        self.member: Lease | None = None

    async def grant(self, ttl_s: float, budget_s: float) -> Lease:
        """A new lease that carries nothing yet. etcd may grant more than asked for; we count on no more than we asked for."""
        sent_at = self._clock()
        return Lease(await self._dcs.grant(ttl_s, budget_s), sent_at + ttl_s, ttl_s)

    async def renew(self, lease_id: int, wanted_ttl_s: float, budget_s: float) -> bool:
        """Keeps the lease that carries the leader key, or adopts it after a restart. False: it is gone, and so is the key."""
        sent_at = self._clock()
        granted_s = await self._dcs.renew(lease_id, budget_s)
        if not granted_s:
            self.leader = None
            return False
        known = self.leader is not None and self.leader.lease_id == lease_id
        ttl_s = self.leader.ttl_s if known and self.leader else _the_smaller(granted_s, wanted_ttl_s)
        self.leader = Lease(lease_id, sent_at + ttl_s, ttl_s)
        return True

    async def keep_member(self, ttl_s: float, budget_s: float) -> int:
        """The member lease's id, renewed when it is due, granted anew when it is gone or the ttl has changed."""
        now, lease = self._clock(), self.member
        if lease is not None and lease.ttl_s == ttl_s:
            if now < lease.expires_at - (1 - RENEW_SHARE) * ttl_s:
                return lease.lease_id
            if await self._dcs.renew(lease.lease_id, budget_s):
                self.member = Lease(lease.lease_id, now + ttl_s, ttl_s)
                return lease.lease_id
        self.member = await self.grant(ttl_s, budget_s)
        return self.member.lease_id


def _the_smaller(granted_s: float, wanted_s: float) -> float:
    """etcd rounds up to whole seconds and to its own minimum; a lease that is really shorter than the configured ttl must count as such."""
    return min(granted_s, wanted_s) if granted_s - wanted_s < 1.0 else granted_s
