"""Electors and names: examples that read as a story, then brute force over every state, every goal and every history of commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations, product
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivha.agent.brain.quorum import (
    BLOCK,
    NO_VOTERS,
    NOBODY,
    PLACEHOLDER,
    Electors,
    Goal,
    Names,
    SetElectors,
    SetNames,
    Step,
    Wait,
    is_easier,
    keeps_the_rule,
    meanwhile,
    next_step,
)

Machine: TypeAlias = Callable[[Electors, Names | None, Goal | None, bool, bool], Step | None]
MOST_STEPS = 4
QUORUM, ON = False, True
EVERYBODY = Names(frozenset("*"), 1)


# ---- the setting's text --------------------------------------------------------------------------------------------------------------


def test_names_are_written_sorted_and_quoted():
    assert Names(frozenset({"b", "a"}), 1).text == 'ANY 1 ("a","b")'
    assert Names(frozenset({'o"hara'}), 1).text == 'ANY 1 ("o""hara")'
    assert BLOCK.text == f'ANY 1 ("{PLACEHOLDER}")'
    assert Names(frozenset({"*"}), 1).text == "ANY 1 (*)"
    assert NOBODY.text == ""


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", NOBODY),
        (BLOCK.text, BLOCK),
        ("ANY 1 (*)", EVERYBODY),
        ('any 2 ( "a" , b-c )', None),  # a dash needs quotes
        ('any 2 ( "a" , b_1 )', Names(frozenset({"a", "b_1"}), 2)),
        ('ANY 1 ("a, b","c)")', Names(frozenset({"a, b", "c)"}), 1)),
        ('ANY 1 ("*")', EVERYBODY),  # Postgres takes the star for everybody, quoted or not
        ("a, b", None),  # FIRST 1
        ("2 (a, b)", None),  # FIRST 2
        ('FIRST 1 ("a","b")', None),
        ("ANY 0 (a)", None),
        ("ANY 2 (a)", None),  # nobody can ever acknowledge
        ("ANY 1 ()", None),
        ('ANY 1 ("a)', None),
        ("ANY 1 (a) b", None),
    ],
)
def test_only_a_setting_that_means_any_is_read(text: str, names: Names | None):
    assert Names.parse(text) == names


@given(st.sets(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1).flatmap(
    lambda members: st.tuples(st.just(frozenset(members)), st.integers(1, len(members)))
))  # fmt: skip
def test_what_is_written_is_read_back(drawn: tuple[frozenset[str], int]):
    names = Names(*drawn)
    assert Names.parse(names.text) == names


@pytest.mark.parametrize("goal", [("a", 2, QUORUM), ("a", 0, QUORUM), ("", 0, QUORUM), ("ab", 1, ON)])
def test_a_goal_that_cannot_be_met_is_a_mistake(goal: tuple[str, int, bool]):
    with pytest.raises(ValueError, match="cannot be what a commit waits for"):
        Goal(frozenset(goal[0]), *goal[1:])


# ---- stories -------------------------------------------------------------------------------------------------------------------------
# "ab+1": voters a and b, quorum 1 (both must elect); "1(ab)": any 1 of a and b acknowledges; "-": none; "|": the barrier.


def electors_of(text: str) -> Electors:
    return NO_VOTERS if text == "-" else Electors(frozenset(text[:-2]), int(text[-1]))


def names_of(text: str) -> Names:
    return {"-": NOBODY, "1(-)": BLOCK, "1(*)": EVERYBODY}.get(text) or Names(frozenset(text[2:-1]), int(text[0]))


def story(electors: Electors, names: Names | None, goal: Goal | None, strict: bool = False) -> Iterator[str]:
    while (step := next_step(electors, names, goal, strict, barrier_passed=False)) is not None:
        if isinstance(step, Wait):
            yield "|"
            step = next_step(electors, names, goal, strict, barrier_passed=True)
        if isinstance(step, SetElectors):
            electors = step.electors
            yield f"{''.join(sorted(electors.voters))}+{electors.quorum}" if electors.voters else "-"
        elif isinstance(step, SetNames):
            names = step.names
            yield {NOBODY: "-", BLOCK: "1(-)"}.get(names) or f"{names.number}({''.join(sorted(names.members))})"


@pytest.mark.parametrize(
    ("what", "mode", "voters", "names", "goal", "changes"),
    [
        ("nothing to do", QUORUM, "ab+1", "1(ab)", "1(ab)", ""),
        ("start: names, barrier, etcd", QUORUM, "-", "-", "1(ab)", "1(ab) | ab+1"),
        ("after a takeover", QUORUM, "-", "1(b)", "1(b)", "| b+0"),
        ("add: etcd first", QUORUM, "a+0", "1(a)", "1(ab)", "ab+1 1(ab)"),
        ("remove: names first", QUORUM, "ab+1", "1(ab)", "1(a)", "1(a) | a+0"),
        ("swap", QUORUM, "ab+1", "1(ab)", "1(bc)", "abc+2 1(bc) | bc+1"),
        ("a commit needs one more: names first", QUORUM, "abc+2", "1(abc)", "2(abc)", "2(abc) | abc+1"),
        ("a commit needs one less: etcd first", QUORUM, "abc+1", "2(abc)", "1(abc)", "abc+2 1(abc)"),
        ("one less because one left", QUORUM, "abc+1", "2(abc)", "2(ab)", "2(ab) | ab+0"),
        ("an addition that was interrupted and is not wanted any more", QUORUM, "ab+1", "1(a)", "1(a)", "| a+0"),
        ("swap one of three", QUORUM, "abc+1", "2(abc)", "2(bcd)", "abcd+2 2(bcd) | bcd+1"),
        ("go on alone: etcd first", QUORUM, "ab+1", "1(ab)", "", "- -"),
        ("start: names, barrier, etcd", ON, "-", "-", "2(ab)", "2(ab) | ab+0"),
        ("add: both must elect meanwhile", ON, "a+0", "1(a)", "2(ab)", "ab+1 2(ab) | ab+0"),
        ("remove: both must elect meanwhile", ON, "ab+0", "2(ab)", "1(a)", "ab+1 1(a) | a+0"),
        ("swap", ON, "a+0", "1(a)", "1(b)", "ab+1 1(b) | b+0"),
        ("swap one of two", ON, "ab+0", "2(ab)", "2(bc)", "abc+1 2(bc) | bc+0"),
        ("two were about to join, another one is wanted", ON, "a+0", "3(abc)", "1(d)", "abcd+3 1(d) | d+0"),
        ("both are replaced", ON, "ab+0", "2(ab)", "2(cd)", "abcd+2 2(cd) | cd+0"),
        ("from quorum", ON, "ab+1", "1(ab)", "2(ab)", "2(ab) | ab+0"),
        ("to quorum", QUORUM, "ab+0", "2(ab)", "1(ab)", "ab+1 1(ab)"),
        ("out of a full stop", QUORUM, "-", "1(-)", "1(a)", "1(a) | a+0"),
        ("a broken rule is mended without voters", QUORUM, "ab+0", "1(ab)", "1(ab)", "- | ab+1"),
        ("whoever comes may acknowledge: no voters", QUORUM, "a+0", "1(*)", "1(a)", "- 1(a) | a+0"),
        ("voters that nobody waits for", QUORUM, "a+0", "-", "1(a)", "- 1(a) | a+0"),
        ("voters too few to elect", QUORUM, "a+1", "1(a)", "1(a)", "- | a+0"),
    ],
)  # fmt: skip
def test_the_way_from_here_to_there(what: str, mode: bool, voters: str, names: str, goal: str, changes: str):
    wanted = Goal(names_of(goal).members, names_of(goal).number, mode) if goal else None
    assert " ".join(story(electors_of(voters), names_of(names), wanted)) == changes, what


def test_names_that_are_not_ours_end_the_voters_first():
    assert list(story(electors_of("a+0"), None, Goal(frozenset("a"), 1, QUORUM))) == ["-", "1(a)", "|", "a+0"]
    assert list(story(NO_VOTERS, None, None)) == ["-"]


def test_strict_with_nobody_left_waits_for_a_voter():
    assert list(story(electors_of("a+0"), names_of("1(a)"), None, strict=True)) == ["-", "1(-)"]
    assert list(story(NO_VOTERS, NOBODY, None, strict=True)) == ["1(-)"]


def test_who_waits_is_told_for_whom():
    step = next_step(NO_VOTERS, names_of("1(ab)"), Goal(frozenset("ab"), 1, QUORUM), strict=False, barrier_passed=False)
    assert step == Wait("1 of a, b must first hold all that was written before they were named")


# ---- the two questions, against their meaning over sets ------------------------------------------------------------------------------


def subsets(of: frozenset[str]) -> list[frozenset[str]]:
    return [frozenset(c) for size in range(len(of) + 1) for c in combinations(sorted(of), size)]


def of_size(of: frozenset[str], size: int) -> list[frozenset[str]]:
    return [frozenset(c) for c in combinations(sorted(of), size)]


def all_electors(universe: frozenset[str]) -> list[Electors]:
    return [NO_VOTERS, *(Electors(v, q) for v in subsets(universe) for q in range(len(v)))]


def all_names(universe: frozenset[str]) -> list[Names]:
    return [NOBODY, *(Names(w, n) for w in subsets(universe) for n in range(1, len(w) + 1))]


def all_goals(universe: frozenset[str]) -> list[Goal | None]:
    groups = [s for s in subsets(universe) if s]
    return [None, *(Goal(s, n, QUORUM) for s in groups for n in range(1, len(s) + 1)), *(Goal(s, len(s), ON) for s in groups)]


def electing(electors: Electors) -> list[frozenset[str]]:
    return of_size(electors.voters, electors.quorum + 1) if electors.voters else []


def test_the_rule_says_that_every_acknowledging_set_meets_every_electing_set():
    universe = frozenset("abcd")
    for electors, names in product(all_electors(universe), all_names(universe)):
        meet = all(a & e for a in of_size(names.members, names.number) for e in electing(electors))
        assert keeps_the_rule(electors, names) == meet, (electors, names)


def test_easier_means_that_a_set_elects_that_could_not_before():
    universe = frozenset("abcd")
    unattainable = [Electors(frozenset("ab"), 2)]
    for before, after in product([*all_electors(universe), *unattainable], repeat=2):
        new = any(not any(old <= e for old in electing(before)) for e in electing(after))
        assert is_easier(before, after) == new, (before, after)


# ---- every state, every goal ---------------------------------------------------------------------------------------------------------


def every_state(size: int) -> Iterator[tuple[Electors, Names, Goal | None]]:
    """All that keep the rule, up to renaming: a standby is told from another only by being a voter, named, wanted, or not."""
    letters = "abcdefgh"
    kinds = list(product((False, True), repeat=3))
    for drawn in (d for count in range(size + 1) for d in combinations_of_kinds(kinds, count)):
        voters, members, wanted = (frozenset(name for name, kind in zip(letters, drawn, strict=False) if kind[i]) for i in range(3))
        goals: list[Goal | None] = [Goal(wanted, n, QUORUM) for n in range(1, len(wanted) + 1)]
        goals.append(Goal(wanted, len(wanted), ON) if wanted else None)
        for q, n, goal in product(range(max(len(voters), 1)), range(1 if members else 0, len(members) + 1), goals):
            if keeps_the_rule(Electors(voters, q), Names(members, n)):
                yield Electors(voters, q), Names(members, n), goal


def combinations_of_kinds(kinds: list[tuple[bool, ...]], count: int) -> Iterator[tuple[tuple[bool, ...], ...]]:
    known = [kind for kind in kinds if any(kind)]
    if not count:
        yield ()
        return
    for first, kind in enumerate(known):
        for rest in combinations_of_kinds(known[first:], count - 1):
            yield (kind, *rest)


def test_from_every_state_to_every_goal_one_safe_change_at_a_time():
    """What is reached keeps the rule, and whatever does is a start here: interruptions and another goal midway are all covered."""
    starts = 0
    for first_electors, first_names, goal in every_state(5):
        starts += 1
        electors, names, was_easier = first_electors, first_names, False
        for _ in range(MOST_STEPS + 1):
            step = next_step(electors, names, goal, strict=False, barrier_passed=False)
            if isinstance(step, Wait):
                assert goal is not None
                assert names == goal.names, "it waits for standbys that may not be wanted any more"
                step = next_step(electors, names, goal, strict=False, barrier_passed=True)
                assert isinstance(step, SetElectors)
                was_easier = True
            if step is None:
                break
            if isinstance(step, SetElectors):
                assert was_easier or not is_easier(electors, step.electors)
                assert electors != step.electors
                electors = step.electors
            else:
                assert isinstance(step, SetNames)
                assert names != step.names
                assert keeps_the_rule(electors, meanwhile(names, step.names))
                names = step.names
            where = (first_electors, first_names, goal, electors, names)
            assert keeps_the_rule(electors, names), where
            assert electors.can_elect or goal is None or not first_electors.voters, where
        assert (electors, names) == ((goal.electors, goal.names) if goal else (NO_VOTERS, NOBODY)), (first_electors, first_names, goal)
    assert starts > 5000


def test_from_every_broken_state_too():
    universe = frozenset("abc")
    for electors, names, goal in product(all_electors(universe), [*all_names(universe), BLOCK, None], all_goals(universe)):
        if names is None or not keeps_the_rule(electors, names):
            assert next_step(electors, names, goal, strict=False, barrier_passed=True) == SetElectors(NO_VOTERS) or not electors.voters
            assert len(list(story(electors, names, goal))) <= MOST_STEPS + 1  # with the barrier's own mark


# ---- every history of commits --------------------------------------------------------------------------------------------------------
# A commit is acknowledged under the names in force, and held by an acknowledging set of them, just any. `older`: all the sets that may
# be the holders of a commit written before the names in force came into force (only the smallest matter), or while they did. The barrier
# adds to each of them a set that may acknowledge now. Goals change at any moment; the law is judged in every state.

Family: TypeAlias = frozenset[frozenset[str]]
World: TypeAlias = tuple[Electors, Names, Family, bool]


@cache
def acknowledging(names: Names) -> Family:
    return frozenset(s for s in of_size(names.members, names.number) if PLACEHOLDER not in s)  # nobody has that name


@cache
def smallest(family: Family) -> Family:
    return frozenset(h for h in family if not any(other < h for other in family))


def joined(one: Family, other: Family) -> Family:
    return smallest(frozenset(a | b for a, b in product(one, other)))


@cache
def is_lost(electors: Electors, family: Family) -> bool:
    return any(not holders & e for e in electing(electors) for holders in family)


def after(world: World, machine: Machine, goal: Goal | None, strict: bool) -> World:
    electors, names, older, passed = world
    step = machine(electors, names, goal, strict, passed)
    if isinstance(step, SetElectors):
        return step.electors, names, older, passed
    if isinstance(step, SetNames):
        return electors, step.names, smallest(older | acknowledging(names) | during_the_reload(names, step.names)), False
    return world


@cache
def during_the_reload(before: Names, after: Names) -> Family:
    """A WAL sender goes by one of the two settings, and counts whoever one of them names (tests/postgres/test_reloads_under_way.py)."""
    either = before.members | after.members
    return frozenset(s for number in (before.number, after.number) for s in of_size(either, number) if PLACEHOLDER not in s)


def with_the_barrier(world: World) -> World:
    electors, names, older, passed = world
    return world if passed or names == BLOCK else (electors, names, joined(older, acknowledging(names)), True)


START: World = (NO_VOTERS, NOBODY, frozenset({frozenset[str]()}), False)


def lost(world: World) -> bool:
    electors, names, older, _ = world
    return is_lost(electors, older) or is_lost(electors, acknowledging(names))


def histories(machine: Machine, universe: frozenset[str]) -> tuple[int, World | None]:
    """How many worlds were seen, and one in which an acknowledged commit is held by none of those that may elect, if there is one."""
    remembered = cache(machine)
    goals = [(goal, strict) for goal in all_goals(universe) for strict in ((False, True) if goal is None else (False,))]
    seen, frontier = {START}, [START]
    while frontier:
        world = frontier.pop()
        for successor in {with_the_barrier(world), *(after(world, remembered, goal, strict) for goal, strict in goals)} - seen:
            if lost(successor):
                return len(seen), successor
            seen.add(successor)
            frontier.append(successor)
    return len(seen), None


@pytest.mark.parametrize(("size", "worlds"), [(1, 5), (2, 20), (3, 150), (4, 2000)])
def test_no_acknowledged_commit_is_lost_in_any_history(size: int, worlds: int):
    seen, found = histories(next_step, frozenset("abcd"[:size]))
    assert found is None
    assert seen > worlds


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_acknowledged_commit_is_lost_in_a_long_history_of_five(data: st.DataObject):
    goals = st.sampled_from(all_goals(frozenset("abcde")))
    world = START
    for goal, changes, barrier in data.draw(st.lists(st.tuples(goals, st.integers(1, MOST_STEPS), st.booleans()), max_size=20)):
        for _ in range(changes):
            world = after(world, next_step, goal, False)
            assert not lost(world)
        world = with_the_barrier(world) if barrier else world


# ---- the checks bite -----------------------------------------------------------------------------------------------------------------


def without_the_barrier(e: Electors, n: Names | None, goal: Goal | None, strict: bool, passed: bool) -> Step | None:
    return next_step(e, n, goal, strict, True)


def names_always_first(e: Electors, n: Names | None, goal: Goal | None, strict: bool, passed: bool) -> Step | None:
    return SetNames(goal.names) if goal and n != goal.names else next_step(e, n, goal, strict, passed)


def electors_always_first(e: Electors, n: Names | None, goal: Goal | None, strict: bool, passed: bool) -> Step | None:
    may = goal is not None and e != goal.electors and (passed or not is_easier(e, goal.electors))
    return SetElectors(goal.electors) if goal and may else next_step(e, n, goal, strict, passed)


def alone_before_etcd_says_so(e: Electors, n: Names | None, goal: Goal | None, strict: bool, passed: bool) -> Step | None:
    return SetNames(NOBODY) if goal is None and not strict and n != NOBODY else next_step(e, n, goal, strict, passed)


def a_new_voter_is_trusted_at_once(e: Electors, n: Names | None, goal: Goal | None, strict: bool, passed: bool) -> Step | None:
    """A barrier for a smaller quorum only."""
    step = next_step(e, n, goal, strict, passed)
    trusted = goal is not None and isinstance(step, Wait) and e.voters and goal.electors.quorum >= e.quorum
    return SetElectors(goal.electors) if goal and trusted else step


def reloads_are_taken_at_once(e: Electors, n: Names | None, goal: Goal | None, strict: bool, passed: bool) -> Step | None:
    """A member is taken out of etcd, then out of the names, as if all senders had the new ones at the same moment."""
    if goal is None or n is None or not e.voters or not keeps_the_rule(e, n):
        return next_step(e, n, goal, strict, passed)
    if e != goal.electors and keeps_the_rule(goal.electors, n) and not is_easier(e, goal.electors):
        return SetElectors(goal.electors)
    return SetNames(goal.names) if n != goal.names and keeps_the_rule(e, goal.names) else next_step(e, n, goal, strict, passed)


@pytest.mark.parametrize(
    "mistake",
    [
        reloads_are_taken_at_once,
        without_the_barrier,
        names_always_first,
        electors_always_first,
        alone_before_etcd_says_so,
        a_new_voter_is_trusted_at_once,
    ],
)
def test_a_mistake_loses_a_commit(mistake: Machine):
    assert histories(mistake, frozenset("abc"))[1] is not None
