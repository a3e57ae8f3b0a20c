"""What happens in the cluster while rivhactl waits, a line for each change with the milliseconds since the start."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from rivha.cli.place import Failed, Place
from rivha.model import Cluster, Member, format_lsn

POLL_S = 1.0  # at most; the watch wakes us as soon as something is written


def changes(before: Cluster, after: Cluster) -> Iterator[str]:
    """Each difference that a person wants to know of, as a sentence."""
    old, new = (cluster.leader.name if cluster.leader else None for cluster in (before, after))
    if after.resigned and after.resigned != before.resigned:
        yield f"{after.resigned.leader} has stopped its Postgres and resigns"
    for pledge in after.pledges:
        if pledge != before.pledge(pledge.name):
            yield f"{pledge.name} stands for election (timeline {pledge.timeline}, {format_lsn(pledge.lsn)})"
    if old != new:
        yield f"{new} is the leader" if new else f"{old} gave the leadership back" if old else "nobody leads"
    for member in after.members:
        was = before.member(member.name)
        if was is None:
            yield f"{member.name} is here: {_word(member)}"
        elif _word(was) != _word(member):
            yield f"{member.name}: {_word(was)} -> {_word(member)}"
        if was is not None and was.paused != member.paused:
            yield f"{member.name} {'pauses' if member.paused else 'resumes'}"
    for member in before.members:
        if after.member(member.name) is None:
            yield f"{member.name} is gone from etcd"
    if before.failover and not after.failover:
        yield "the request is settled"


def _word(member: Member) -> str:
    return f"{member.role} {member.replication_state or member.state}"


def is_whole(cluster: Cluster) -> bool:
    """The leader takes writes, and everybody else streams on its timeline."""
    leader = cluster.member(cluster.leader.name) if cluster.leader else None
    if leader is None or leader.role != "primary" or leader.state != "running":
        return False
    others = [member for member in cluster.members if member.name != leader.name]
    return all(m.replication_state == "streaming" and m.timeline == leader.timeline for m in others)


class Story:
    """The cluster as last read, told to `say` as it changes."""

    def __init__(self, place: Place, first: Cluster, say: Callable[[str], None]) -> None:
        self._place = place
        self._say = say
        self._begun = time.monotonic()
        self._woken = asyncio.Event()
        self.now = first

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._begun

    def say(self, text: str) -> None:
        self._say(f"{self.elapsed_s * 1000:8.0f} ms  {text}")

    def wake(self, _key: str) -> None:
        self._woken.set()

    async def look(self) -> None:
        """One look, when something has changed or POLL_S have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._woken.wait()
        self._woken.clear()
        try:
            after = await self._place.read()
        except Failed:  # etcd may well be electing; what is waited for has its own deadline
            return
        for line in changes(self.now, after):
            self.say(line)
        self.now = after

    async def until(self, condition: Callable[[Cluster], bool], limit_s: float) -> bool:
        """Whether it came true in time."""
        while not condition(self.now):
            if self.elapsed_s > limit_s:
                return False
            await self.look()
        return True


@asynccontextmanager
async def telling(place: Place, first: Cluster, say: Callable[[str], None]) -> AsyncIterator[Story]:
    story = Story(place, first, say)
    watch = asyncio.create_task(place.etcd.watch(story.wake))
    try:
        yield story
    finally:
        watch.cancel()
        await asyncio.wait([watch])
