"""What the leader's own agent says of commits that cannot be acknowledged now."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from rivha.api.cluster import why_degraded
from rivha.model import Replication
from tests.api.serving import ask, serving
from tests.api.views import END, NOW, a_cluster, a_desk, a_primary, a_view, replied, voters

STRICT = {"synchronous_mode_strict": True}
NAMES = 'ANY 1 ("b","c")'
BOTH_NAMES = 'ANY 2 ("b","c")'


def a_row(name: str, state: str = "streaming") -> Replication:
    return Replication(name, "10.0.0.2", "replicator", state, "quorum", 1, END, END, END)


def said(
    rows: tuple[Replication, ...],
    names: str = NAMES,
    policy: dict[str, Any] | None = None,
    heard: dict[str, float] | None = None,
) -> str:
    in_force = {"synchronous_mode": "quorum", **(policy or {})}
    primary = a_primary(replication=rows, synchronous_standby_names=names)
    memory = replied(NOW, **({"b": NOW, "c": NOW} if heard is None else heard))
    view = a_view("a", primary, policy=in_force, memory=memory, cluster=a_cluster(sync=voters("b", "c", quorum=1)))
    assert view.cluster is not None
    return why_degraded(view.cluster, view.policy, view)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (said((), policy=STRICT), "commits wait: none of b, c confirms them, and synchronous_mode_strict is on"),
        (said(()), "commits wait: none of b, c confirms them; who is away for degrade_after (2 s) is left out then"),
        (said((a_row("b", "catchup"),), policy=STRICT), "commits wait: none of b, c confirms them, and synchronous_mode_strict is on"),
        (said((a_row("x"),), 'ANY 1 ("b")', STRICT), "commits wait: b does not confirm them, and synchronous_mode_strict is on"),
        (
            said((a_row("b"), a_row("c")), policy=STRICT, heard={"b": NOW - 60, "c": NOW - 60}),
            "commits wait: none of b, c confirms them, and synchronous_mode_strict is on",
        ),
        (
            said((a_row("b"),), BOTH_NAMES, STRICT),
            "commits wait: only b of b, c confirms them, and 2 must; who is away for degrade_after (2 s) is left out then",
        ),
        (said((a_row("b"),)), ""),
        (said((a_row("b"), a_row("c")), BOTH_NAMES), ""),
        (said((), "", STRICT), ""),
    ],
)
def test_the_leader_says_that_commits_wait_when_too_few_confirm_them(told: str, text: str) -> None:
    assert told == text


async def test_the_leaders_cluster_page_goes_by_what_it_sees_and_not_by_what_members_publish() -> None:
    policy = {"synchronous_mode": "quorum", **STRICT}
    alone = a_primary(replication=(), synchronous_standby_names=NAMES)
    view = a_view("a", alone, policy=policy, cluster=a_cluster(sync=voters("b", "c", quorum=1)))
    async with serving(a_desk(view)) as api:
        document = json.loads((await ask(api, "GET", "/cluster"))[1])
    assert document["degraded"].startswith("commits wait: none of b, c confirms them")
    assert view.cluster is not None
    assert why_degraded(view.cluster, view.policy, replace(view, me="b")) == "", "b streams, by what it has published"
