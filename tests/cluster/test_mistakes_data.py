"""A data directory that is another's, not ours to use, away, read-only or full: it is left alone, named, and used when it is mended."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.cluster.conftest import writes_again, writing
from tests.cluster.mistakes import (
    BOOTSTRAP,
    DATA,
    a_node,
    beside,
    change,
    leads,
    limited,
    listed,
    listing,
    looks_on,
    refuses,
    says,
    streams,
)
from tests.lab.cluster import Lab
from tests.lab.node import REPOSITORY, Node, Wishes, now
from tests.lab.processes import Process, account, give_away

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which only root may")


def as_the_lab() -> dict[str, object]:
    who = account()
    return {"user": who.uid, "group": who.gid, "extra_groups": []} if os.geteuid() == 0 else {}


def initdb(node: Node) -> None:
    """A database that is nobody's so far."""
    argv = [str(node.bin_dir / "initdb"), "-D", str(node.data), "-U", "postgres", "-A", "trust"]
    subprocess.run(argv, check=True, capture_output=True, timeout=120, **as_the_lab())  # type: ignore[call-overload]


# ---- of another cluster


async def test_a_stopped_database_of_another_cluster_is_left_alone(ground: Lab) -> None:
    async with a_node(ground, "stranger") as node:
        initdb(node)
        before = listing(node.data)
        await refuses(node, DATA, "belongs to another cluster", (await ground.keys())["initialize"], "scope and data_dir")
        assert listing(node.data) == before
        assert beside(node) == []


async def test_a_running_primary_of_another_cluster_runs_on(ground: Lab) -> None:
    async with a_node(ground, "guest") as node:
        initdb(node)
        argv = [str(node.bin_dir / "postgres"), "-D", str(node.data), "-p", str(node.postgres_port), "-k", str(node.folder)]
        postgres = Process("postgres", argv, folder=node.folder)
        postgres.start()

        async def ready() -> bool:
            file = node.data / "postmaster.pid"
            return file.exists() and "ready" in file.read_text()

        await ground.wait_for(ready, "the other cluster's Postgres runs")
        pid = node.postmaster()
        await refuses(node, DATA, "belongs to another cluster")
        assert node.postmaster() == pid
        assert postgres.alive
        await postgres.kill()


# ---- not ours to use


async def test_a_directory_of_another_owner_is_named_and_left_alone(ground: Lab) -> None:
    """root makes one and gives it away in the end; others point at one of root's."""
    async with a_node(ground, "owned", scope="owned") as node:
        if os.geteuid() == 0:
            node.data.mkdir(mode=0o755)
        else:
            change(node, data_dir="/usr/share")
        node.start()
        await says(ground, node, str(node.data), "belongs to user 0", "chown")
        assert len(await looks_on(ground, node, 4)) <= 2
        if os.geteuid() == 0:
            assert list(node.data.iterdir()) == []
            give_away(node.data)
            await leads(ground, node)


async def test_a_directory_that_others_may_read_is_named_and_used_once_it_is_closed(ground: Lab) -> None:
    async with a_node(ground, "open") as node:
        node.start()
        await streams(ground, node)
        assert await node.stop() == 0
        node.data.chmod(0o777)
        before = listing(node.data)
        node.start()
        await says(ground, node, str(node.data), "mode 0777", "chmod 0700")
        assert len(await looks_on(ground, node, 4)) <= 2
        assert "chmod 0700" in await listed(node)
        assert listing(node.data) == before
        node.data.chmod(0o700)
        await streams(ground, node)
        assert beside(node) == []


async def test_files_that_are_no_database_are_never_written_to(ground: Lab) -> None:
    async with a_node(ground, "attic") as node:
        node.data.mkdir(mode=0o700)
        (node.data / "letters").write_text("precious")
        give_away(node.data)
        node.start()
        await says(ground, node, str(node.data), "is not empty", "move it away")
        await looks_on(ground, node, 3)
        assert os.listdir(node.data) == ["letters"]
        assert beside(node) == []
        os.rename(node.data, node.folder / "kept")
        await streams(ground, node)


# ---- away, read-only


async def test_an_unmounted_disk_is_waited_for_and_not_cloned_over(ground: Lab) -> None:
    """A bare mount point: a folder where the agent may make nothing."""
    async with a_node(ground, "away") as node:
        disk = node.folder / "disk"
        disk.mkdir()
        give_away(disk)
        change(node, data_dir=str(disk / "data"))
        node.start()
        await streams(ground, node)
        assert await node.stop() == 0
        before = listing(disk)
        os.rename(disk, node.folder / "unmounted")
        disk.mkdir(mode=0o555)
        give_away(disk)
        node.start()
        await says(ground, node, str(node.data), "does not exist and cannot be created")
        assert len(await looks_on(ground, node, 4)) <= 2
        disk.rmdir()
        await says(ground, node, f"{disk} does not exist")
        os.rename(node.folder / "unmounted", disk)
        await streams(ground, node)
        assert before.keys() - listing(disk).keys() <= {"data/postmaster.opts", "data/postmaster.pid"} | {
            name for name in before if name.startswith(("data/pg_wal/", "data/pg_stat", "data/pg_replslot/"))
        }
        assert beside(node) == []


async def test_a_directory_moved_away_under_its_postgres_is_kept_and_the_node_cloned_anew(ground: Lab) -> None:
    async with a_node(ground, "moved") as node:
        node.start()
        await streams(ground, node)
        old = node.postmaster()
        elsewhere = node.folder / "elsewhere"
        os.rename(node.data, elsewhere)

        async def another() -> bool:
            return node.postmaster() not in (None, old)

        await ground.wait_for(another, "a Postgres on a new copy", 120)
        await streams(ground, node)
        assert (elsewhere / "global" / "pg_control").exists()
        assert "the data directory is gone" in node.agent.log.read_text()


async def test_a_read_only_directory_is_named_and_used_once_it_is_writable(ground: Lab) -> None:
    async with a_node(ground, "fixed", scope="fixed") as node:
        node.start()
        await leads(ground, node)
        assert await node.stop() == 0
        before = listing(node.data)
        node.data.chmod(0o500)
        node.start()
        await says(ground, node, str(node.data), "cannot be written", "read-only")
        assert len(await looks_on(ground, node, 4)) <= 2
        assert listing(node.data) == before
        node.data.chmod(0o700)
        await leads(ground, node)


# ---- full


async def test_a_disk_that_is_full_at_the_bootstrap_leaves_nothing_behind(ground: Lab) -> None:
    async with a_node(ground, "brim", scope="brim") as node:
        argv = list(node.agent.argv)
        limited(node, 4 << 20)  # a WAL segment is larger
        await refuses(node, BOOTSTRAP, "initdb failed", "File too large", "free space on that disk")
        assert list(node.data.iterdir()) == []
        assert beside(node) == []
        assert await ground.etcd.get("/service/brim/initialize") == {}
        node.agent.argv = argv
        node.start()
        await leads(ground, node)


async def test_a_disk_that_is_full_during_a_clone_costs_retries_and_nothing_else(ground: Lab) -> None:
    async with a_node(ground, "spill") as node:
        argv = list(node.agent.argv)
        limited(node, 4 << 20)
        node.start()
        await says(ground, node, "no way to clone from db1", "pg_basebackup")
        assert len(await looks_on(ground, node, 8)) < 30
        assert beside(node) == []
        await node.kill_agent()
        node.agent.argv = argv
        node.start()
        await streams(ground, node)
        assert not (node.data / ".rivha-new").exists()


async def test_a_configuration_file_survives_a_disk_without_space(tmp_path: Path) -> None:
    file = tmp_path / "postgresql.conf"
    file.write_text("port = 5432\n")
    code = (
        "import resource, sys; from rivha.errors import CommandFailed; from rivha.postgres import files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
        "try: files.write(sys.argv[1], 'port = 5433\\n' + '#' * 1000)\n"
        "except CommandFailed as failed: print(failed)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=True)
    assert str(file) in done.stdout
    assert "File too large" in done.stdout
    assert "left as it was" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["postgresql.conf"]
    assert file.read_text() == "port = 5432\n"


@asynccontextmanager
async def small_disk(node: Node, size: str) -> AsyncIterator[Path]:
    """The node's data directory lies on it. Its processes end before it goes: nobody could tell whose they are afterwards."""
    disk = node.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "rivha-test", str(disk)], check=True, timeout=30)
    try:
        change(node, data_dir=str(give_away(disk) / "data"))
        yield disk
    finally:
        await node.kill_everything()
        subprocess.run(["umount", "-l", str(disk)], check=True, timeout=30)


@root
async def test_a_primary_whose_disk_fills_up_gives_way_and_returns_when_there_is_space() -> None:
    small = {"wal_keep_size": "0", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    async with Lab(2, wishes=Wishes(dynamic={"postgresql": {"use_pg_rewind": True, "parameters": small}})) as lab:
        full, other = lab.nodes
        async with small_disk(full, "200m") as disk:
            full.start()
            await leads(lab, full)
            await lab.up()
            async with writing(lab) as writer:
                balloon = disk / "balloon"
                blow_up(balloon)
                began = now()
                await fill(full)
                await leads(lab, other)
                await writes_again(lab, writer, began)

                async def told() -> bool:  # when the full node tries to come back; the voter has taken over before it could say anything
                    return "free space on that disk" in full.agent.log.read_text()

                await lab.wait_for(told, f"{full.name} says that its disk is full")
                assert len(await looks_on(lab, full, 10)) < 40
                assert (full.data / "PG_VERSION").exists()
                assert beside(full) == []
                balloon.unlink()
                await lab.heal(180)


def blow_up(balloon: Path) -> None:
    """Takes what space there is."""
    with balloon.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"\0" * 65536)
            except OSError as full:
                if full.errno != errno.ENOSPC:
                    raise
                return


async def fill(node: Node) -> None:
    """Writes WAL until Postgres cannot any more."""
    import asyncpg

    try:
        for _ in range(10_000):
            await node.fetch("select pg_logical_emit_message(false, 'fill', repeat('x', 1000000))", timeout_s=30)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return


@root
async def test_a_disk_that_becomes_read_only_under_a_standby_is_named(ground: Lab) -> None:
    async with a_node(ground, "rusty") as node, small_disk(node, "300m") as disk:
        node.start()
        await streams(ground, node)
        assert await node.stop() == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=30)
        node.start()
        await says(ground, node, str(node.data), "read-only")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True, timeout=30)
        await streams(ground, node)
    shutil.rmtree(node.folder, ignore_errors=True)
