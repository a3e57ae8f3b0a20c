"""Which changes in etcd are worth a look at once."""

from __future__ import annotations

import pytest

from rivha.agent.tick import stirs
from tests.build import PRIMARY, World, a_view

DB1 = "10.0.0.1:5432"


@pytest.mark.parametrize(
    ("world", "stirred"),
    [
        (a_view().me(upstream=DB1, streaming=True).leader("db1"), False),  # positions that merely move
        (a_view().me(upstream=DB1).leader("db1"), True),
        (a_view().me(upstream="10.0.0.3:5432", streaming=True).leader("db1"), True),  # from who led before: db1 may accept writes now
        (a_view().me(PRIMARY).leads(), False),
    ],
)
def test_what_the_leader_publishes_stirs_who_does_not_stream_from_it(world: World, stirred: bool):
    assert stirs("members/db1", world.view()) is stirred
    assert not stirs("members/db3", world.view())


def test_all_but_the_status_stirs():
    view = a_view().me().leader("db1").view()

    assert [stirs(key, view) for key in ("leader", "sync", "rivha/pledges/db3", "failover", "config", "", "status")] == [True] * 6 + [False]
    assert stirs("members/db1", None)
