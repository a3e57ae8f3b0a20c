"""What the agent asks of the local PostgreSQL. Policy is not here: each verb does what its name says, and is harmless when done twice.

Two implementations: `rivha.postgres.server.Server` and the simulator's. One contract suite, tests/contract/test_postgres.py, runs on both.
All verbs but `status` may be long; they run in the agent's job slot, may be cancelled (a cancelled one leaves a marker or a state that
`status` shows truthfully), and raise CommandFailed or PostgresUnavailable with a text for people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Protocol

from rivha.model import History, HistoryLine, PostgresStatus, Upstream, WalEnd


class Postgres(Protocol):
    async def status(self, budget_s: float) -> PostgresStatus:
        """One look, in at most `budget_s` seconds. Never raises: what could not be learnt is a value (SILENT, None, `problem`)."""
        ...

    def on_death(self, callback: Callable[[], None]) -> None:
        """`callback()` within milliseconds after the postmaster has died (pidfd), for every postmaster seen from now on."""
        ...

    async def is_left(self) -> bool:
        """Whether any process of it lives, whatever its files say."""
        ...

    async def bootstrap(self) -> str:
        """initdb, start as primary, users and roles, post_init. Returns the system identifier. A failure moves the data directory aside."""
        ...

    async def clone(self, source: Upstream) -> None:
        """Fills an EMPTY (or UNFINISHED) data directory from `source` under a marker; does not start it.

        An unfinished one is moved aside first.
        """
        ...

    async def start(self, *, primary: bool, upstream: Upstream | None, names: str | None = None) -> None:
        """Starts what is stopped, as a primary in place or as a standby of `upstream` (None: of nobody).

        Returns when it accepts connections. A Postgres that runs already in that role is left alone. Refuses an UNFINISHED directory.
        Leftover processes of a dead postmaster are ended first. `names`: a primary's synchronous_standby_names; None: as they lie there.
        A standby has none.
        """
        ...

    async def synchronize(self, names: str, *, surely: bool = False) -> None:
        """Puts synchronous_standby_names in force on a running server: a primary, or a standby just before its promotion.

        Returns when a fresh backend shows them and the sync_state of every WAL sender agrees (HAZARDS H 5). `configure` never changes them.
        `surely`: a standby's checkpointer must have them, too, or commits made right after the promotion would wait for nobody.
        """
        ...

    async def stop(self, *, fast_s: float, quit_s: float = 1.0, linger_s: float | None = None) -> None:
        """Fast stop for `fast_s` seconds (0: none), then immediate for `quit_s`, then SIGKILL; CHECKPOINTs nothing before.

        Returns when no process of it is left. `linger_s`: once the shutdown checkpoint is written, WAL senders whose standby says nothing
        get so many seconds more, not all of `fast_s` (HAZARDS C 39); an archiver may finish. The directory is clean all the same, but a
        standby may lack the end of its WAL: for who knows that all that counts lies elsewhere.
        """
        ...

    async def promote(self) -> None:
        """pg_promote(false); returns when it is out of recovery. restore_command is cleared before."""
        ...

    async def follow(self, upstream: Upstream | None) -> None:
        """A running standby streams from `upstream` (None: from nobody), by reload; returns when the new setting is in force."""
        ...

    async def freeze(self) -> WalEnd:
        """DESIGN 6.2: stops the WAL receiver, waits until it is gone, learns the end of the WAL on this disk (HAZARDS H 10)."""
        ...

    async def compare(self, leader: Upstream) -> tuple[History, str]:
        """Is what lies here a prefix of the leader's history? Running or stopped (and then cleanly or not). The text explains."""
        ...

    async def rewind(self, source: Upstream) -> None:
        """pg_rewind a stopped directory (crash recovery of a dirty one first) onto `source`, under a marker; does not start it."""
        ...

    async def set_aside(self, why: str) -> str:
        """Moves a stopped data directory out of the way (never deletes); returns where to."""
        ...

    async def checkpoint(self) -> None: ...

    async def timelines(self) -> tuple[HistoryLine, ...]:
        """The local timeline history: one line for each timeline that ended; empty on timeline 1."""
        ...

    async def restart(self) -> None:
        """Stop fast, start again in the same role with the same upstream."""
        ...

    def assume(self, dynamic: Mapping[str, object]) -> None:
        """What a start goes by until the first `configure`: of an agent that comes back while etcd is silent. Writes nothing."""
        ...

    async def configure(self, dynamic: Mapping[str, object], *, reload: bool) -> None:
        """Writes postgresql.conf and pg_hba.conf from local and dynamic configuration, atomically; reloads a running server if changed."""
        ...

    async def keep_slots(self, wanted: Set[str], advance: Mapping[str, int]) -> None:
        """Physical member slots: creates what is wanted, drops inactive ones that look like ours and are not, advances on a standby."""
        ...

    async def close(self) -> None:
        """Closes the agent's own connections. Postgres goes on running."""
        ...
