"""The requests that change something: each is checked against the View, filed, and answered when it is known what became of it.

REFERENCE 1.15's codes and texts. It writes only through `Desk`, and whatever etcd did not confirm is called unknown, never done.
Called by `app`, after `guard` has let the client in.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping

from rivha.agent.brain.view import View
from rivha.agent.desk import Desk
from rivha.api import switching
from rivha.api.bodies import ReinitializeBody, RestartBody, SwitchBody, parse_body, parse_instant, parse_object
from rivha.api.reply import Reply, as_json, as_text
from rivha.api.schedule import Schedule, wall_at, why_not_restart
from rivha.config import check_patch
from rivha.dcs.writes import clear_failover, file_failover, put_config
from rivha.errors import ConfigError
from rivha.model import Cluster, Outcome

NO_VIEW = "the agent has just started and knows nothing yet; ask again in a moment"
NO_ETCD = "etcd does not answer this node; ask another, or again when it does"
NO_CONFIG = "there is no configuration in etcd that could be changed, or it cannot be read; PUT /config writes a whole one"
UNKNOWN = "unknown whether it happened: etcd did not answer; look at /cluster"
REINITIALIZE_S = 5.0  # for the agent to take the wish on; the clone itself takes as long as it takes
ETCD_S = 4.0  # for a tick that hears from etcd
SWITCH_MIN_S = 20.0  # REFERENCE 1.5
SETTLE_S = 10.0  # for a leader that has just taken over to have voters: milliseconds, or a standby's way back

Action = Callable[[bytes], Awaitable[Reply]]


class Control:
    """The unsafe methods."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.schedule = Schedule(desk)

    def routes(self) -> Mapping[tuple[str, str], Action]:
        return {
            ("POST", "/switchover"): functools.partial(self.switch, "switchover"),
            ("POST", "/failover"): functools.partial(self.switch, "failover"),
            ("DELETE", "/switchover"): self.withdraw_switchover,
            ("POST", "/restart"): self.restart,
            ("DELETE", "/restart"): self.withdraw_restart,
            ("POST", "/reload"): self.reload,
            ("POST", "/reinitialize"): self.reinitialize,
            ("PATCH", "/config"): self.patch_config,
            ("PUT", "/config"): self.put_config,
        }

    async def _cluster(self) -> Cluster | Reply:
        """What etcd holds, for a write that is compared with it. One silent tick is no outage: the next one is waited for."""
        view = self._desk.latest
        if view is None or view.cluster is None:
            view = await self._desk.next_view(ETCD_S)
        if view is None:
            return as_text(503, NO_VIEW)
        return as_text(503, NO_ETCD) if view.cluster is None else view.cluster

    # ---- who leads

    async def switch(self, action: str, raw: bytes) -> Reply:
        body = parse_body(SwitchBody, raw)
        view = self._desk.latest
        if isinstance(body, Reply):
            return body
        if view is None or view.cluster is None:
            view = await self._desk.next_view(ETCD_S)
        if view is None:
            return as_text(503, NO_VIEW)
        refusal, view = await self._refusal(view, action, body)
        if refusal is not None:
            return refusal
        assert view.cluster is not None, "refused without it"
        leader = body.leader if action == "switchover" else None
        done = await self._desk.commit(file_failover(view.cluster, leader, body.candidate, body.scheduled_at, body.accept_loss))
        if done is not Outcome.DONE:
            refused = f"{action} was not filed: another request came first; look at /cluster"
            return as_text(503, UNKNOWN if done is Outcome.UNKNOWN else refused)
        if body.scheduled_at:
            return as_text(202, "Switchover scheduled")
        before = view.cluster.leader.name if view.cluster.leader else None
        return await self._follow(switching.Switch(action, before, body.candidate, self._desk.clock()), view)

    async def _refusal(self, view: View, action: str, body: SwitchBody) -> tuple[Reply | None, View]:
        """And the View that it is by. Somebody who asks for a switchover right after a failover gets it, a moment later."""
        end = self._desk.clock() + SETTLE_S
        while True:
            refusal = switching.refuse(view, action, body, wall_at(view, self._desk.clock()))
            left_s = end - self._desk.clock()
            if refusal is None or refusal.status != 412 or action != "switchover" or not switching.is_settling(view, body) or left_s <= 0:
                return refusal, view
            view = await self._desk.next_view(left_s) or view

    async def _follow(self, switch: switching.Switch, view: View) -> Reply:
        limit_s = max(SWITCH_MIN_S, 2 * view.policy.loop_wait_s, 2 * view.policy.ttl_s)
        end = switch.filed_at + limit_s
        seen: View | None = self._desk.latest
        while (answer := switching.outcome(switch, seen)) is None:
            left_s = end - self._desk.clock()
            if left_s <= 0:
                return as_text(503, f"{switch.action} status unknown: nobody took over within {limit_s:g} s; look at /cluster")
            seen = await self._desk.next_view(left_s)
        return answer

    async def withdraw_switchover(self, _raw: bytes) -> Reply:
        cluster = await self._cluster()
        if isinstance(cluster, Reply):
            return cluster
        if cluster.failover is None:
            return as_text(404, "no failover is scheduled")
        done = await self._desk.commit(clear_failover(cluster))
        if done is Outcome.DONE:
            return as_text(200, "scheduled switchover deleted")
        return as_text(503, UNKNOWN) if done is Outcome.UNKNOWN else as_text(409, "the request changed meanwhile; look at /cluster")

    # ---- the local Postgres

    async def restart(self, raw: bytes) -> Reply:
        body = parse_body(RestartBody, raw, optional=True)
        view = self._desk.latest
        if isinstance(body, Reply):
            return body
        if view is None:
            return as_text(503, NO_VIEW)
        if body.schedule is not None:
            return self._schedule_restart(view, body, body.schedule)
        why_not = why_not_restart(view, body)
        if why_not is not None:
            return as_text(503, f"restart conditions are not satisfied: {why_not}")
        if self._is_wished("restart"):
            return as_text(503, "a restart is in progress already")
        limit_s = body.timeout or view.policy.primary_start_timeout_s or 60.0
        answer = await self._desk.ask("restart", body.model_dump(exclude_none=True), limit_s)
        if answer is None:
            return as_text(503, f"the restart has not ended within {limit_s:g} s and goes on; look at /patroni")
        done, text = answer
        return as_text(200 if done else 503, text or ("restarted successfully" if done else "restart failed"))

    def _schedule_restart(self, view: View, body: RestartBody, text: str) -> Reply:
        if view.policy.paused:
            return as_text(500, "Can't schedule restart in the paused state")
        instant = parse_instant(text, "restart", wall_at(view, self._desk.clock()))
        if isinstance(instant, Reply):
            return instant
        if self.schedule.published is not None:
            return as_text(409, "Another restart is already scheduled")
        self.schedule.set(body, instant)
        self._desk.wake()  # to publish it
        return as_text(202, "Restart scheduled")

    async def withdraw_restart(self, _raw: bytes) -> Reply:
        if not self.schedule.clear():
            return as_text(404, "no restarts are scheduled")
        self._desk.wake()
        return as_text(200, "scheduled restart deleted")

    async def reload(self, _raw: bytes) -> Reply:
        try:
            return as_text(202, await self._desk.reload_file())
        except ConfigError as error:
            return as_text(400, f"the configuration file was not taken over:\n{error}")

    async def reinitialize(self, raw: bytes) -> Reply:
        body = parse_body(ReinitializeBody, raw, optional=True)
        view = self._desk.latest
        if isinstance(body, Reply):
            return body
        if view is None:
            return as_text(503, NO_VIEW)
        cluster = view.cluster or view.last_cluster
        if cluster is None or cluster.leader is None:
            return as_text(503, "Cluster has no leader, can not reinitialize")
        if cluster.leader.name == view.me:
            return as_text(503, "I am the leader, can not reinitialize")
        if self._is_wished("reinitialize") or (view.busy and not body.force):
            doing = view.job.kind if view.busy and view.job else "reinitialize"
            return as_text(503, f"{doing} is in progress already" + ("" if body.force else "; force cancels what is under way"))
        answer = await self._desk.ask("reinitialize", body.model_dump(), REINITIALIZE_S)
        if answer is not None and not answer[0]:
            return as_text(503, answer[1])
        return as_text(200, "reinitialize started")

    def _is_wished(self, kind: str) -> bool:
        return any(wish.kind == kind for wish in self._desk.wishes.values())

    # ---- the dynamic configuration

    async def patch_config(self, raw: bytes) -> Reply:
        cluster = await self._cluster()
        patch = parse_object(raw)
        if isinstance(patch, Reply):
            return patch
        if isinstance(cluster, Reply):
            return cluster
        if cluster.config is None:
            return as_text(503, NO_CONFIG)
        return await self._write_config(cluster, cluster.config, patch)

    async def put_config(self, raw: bytes) -> Reply:
        cluster = await self._cluster()
        whole = parse_object(raw)
        if isinstance(whole, Reply):
            return whole
        return cluster if isinstance(cluster, Reply) else await self._write_config(cluster, {}, whole)

    async def _write_config(self, cluster: Cluster, current: Mapping[str, object], patch: Mapping[str, object]) -> Reply:
        try:
            wanted = check_patch(current, patch)
        except ConfigError as error:
            return as_text(400, str(error))
        if wanted == cluster.config:
            return as_json(wanted)
        done = await self._desk.commit(put_config(cluster, wanted))
        if done is Outcome.DONE:
            return as_json(wanted)
        if done is Outcome.UNKNOWN:
            return as_text(503, UNKNOWN.replace("/cluster", "/config"))
        return as_text(409, "the configuration was changed by somebody else at the same moment; read it again and repeat")
