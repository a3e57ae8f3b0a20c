"""Mutants that lose nothing and help nobody: keys that run out, primaries that are stopped, requests not served. See mutants.py."""

from __future__ import annotations

from rivha.agent import callbacks, perform, tick
from rivha.agent.brain import holding, leading, upkeep
from rivha.agent.brain.actions import HandOver, Nothing, PostgresVerdict, Verdict
from rivha.agent.brain.view import View
from tests.sim.planting import Garden, Mutant
from tests.sim.shape import QUORUM, SYNCHRONOUS, Shape

NOW_AND_THEN_S, FORGETS_S = 40.0, 25.0
QUIET = "2 deaf_watch db1 1"  # nothing that a leader in order minds


def _forgets(g: Garden) -> None:
    rule = holding.keep_the_key_that_is_mine
    g.instead(rule, lambda v: Verdict(Nothing(), "later") if v.now % NOW_AND_THEN_S < FORGETS_S else rule(v))


def forgets_to_renew(g: Garden) -> None:
    """A leader that is well does not renew for a while, and steps down in time."""
    _forgets(g)


def forgets_to_renew_beside_its_voters(g: Garden) -> None:
    """The same in quorum mode: it goes on by its voters' proof, and its key runs out."""
    _forgets(g)


def fences_between_two_renewals(g: Garden) -> None:
    """The fence's margin is nearly the whole ttl: it stops Postgres before a renewal could come."""
    g.put(0.93, "FENCE_SHARE", tick)


def hands_over_in_a_pause(g: Garden) -> None:
    """A pause does not keep a primary from being handed over, though nobody asked (HAZARDS G 95)."""

    def rule(v: View) -> PostgresVerdict | None:
        leads = v.cluster is not None and v.running and v.is_primary and v.key_is_mine and not v.busy
        whim = v.policy.paused and v.now % NOW_AND_THEN_S < FORGETS_S
        return Verdict(HandOver(v.term, None, 30.0, None), "a whim") if leads and whim else None

    g.tables(lambda table: table if holding.do_nothing in table else (rule, *table))


def drops_what_was_asked_for(g: Garden) -> None:
    """A leader takes each request for a switchover away, and serves none."""
    rule = leading.hand_over_on_request
    g.instead(rule, lambda v: rule(v) if v.stopping else None)
    g.put(lambda v, request: "not today", "_why_the_request_is_over", upkeep)


def says_that_it_restarted(g: Garden) -> None:
    """An operator's restart is answered with "done", and nothing was."""

    async def restart(self: perform.Performer, v: View) -> None:
        return

    g.put(restart, "_restart", perform.Performer)


def adopts_without_a_word(g: Garden) -> None:
    """An agent that finds a primary running tells the operator's scripts nothing: who promoted it may have died before it could."""
    g.put(lambda self, v: None, "saw", callbacks.Herald)


OF_NEEDLESS = (
    Mutant(forgets_to_renew, ("a primary was stopped that was in order",), (0,), 4, QUIET),
    Mutant(
        forgets_to_renew_beside_its_voters,
        ("a lease ran out whose holder was in order",),
        (0,),
        4,
        QUIET,
        Shape(settings=QUORUM),
        first=SYNCHRONOUS,
    ),
    Mutant(fences_between_two_renewals, ("a primary was stopped that was in order",), (0,), 4, QUIET, at_once=True),
    Mutant(hands_over_in_a_pause, ("handed over while paused",), (0,), 4, "10 pause leader 45"),
    Mutant(
        drops_what_was_asked_for,
        ("a request was dropped that could have been carried out",),
        (0,),
        4,
        "10 switchover db2 1; 20 switchover db3 1",
    ),
    Mutant(says_that_it_restarted, ("told that a request was carried out, and it was not",), (0,), 4, "5 restart_asked leader 1"),
    Mutant(
        adopts_without_a_word, ("the scripts were not told who leads",), (0,), 4, "1 agent_killed_in_promote db1 0; 2 power_off leader 20"
    ),
)
