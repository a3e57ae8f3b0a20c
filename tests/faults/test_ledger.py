"""The judge of the fault lab: it finds what it must find, and only that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.faults.ledger import Entry, Holdings, Ledger, broken_promises

A, B = "198.18.0.11", "198.18.0.12"


def entry(outcome: str, value: int, heard: float, *, node: str = A, timeline: int = 1, sent: float = 0.0, **append: Any) -> Entry:
    key, items = append.get("key", 0), append.get("items", ())
    return Entry(outcome, "insert1", value, sent or heard - 0.01, heard, node, timeline, key, items, "")


def held(*rows: int, **lists: tuple[int, ...]) -> dict[str, Holdings]:
    return {"db1": Holdings(frozenset(rows), {int(key.removeprefix("k")): items for key, items in lists.items()})}


def test_what_was_acknowledged_and_is_there_is_well_and_the_unknown_may_be_either_way() -> None:
    entries = [entry("A", 1, 1.0), entry("U", 2, 2.0), entry("U", 3, 3.0), entry("R", 4, 4.0)]
    assert broken_promises(entries, held(1, 2)) == []


def test_an_acknowledged_row_that_is_missing_on_any_node_is_found() -> None:
    holdings = held(1) | {"db2": Holdings(frozenset(), {})}
    [text] = broken_promises([entry("A", 1, 1.0)], holdings)
    assert text.startswith("db2: row 1 is missing")


def test_a_refused_row_that_is_there_is_found() -> None:
    [text] = broken_promises([entry("R", 1, 1.0)], held(1))
    assert "1 is there, though refused" in text


def test_an_acknowledged_append_that_is_missing_is_found() -> None:
    [text] = broken_promises([entry("A", 7, 1.0, key=1, items=(5, 7))], held(k1=(5, 8)))
    assert "append 7 to list 1 is missing" in text


def test_a_list_that_changed_before_what_was_read_back_is_found() -> None:
    entries = [entry("A", 7, 1.0, key=1, items=(5, 6, 7))]
    assert broken_promises(entries, held(k1=(5, 6, 7, 9))) == []
    for wrong in ((6, 5, 7), (5, 7), (5, 6, 8, 7)):
        [text] = broken_promises(entries, held(k1=wrong))
        assert "list 1 began otherwise when 7 was appended" in text


def test_a_value_that_is_in_a_list_twice_is_found() -> None:
    [text] = broken_promises([], held(k1=(5, 5)))
    assert "holds something twice" in text


def test_who_acknowledges_on_an_old_timeline_after_a_newer_one_did_is_found() -> None:
    entries = [entry("A", 1, 1.0), entry("A", 2, 2.0, node=B, timeline=2), entry("A", 3, 3.0)]
    [text] = broken_promises(entries, held(1, 2, 3))
    assert f"{A} acknowledged 3 on timeline 1" in text


def test_an_answer_that_was_under_way_when_the_newer_timeline_began_is_no_second_primary() -> None:
    entries = [entry("A", 2, 2.0, node=B, timeline=2), entry("A", 3, 3.0, sent=1.9)]
    assert broken_promises(entries, held(2, 3)) == []


def test_a_timeline_of_two_nodes_is_found() -> None:
    [text] = broken_promises([entry("A", 1, 1.0), entry("A", 2, 2.0, node=B)], held(1, 2))
    assert "timeline 1 was acknowledged by" in text


def test_a_ledger_is_read_as_it_grows_and_a_half_written_line_is_left_for_later(tmp_path: Path) -> None:
    first, second = entry("A", 1, 1.0), entry("A", 2, 3.5, key=1, items=(2,))
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    assert ledger.read().entries == []
    path.write_text(first.line() + "\n" + second.line()[:10])
    assert ledger.read().entries == [first]
    path.write_text(first.line() + "\n" + second.line() + "\n")
    assert ledger.read().entries == [first, second]
    gap = ledger.longest_gap(0.0, 4.0)
    assert (gap.start, gap.end, gap.seconds) == (1.0, 3.5, 2.5)
