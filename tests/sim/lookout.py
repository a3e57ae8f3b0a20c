"""The laws of what must not go on for long: looked at twice a second, and stated for a network and clocks that are well and have been."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rivha.api.health import freshness_limit_s
from rivha.dcs import records
from rivha.model import Role

if TYPE_CHECKING:
    from tests.sim.host import Host
    from tests.sim.laws import Laws

AT_ONCE_S = 0.5


@dataclass(slots=True)
class Lookout:
    laws: Laws
    rough_at: float = 0.0  # when network or clocks were last seen to be disturbed
    paused_at: dict[str, float] = field(default_factory=dict)  # when a host was last seen to believe in a pause
    hangs_since: dict[str, float] = field(default_factory=dict)  # leaders whose Postgres answers nothing
    standby_since: dict[str, float] = field(default_factory=dict)  # standbys that /primary is answered for
    unready_since: dict[str, float] = field(default_factory=dict)  # who does not say that it can be copied from

    def look(self) -> None:
        now, n, hosts = self.laws.world.loop.now, self.laws.world.network, self.laws.world.hosts.values()
        self.paused_at |= {h.name: now for h in hosts if h.policy.paused}
        if n.cuts or n.loss or n.late or n.slow != 1.0 or not self.laws.world.store.up or any(h.rate != 1.0 for h in hosts):
            self.rough_at = now
        for host in hosts:
            self._no_second_primary(host, now)
            self._no_hanging_leader(host, now)

    def calm(self) -> bool:
        """The network and the clocks have been well for as long as an agent may wait for an answer."""
        settings = self.laws.world.settings
        assert isinstance(settings["retry_timeout"], int)
        assert isinstance(settings["loop_wait"], int)
        return self.laws.world.loop.now - self.rough_at > settings["retry_timeout"] + settings["loop_wait"] + 1.0

    def _no_second_primary(self, host: Host, now: float) -> None:
        """A primary whose agent can read that another leads is stopped at once, by the tick, not only when the fence would."""
        leader = self.laws.cluster().leader
        second = host.instance.writable and leader is not None and leader.name != host.name
        since = max(host.well_since, self.laws.leader_at, self.laws.void_until)
        well = host.core is not None and not host.frozen_agent and now - since > host.policy.loop_wait_s + AT_ONCE_S
        if second and well and self.calm() and not host.policy.paused and not host.instance.trouble.files_s:
            self.laws.break_("a second primary goes on", f"{host.name}, {leader.name if leader else ''} leads")

    def _no_hanging_leader(self, host: Host, now: float) -> None:
        """A leader whose Postgres answers nothing kills it hang_timeout after it could notice; what stops by itself has longer."""
        leader = self.laws.cluster().leader
        hangs = host.instance.alive and host.instance.trouble.hung and leader is not None and leader.name == host.name
        if not hangs or host.job in ("handover", "restart", "stop") or self.laws.excuse(host.name) or host.instance.trouble.files_s:
            self.hangs_since.pop(host.name, None)
            return
        notices_s = host.policy.loop_wait_s + host.policy.retry_timeout_s
        hangs_s = now - self.hangs_since.setdefault(host.name, now)
        if hangs_s > host.policy.hang_timeout_s + notices_s + host.policy.loop_wait_s and self.calm():
            self.laws.break_("a hanging Postgres keeps its leadership", host.name)

    def answered(self, host: Host) -> None:
        """/primary was 200: for a standby it is so at the most as long as a look at Postgres counts as fresh (HAZARDS B 21)."""
        view, now = host.core.desk.latest if host.core is not None else None, self.laws.world.loop.now
        if host.instance.role is not Role.STANDBY or not host.instance.alive or view is None:
            self.standby_since.pop(host.name, None)
        elif now - self.standby_since.setdefault(host.name, now) > freshness_limit_s(view) + AT_ONCE_S:
            self.laws.break_("/primary is answered for a standby", host.name)

    def published(self, host: str) -> None:
        """A member key was written: does it say that the node can be compared with and copied from?"""
        member = self.laws.cluster().member(host)
        ready = (
            member is not None and member.role == "primary" and member.state == "running" and member.checkpoint_after_promote is not False
        )
        if ready:
            self.unready_since.pop(host, None)
        else:
            self.unready_since.setdefault(host, self.laws.world.loop.now)

    def asking(self, host: str, source: str, work: str) -> None:
        """Nobody judges, copies or rewinds by a leader that has not said that it is out of recovery, nor rewinds before its checkpoint."""
        member, now = self.laws.cluster().member(source), self.laws.world.loop.now
        since = self.unready_since.get(source)
        if since is None or now - since <= self.laws.world.hosts[host].policy.loop_wait_s + AT_ONCE_S or not self.calm():
            return
        recovering = member is None or member.role != "primary" or member.state != "running"
        if recovering or work == "rewind":
            self.laws.break_("asked of a leader that is not ready", f"{host}: {work}, {source} is {member.role if member else 'unknown'}")

    def wrote(self, key: str) -> None:
        if key.startswith(records.MEMBERS):
            self.published(key.removeprefix(records.MEMBERS))
