"""Who reaches whom. Hosts are db1..., the etcd cluster is `etcd`, HAProxy and the clients are `client`. Cuts have a direction."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

ETCD, CLIENT = "etcd", "client"
AGENT, POSTGRES = ":8008", ":5432"  # of a host: `db1:8008`
MOSTLY = 0.7


@dataclass(slots=True)
class Network:
    rng: random.Random
    cuts: set[tuple[str, str]] = field(default_factory=set)  # (from, to): nothing passes
    loss: float = 0.0  # of single messages to and from etcd
    slow: float = 1.0  # factor on every delay
    jitter: bool = True  # without it a story's transcript changes only when what it tells of does
    late: float = 0.0  # of requests to etcd: carried out only after their sender has given up
    late_keys: set[str] = field(default_factory=set)  # and of writes of these keys, or of keys that begin so, most

    def passes(self, a: str, b: str) -> bool:
        return not self.cuts or (a, b) not in self.cuts

    def talk(self, a: str, b: str) -> bool:
        """Both directions: what a TCP connection needs."""
        return not self.cuts or (self.passes(a, b) and self.passes(b, a))

    def reaches(self, a: str, b: str, port: str) -> bool:
        """A connection of a's to that port of b's."""
        return not self.cuts or (self.talk(a, b) and self.passes(a, b + port))

    def delay_s(self) -> float:
        """One way: half a millisecond to two on a quiet network."""
        return (0.0005 + 0.0015 * self.rng.random() if self.jitter else 0.001) * self.slow

    def lost(self) -> bool:
        return self.loss > 0 and self.rng.random() < self.loss

    def late_s(self, budget_s: float) -> float:
        """How much later than others this request arrives; mostly 0."""
        return budget_s + self.rng.uniform(0.0, 8.0) if self.late and self.rng.random() < self.late else 0.0

    def write_late_s(self, keys: list[str], budget_s: float) -> float:
        """The same for one transaction that writes these."""
        aimed_at = self.late_keys and any(key.startswith(tuple(self.late_keys)) for key in keys)
        return budget_s + self.rng.uniform(0.0, 8.0) if aimed_at and self.rng.random() < MOSTLY else 0.0

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        self.cuts.add((a, b))
        if not one_way:
            self.cuts.add((b, a))

    def heal(self) -> None:
        self.cuts.clear()
        self.late_keys.clear()
        self.loss, self.slow, self.late = 0.0, 1.0, 0.0
