"""What the operator's scripts are told, and when: Patroni's events (REFERENCE 1.14, 1.18), each change once.

`on_start`, `on_stop` and `on_restart` go with the role that Postgres starts in, or had; `on_role_change` says `primary` after a promotion,
`replica` when an ex-primary has become a standby, and `demoted` when a primary died and leads no more: nobody stopped it, and a virtual
address must go all the same (HAZARDS C 47). An agent that finds Postgres running says `on_start`, as Patroni's does: the one before it may
have died before it could. Called by the performer and the fence, always after the deed. It must never delay either.
"""

from __future__ import annotations

from typing import Protocol

from rivha.agent.brain.view import View
from rivha.model import Role

PRIMARY, REPLICA, DEMOTED = "primary", "replica", "demoted"


class Callbacks(Protocol):
    """The operator's scripts; never blocks and never fails."""

    def call(self, action: str, role: str) -> None: ...


class Herald:
    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._told = ""  # the role that the scripts believe in; "": this agent has told them nothing yet

    def saw(self, v: View) -> None:
        """What runs here without my doing: an agent before me began it, and died before it could tell, or a person did.

        A primary that does not lead is not told of: no virtual address shall come to it.
        """
        if v.busy or not v.running or (v.is_primary and not v.i_lead):
            return
        if self._told == "":
            self._tell("on_start", PRIMARY if v.is_primary else REPLICA)
        elif self._told == REPLICA and v.is_primary:
            self._tell("on_role_change", PRIMARY)
        elif v.is_primary:
            self._told = PRIMARY

    def started(self, v: View, *, primary: bool) -> None:
        """`v`: as decided on, with the role of the directory before the start."""
        was_primary = self._told in (PRIMARY, DEMOTED) or v.postgres.role is Role.PRIMARY
        self._tell("on_role_change" if was_primary and not primary else "on_start", PRIMARY if primary else REPLICA)

    def promoted(self) -> None:
        self._tell("on_role_change", PRIMARY)

    def restarted(self, *, primary: bool) -> None:
        self._tell("on_restart", PRIMARY if primary else REPLICA)

    def stopped(self, *, primary: bool) -> None:
        """A primary's end is told once, whoever brought it about, and however often it is stopped."""
        if not primary and self._told != PRIMARY:
            self._callbacks.call("on_stop", REPLICA)
        elif self._told != DEMOTED:
            self._callbacks.call("on_stop", PRIMARY)
            self._told = DEMOTED

    def deposed_if_dead(self, v: View, *, leads: bool) -> None:
        """A primary that died is believed in until it is started again, or until it `leads` no more."""
        crashed = (
            v.postgres.role is Role.PRIMARY and not v.postgres.clean
        )  # with my predecessor, who said nothing: a stop would have been told
        known = self._told == PRIMARY or (crashed and v.other_leader is not None)
        if known and self._told != DEMOTED and v.down and not v.busy and not leads:
            self._tell("on_role_change", DEMOTED)

    def _tell(self, action: str, role: str) -> None:
        self._told = role
        self._callbacks.call(action, role)
