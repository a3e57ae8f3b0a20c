"""What the benchmarks make of what they saw: a target missed is said, and none is met by leaving out what was bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import cost, failover_page
from benchmarks.failover import FAULTS, Round, figures, titles, unnoticed
from benchmarks.report import Machine

QUIET = Round("Rivha", "host", 0.1, 9.0, 1000, 0, 0, 0, failed_over=False, writable=1, writes=[5] * 470)
MACHINE = Machine("Debian", "2 x", "3.11", "15", "3.4", "2.6", 0.0)


def missed(rounds: Sequence[Round], fault: str) -> list[str]:
    return [figure.name for figure in figures(rounds, [fault]) if figure.verdict == "MISSED"]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_median_of_a_fault_is_judged_by_its_target_and_the_worst_by_twice_that(fault: str) -> None:
    title, target = FAULTS[fault].title, FAULTS[fault].target_s
    fine, slow, late = (replace(QUIET, fault=fault, outage_s=times * target) for times in (0.9, 1.9, 2.1))
    assert missed([fine, slow, fine], fault) == []
    assert missed([fine, late, fine], fault) == [f"{title}: within twice the target, Rivha"]
    assert missed([slow, slow, fine], fault) == [f"{title}: Rivha"]


@pytest.mark.parametrize(
    ("fault", "harm", "wrong"),
    [
        ("restart", {"unknown": 1}, []),  # HAProxy may end a connection while nobody answers it
        ("restart", {"refused": 1}, ["writes that Postgres refused"]),
        ("restart", {"failed_over": True}, ["other leaders"]),
        ("etcd-cut", {"unknown": 1}, ["statements that failed"]),
        ("quorum", {"unknown": 1}, ["statements that failed"]),
        ("quorum", {"refused": 1}, ["writes that Postgres refused", "statements that failed"]),
        ("host", {"unknown": 1, "failed_over": True}, []),
        ("host", {"lost": 1}, ["acknowledged rows lost"]),
    ],
)
def test_one_round_in_which_clients_saw_what_nobody_is_to_see_is_enough(fault: str, harm: dict[str, Any], wrong: list[str]) -> None:
    quiet = replace(QUIET, fault=fault)
    assert missed([quiet, quiet], fault) == []
    names = missed([quiet, replace(quiet, **harm)], fault)
    assert len(names) == len(wrong)
    assert all(words in name for words, name in zip(wrong, names, strict=True)), names


def test_a_fault_whose_every_trial_failed_has_no_figures_and_ends_nothing() -> None:
    assert [figure.name for figure in figures([QUIET], ["host", "restart"])] == [
        f"{FAULTS['host'].title}: Rivha",
        f"{FAULTS['host'].title}: within twice the target, Rivha",
        "acknowledged rows lost: Rivha",
    ]


def test_the_page_says_what_failed_and_who_led_afterwards() -> None:
    rounds = [replace(QUIET, fault="restart", unknown=1), replace(QUIET, fault="restart", refused=2, failed_over=True)]
    page = failover_page.table(MACHINE, titles(), unnoticed(), rounds, [])
    assert "| statements that failed: agent killed, restarted at once | 1 2 |" in page
    assert "| other leaders: agent killed, restarted at once | 0 1 |" in page


def test_etcd_is_asked_by_one_agent_three_times_a_second_at_most() -> None:
    waits = ([0.1, 0.1], [0.1, 0.1])
    verdicts = {}
    for requests_per_s in (3.0, 3.1):
        found = cost.figures([[]], requests_per_s, waits, waits)
        verdicts[requests_per_s] = next(figure.verdict for figure in found if figure.name == "etcd requests per agent")
    assert verdicts == {3.0: "met", 3.1: "MISSED"}
