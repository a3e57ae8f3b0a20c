"""The cluster that a run is about: how many nodes, their tags, the settings. A seed decides it, so that no run is like the next."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

SETTINGS: Mapping[str, object] = {
    "ttl": 10,
    "loop_wait": 1,
    "retry_timeout": 3,
    "maximum_lag_on_failover": 5_000,
    "synchronous_mode": "off",  # said, because a new cluster's default is another
}
TIMINGS: tuple[Mapping[str, object], ...] = (
    {},
    {},
    {"ttl": 30, "loop_wait": 10, "retry_timeout": 10},  # Patroni's
    {"ttl": 20, "loop_wait": 2, "retry_timeout": 5},
    {"ttl": 5, "loop_wait": 1, "retry_timeout": 2},
    {"ttl": 3, "loop_wait": 1, "retry_timeout": 1},  # the shortest that ttl >= loop_wait + 2 * retry_timeout allows here
)
HABITS: tuple[Mapping[str, object], ...] = (
    {},
    {},
    {},
    {"check_timeline": True},
    {"primary_start_timeout": 5},
    {"primary_start_timeout": 0},
    {"primary_stop_timeout": 1},
    {"hang_timeout": 4},
    {"maximum_lag_on_failover": 600},
)


TRAFFIC = ("write_every_s", "goes_past_the_proxy", "lags")
WRITE_EVERY_S = 0.25  # the clients, together
SELDOM_ENOUGH_S = 0.01
LAGS_S = (0.0, 0.0, 0.05, 0.3, 1.0)  # of a seed's links, at the most: without them standbys are always equal when they are compared

SYNCHRONOUS = 1_000_000  # seeds from here on are about the synchronous modes
MODES: tuple[Mapping[str, object], ...] = (
    {"synchronous_mode": "quorum"},
    {"synchronous_mode": "quorum"},
    {"synchronous_mode": "quorum"},
    {"synchronous_mode": "on"},
    {"synchronous_mode": "on", "synchronous_node_count": 2},
    {"synchronous_mode": "quorum", "synchronous_node_count": 2},
    {"synchronous_mode": "quorum", "synchronous_mode_strict": True},
    {"synchronous_mode": "on", "synchronous_mode_strict": True},
)
QUORUM: Mapping[str, object] = {**SETTINGS, "synchronous_mode": "quorum"}  # a new cluster's default
BEYOND = frozenset({"disk_lost", "directory_removed", "etcd_wiped"})  # no promise survives lost data: a person judges what is left then


@dataclass(frozen=True, slots=True)
class Shape:
    nodes: int = 3
    settings: Mapping[str, object] = field(default_factory=lambda: dict(SETTINGS))
    tags: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    write_every_s: float = WRITE_EVERY_S
    goes_past_the_proxy: bool = False  # one more client
    lags: Mapping[str, float] = field(default_factory=dict)  # seconds that WAL is longer on its way to that standby
    settle_s: float = 75.0  # after the last fault, within which the laws of liveness must come true: the worst of 400 runs took 37

    @property
    def names(self) -> list[str]:
        return [f"db{n}" for n in range(1, self.nodes + 1)]

    @property
    def synchronous(self) -> bool:
        return self.settings.get("synchronous_mode", "off") != "off"

    @property
    def beyond(self) -> frozenset[str]:
        """Faults that the promise does not cover."""
        return BEYOND if self.synchronous else frozenset()

    @property
    def traffic(self) -> dict[str, object]:
        """Of clients and links: what is not as usual."""
        usual = Shape()
        return {key: getattr(self, key) for key in TRAFFIC if getattr(self, key) != getattr(usual, key)}

    def with_traffic(self, traffic: Mapping[str, Any]) -> Shape:
        """Raises ValueError, saying what is wrong."""
        if not isinstance(traffic, Mapping) or (unknown := set(traffic) - set(TRAFFIC)):
            raise ValueError(f"it has {', '.join(TRAFFIC)} and nothing else, not {unknown if isinstance(traffic, Mapping) else traffic}")
        shape = replace(self, **traffic)
        if not isinstance(shape.goes_past_the_proxy, bool):
            raise ValueError(f"goes_past_the_proxy is true or false, not {shape.goes_past_the_proxy}")
        if not isinstance(shape.lags, Mapping) or not set(shape.lags) <= set(self.names):
            raise ValueError(f"lags: a host of {', '.join(self.names)} -> seconds")
        if not all(_is_seconds(value) for value in (*shape.lags.values(), shape.write_every_s)):
            raise ValueError("lags and write_every_s are seconds, up to ten")
        if shape.write_every_s < SELDOM_ENOUGH_S:
            raise ValueError(f"write_every_s is {SELDOM_ENOUGH_S:g} at the least, or a run would not end for hours")
        return shape

    def __str__(self) -> str:
        changed = {k: v for k, v in self.settings.items() if v != SETTINGS.get(k)}
        lags = {name: round(lag_s, 2) for name, lag_s in self.lags.items() if lag_s}
        return f"{self.nodes} nodes {changed or ''} {dict(self.tags) or ''} {f'lags {lags}' if lags else ''}".strip()


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 10.0


def of_seed(seed: int, nodes: int | None = None) -> Shape:
    rng = random.Random(f"shape {seed}")  # a text is hashed the same way in every process
    nodes = nodes or rng.choice((2, 3, 3, 3, 3, 4, 5))
    settings = {**SETTINGS, **rng.choice(TIMINGS), **rng.choice(HABITS)}
    if seed >= SYNCHRONOUS:
        settings |= rng.choice(MODES)
    tags: dict[str, Mapping[str, object]] = {}
    if rng.random() < 0.3:
        tags[f"db{rng.randint(1, nodes)}"] = rng.choice(({"nofailover": True}, {"failover_priority": 2}, {"failover_priority": 0}))
    lags = {f"db{n}": rng.choice(LAGS_S) * rng.random() for n in range(1, nodes + 1)}
    return Shape(nodes, settings, tags, write_every_s=0.1, goes_past_the_proxy=True, lags=lags)
