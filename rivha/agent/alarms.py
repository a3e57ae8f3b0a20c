"""What somebody on call must see, as WARNINGs: told when it begins, not while it lasts. Fed by the tick with each View and its decision.

It must never decide anything. The lines of every day (jobs, decisions, writes to etcd) are told elsewhere, at INFO.
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from rivha.agent.brain import votes
from rivha.agent.brain.actions import Decision, Stop, Win
from rivha.agent.brain.synchronous import confirmation, goal_of
from rivha.agent.brain.view import View
from rivha.model import Role, State

log = structlog.get_logger(__name__)

ENDS_POSTGRES = ("bootstrap", "clone", "handover", "restart", "rewind", "set_aside", "start", "stop")  # such a job tells its own failure


class Alarms:
    def __init__(self) -> None:
        self._before: View | None = None
        self._fenced = 0
        self._hung = False
        self._uncompared = 0  # the term in which it was told that the histories cannot be compared
        self._waiting = ""  # what was last told of commits that wait for nobody, or for somebody who is not there
        self._won: tuple[str, dict[str, object]] | None = None  # to be told once etcd says that the key is mine

    def look(self, v: View, decision: Decision, fenced: int) -> None:
        """`fenced`: how often the fence has stopped Postgres."""
        for text, facts in self._news(v, decision, fenced):
            log.warning(text, **facts)
        self._before, self._fenced = v, fenced

    def _news(self, v: View, d: Decision, fenced: int) -> Iterator[tuple[str, dict[str, object]]]:
        if self._before is not None and fenced == self._fenced:
            yield from _death(self._before, v)
        hangs = d.postgres.rule == "kill_a_postgres_that_hangs" and isinstance(d.postgres.action, Stop)
        if hangs and not self._hung:
            yield "Postgres hangs and is killed", {"why": d.postgres.reason}
        self._hung = hangs
        if v.memory.strayed and not (self._before is not None and self._before.memory.strayed):
            yield _stray(self._before, v, is_stopped=isinstance(d.postgres.action, Stop))
        yield from self._takeover(v, d)
        if v.uncompared and v.term != self._uncompared:
            self._uncompared = v.term
            yield "what streams here cannot be compared with the leader's history", {"leader": v.other_leader, "why": v.uncompared}
        waiting = _commits(v)
        if waiting and waiting != self._waiting:
            yield waiting, {"mode": v.policy.synchronous_mode, "strict": v.policy.synchronous_mode_strict}
        self._waiting = self._waiting if waiting is None else waiting

    def _takeover(self, v: View, d: Decision) -> Iterator[tuple[str, dict[str, object]]]:
        """Not when it is tried: etcd may refuse it, and the next look tells, also of a write whose outcome was not known."""
        if self._won is not None and v.key_is_mine:
            yield self._won
        if v.cluster is not None:
            self._won = _takes_over(v, d) if isinstance(d.lease.action, Win) else None


def _death(before: View, v: View) -> Iterator[tuple[str, dict[str, object]]]:
    """The postmaster is gone, and no job of this agent's has ended it since the look before."""
    mine = v.job is not None and v.job.kind in ENDS_POSTGRES and (v.job.ended_at is None or v.job.ended_at >= before.now)
    if mine or before.busy_with(*ENDS_POSTGRES) or before.postgres.state not in (State.RUNNING, State.SILENT):
        return
    facts: dict[str, object] = {"role": before.postgres.role.value, "pid": before.postgres.pid}
    if v.postgres.state is State.CRASHED:
        yield "Postgres has died: its postmaster is gone, and this agent did not stop it", facts
    elif v.postgres.state is State.STOPPED and v.has_data and not v.policy.paused:
        yield "Postgres was shut down, and not by this agent", facts


def _stray(before: View | None, v: View, *, is_stopped: bool) -> tuple[str, dict[str, object]]:
    was_standby = before is not None and before.running and before.postgres.role is Role.STANDBY
    by_me = v.job is not None and v.job.kind == "promote" and before is not None and (v.job.ended_at or v.now) >= before.now
    what = "was promoted by hand" if was_standby and not by_me else "is a primary"
    leader = v.other_leader or (v.sync.leader if v.sync else None) or v.memory.last_leader
    return f"Postgres here {what} beside the leader{', and is stopped' if is_stopped else ''}", {"leader": leader}


def _takes_over(v: View, d: Decision) -> tuple[str, dict[str, object]]:
    c = v.cluster
    lost = v.other_leader or v.memory.last_leader or (v.sync.leader if v.sync else None) or "nobody"
    resigned = c.resigned.reason if c is not None and c.resigned is not None and v.nobody_leads else ""
    text = f"this node takes over from {lost}" if lost != v.me else "this node leads again"
    if votes.loss_is_accepted(v):
        text += ", by --accept-loss: commits that were acknowledged may be missing here"
    facts: dict[str, object] = {"why": d.lease.reason}
    return text, {**facts, "resigned": resigned} if resigned else facts


def _commits(v: View) -> str | None:
    """What is wrong with what commits wait for; "" when nothing is, None when it is not known now."""
    p = v.postgres
    if v.other_leader is not None or not v.synchronous or (v.running and p.role is Role.STANDBY):
        return ""
    if not (v.i_lead and v.running and p.role is Role.PRIMARY):
        return None
    if not p.synchronous_standby_names:
        alone = "commits wait for nobody from now on: this node goes on alone"
        return alone if goal_of(v) is None else None  # the mode was just turned on, or a standby came: names follow
    waited = confirmation(v)
    if v.policy.synchronous_mode_strict and waited is not None and waited.lost:  # who is away for a moment is no alarm
        return "commits wait, and no standby is there to confirm them"
    return ""
