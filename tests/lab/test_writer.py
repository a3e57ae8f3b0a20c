"""The writer and the node's ways to hurt Postgres, on one real Postgres behind a real HAProxy, without an agent."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest

from tests.lab.cluster import Lab
from tests.lab.node import REPOSITORY, Node, now
from tests.lab.processes import Process
from tests.lab.writer import Writer

pytestmark = pytest.mark.real


class Bare:
    """A lab whose only node has a Postgres and a stand-in for the agent's health check."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.node = lab.nodes[0]
        data, programs = str(self.node.data), self.node.bin_dir
        password = self.node.folder / "password"
        password.write_text(lab.passwords.superuser)
        password.chmod(0o644)
        initdb = [str(programs / "initdb"), "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", str(password), "-N"]
        self.initdb = Process("initdb", initdb, folder=self.node.folder)
        options = ["-p", str(self.node.postgres_port), "-k", str(self.node.folder)]
        self.postgres = Process("postgres", [str(programs / "postgres"), "-D", data, *options], folder=self.node.folder)
        stub = [sys.executable, "-m", "tests.lab.stubs", "db1", "0", str(self.node.rest_port), str(self.node.folder)]
        self.stub = Process("stub", stub, folder=self.node.folder, env={"PYTHONPATH": str(REPOSITORY)})
        (self.node.folder / "primary").touch()

    async def start(self) -> None:
        self.initdb.start()
        assert await self.initdb.ended(60) == 0, self.initdb.tail()
        self.stub.start()
        self.postgres.start()

    async def end(self) -> None:
        for process in (self.stub, self.postgres):
            await process.kill()


@pytest.fixture
async def bare() -> AsyncIterator[Bare]:
    async with Lab(nodes=1) as lab:
        bare = Bare(lab)
        await bare.start()
        yield bare
        await bare.end()


async def wrote(lab: Lab, writer: Writer, since: float) -> None:
    async def enough() -> bool:
        return writer.writing_since(since)

    await lab.wait_for(enough, "the client writes")


async def account_of(node: Node, writer: Writer) -> tuple[int, int]:
    await writer.stop()
    rows = await node.fetch(f"select number from {writer.table}")
    account = writer.settle({row["number"] for row in rows})
    assert account.acknowledged > 0
    return len(account.lost), len(account.ghosts)


async def test_a_killed_postmaster_takes_its_children_along_and_no_acknowledged_row_is_missing(bare: Bare) -> None:
    lab, node, writer = bare.lab, bare.node, bare.lab.writer()
    await writer.prepare()
    writer.start()
    await wrote(lab, writer, now())
    assert node.postmaster() == bare.postgres.pid
    assert len(node.processes()) > 4
    killed = now()
    node.kill_postmaster()
    await bare.postgres.ended(30)

    async def gone() -> bool:
        return node.processes() == []

    await lab.wait_for(gone, "the children have noticed")
    assert node.postmaster() is None
    bare.postgres.start()
    await wrote(lab, writer, now())
    gap = writer.longest_gap(killed)
    assert gap.end is not None
    assert gap.start < gap.end
    assert await account_of(node, writer) == (0, 0)


async def test_a_frozen_postgres_holds_its_clients_and_goes_on_when_it_thaws(bare: Bare) -> None:
    lab, node, writer = bare.lab, bare.node, bare.lab.writer()
    await writer.prepare()
    writer.start()
    await wrote(lab, writer, now())
    node.freeze_postgres()
    frozen = now()

    async def stands_still() -> bool:
        return writer.longest_gap(frozen).seconds > 0.5

    await lab.wait_for(stands_still, "the client gets no answer")
    node.thaw_postgres()
    await wrote(lab, writer, now())
    assert await account_of(node, writer) == (0, 0)


async def test_a_warning_under_way_makes_a_commit_unknown(bare: Bare) -> None:
    lab, node, writer = bare.lab, bare.node, bare.lab.writer()
    await writer.prepare()
    await node.fetch("create function grumble() returns trigger language plpgsql as $$ begin raise warning 'perhaps'; return new; end $$")
    await node.fetch(f"create trigger grumble before insert on {writer.table} for each row execute function grumble()")
    writer.start()

    async def doubtful() -> bool:
        return len(writer.unknown) > 5

    await lab.wait_for(doubtful, "commits with a warning")
    await writer.stop()
    assert writer.acknowledged == {}


async def test_a_refused_row_is_not_there(bare: Bare) -> None:
    lab, node, writer = bare.lab, bare.node, bare.lab.writer()
    await writer.prepare()
    await node.fetch(f"alter table {writer.table} add check (number % 2 = 0)")
    writer.start()
    await wrote(lab, writer, now())
    assert writer.refused
    assert await account_of(node, writer) == (0, 0)
