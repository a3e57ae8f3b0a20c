"""The lab itself: what it starts it ends, whatever became of the test; its clocks and accounts are right."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import binaries
from tests.lab.cluster import GaveUpError, Lab
from tests.lab.node import REPOSITORY
from tests.lab.ports import free_ports, port_if_free
from tests.lab.processes import working_below
from tests.lab.writer import Writer


@pytest.mark.real
async def test_etcd_is_started_stopped_and_keeps_what_it_was_told() -> None:
    async with Lab(nodes=1) as lab:
        await lab.etcd.put(lab.prefix + "leader", "db1")
        assert await lab.keys() == {"leader": "db1"}
        await lab.etcd.stop()
        assert await lab.keys() == {}
        await lab.etcd.start()
        assert await lab.keys() == {"leader": "db1"}
        root = lab.root
    assert not root.exists()


@pytest.mark.real
async def test_a_watch_tells_what_changes() -> None:
    async with Lab(nodes=1) as lab:
        seen: list[tuple[str, str | None]] = []

        async def look() -> None:
            async for change in lab.etcd.watch(lab.prefix):
                seen.append((change.key, change.value))  # noqa: PERF401 - each is looked at as it comes

        watcher = asyncio.create_task(look())

        async def noticed() -> bool:
            await lab.etcd.put(lab.prefix + "a", "1")
            return bool(seen)

        await lab.wait_for(noticed, "the watch works")
        await lab.etcd.delete(lab.prefix + "a")

        async def gone() -> bool:
            return (lab.prefix + "a", None) in seen

        await lab.wait_for(gone, "the watch shows a deletion")
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    assert seen[0] == ("/service/lab/a", "1")


@pytest.mark.real
async def test_who_gives_up_says_what_the_lab_looked_like() -> None:
    async with Lab(nodes=1) as lab:
        await lab.etcd.put(lab.prefix + "leader", "db1")

        async def never() -> bool:
            return False

        with pytest.raises(GaveUpError, match=r"(?s)not yet: a miracle.*leader = db1.*db1: agent ended with None"):
            await lab.wait_for(never, "a miracle", deadline_s=0.1)


@pytest.mark.real
async def test_nothing_is_left_when_the_program_that_ran_a_lab_is_killed() -> None:
    program = """
import asyncio
from tests.lab.cluster import Lab
async def main():
    async with Lab(nodes=1) as lab:
        print(lab.root, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    child = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    root = Path(child.stdout.readline().strip())
    assert len(working_below(root)) == 2, "etcd and HAProxy"
    child.send_signal(signal.SIGKILL)
    child.wait(30)
    child.stdout.close()
    deadline = time.monotonic() + 60
    while root.exists() or working_below(root):
        assert time.monotonic() < deadline, working_below(root)
        await asyncio.sleep(0.05)


@pytest.mark.real
@pytest.mark.parametrize("version", [None, 18])
def test_postgres_is_found_or_fetched_in_the_version_asked_for(version: int | None) -> None:
    assert binaries.version_of(binaries.postgres(version)) == version or version is None
    assert binaries.version_of(binaries.postgres(version)) >= 14


def test_ports_handed_out_are_different_and_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert port_if_free(ports[0]) == ports[0]


def a_writer(**acknowledged: float) -> Writer:
    writer = Writer(port=1, password="")
    writer.acknowledged = {int(number.removeprefix("n")): at for number, at in acknowledged.items()}
    return writer


def test_the_outage_is_the_longest_time_without_an_acknowledgement_around_the_fault() -> None:
    writer = a_writer(n1=1.0, n2=4.0, n3=4.5, n4=6.5, n5=7.0)
    gap = writer.longest_gap(since=4.2, until=7.0)
    assert (gap.start, gap.end, gap.seconds) == (4.5, 6.5, 2.0)


def test_an_outage_that_still_lasts_counts() -> None:
    gap = a_writer(n1=1.0).longest_gap(since=0.5, until=9.0)
    assert (gap.start, gap.end, gap.seconds) == (1.0, None, 8.0)


def test_acknowledged_rows_that_are_gone_are_lost_and_refused_rows_that_are_there_are_ghosts() -> None:
    writer = a_writer(n1=1.0, n2=2.0)
    writer.unknown = {3: 3.0}
    writer.refused = {4: 4.0, 5: 5.0}
    account = writer.settle({1, 3, 4})
    assert (account.acknowledged, account.unknown, account.refused) == (2, 1, 2)
    assert (account.lost, account.ghosts) == ((2,), (4,))


@pytest.mark.real
async def test_a_lab_leaves_no_shared_memory_behind() -> None:
    async with Lab(nodes=1) as lab:
        node = await lab.up()
        mine = (node.data / "postmaster.pid").read_text().split("\n")[6].split()[1]
        assert mine in segments()
    assert mine not in segments()


def segments() -> set[str]:
    """System V shared memory by number."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}
