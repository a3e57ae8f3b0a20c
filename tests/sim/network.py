"""Who reaches whom. Hosts are db1..., the etcd cluster is `etcd`, HAProxy and the clients are `client`. Cuts have a direction."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

ETCD, CLIENT = "etcd", "client"


@dataclass(slots=True)
class Network:
    rng: random.Random
    cuts: set[tuple[str, str]] = field(default_factory=set)  # (from, to): nothing passes
    loss: float = 0.0  # of single messages to and from etcd
    slow: float = 1.0  # factor on every delay
    jitter: bool = True  # without it a story's transcript changes only when what it tells of does
    late: float = 0.0  # of requests to etcd: carried out only after their sender has given up

    def passes(self, a: str, b: str) -> bool:
        return (a, b) not in self.cuts

    def talk(self, a: str, b: str) -> bool:
        """Both directions: what a TCP connection needs."""
        return self.passes(a, b) and self.passes(b, a)

    def delay_s(self) -> float:
        """One way: half a millisecond to two on a quiet network."""
        return (self.rng.uniform(0.0005, 0.002) if self.jitter else 0.001) * self.slow

    def lost(self) -> bool:
        return self.loss > 0 and self.rng.random() < self.loss

    def late_s(self, budget_s: float) -> float:
        """How much later than others this request arrives; mostly 0."""
        return budget_s + self.rng.uniform(0.0, 8.0) if self.late and self.rng.random() < self.late else 0.0

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        self.cuts.add((a, b))
        if not one_way:
            self.cuts.add((b, a))

    def heal(self) -> None:
        self.cuts.clear()
        self.loss, self.slow, self.late = 0.0, 1.0, 0.0
