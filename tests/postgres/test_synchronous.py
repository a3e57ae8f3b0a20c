"""synchronous_standby_names on real servers: what only a real one has to be asked, and the processes that take a reload when they like."""

from __future__ import annotations

import asyncio
import socket

import pytest

from rivha.errors import CommandFailed
from rivha.model import Role
from rivha.postgres import conf
from rivha.postgres.command import clean_environment, run
from rivha.postgres.names import Names, parse
from tests.postgres.nodes import DYNAMIC, Node, Nodes, caught_up, commit, eventually, has, slots, stays_undone, stopped
from tests.postgres.versions import newest, nodes

__all__ = ["newest", "nodes"]

# ---- the text


NAMES_B, BOTH = 'ANY 1 ("b")', 'ANY 2 ("b","c")'
TAKEN = ('ANY 1 ("b-1","C")', 'FIRST 1 ("say ""hi"", x","(y)")', "1 (b,c)", "a, *", "")
REFUSED = (
    *("a b", "a,", ",a", "ANY 1 ()", "ANY 0 (a)", "ANY (a)", "ANY1 (a)", "ANY 1 (a)) ", "ANY 1 (a", "1 a"),
    *('"a', 'a"', "db-1", "any", "first, b"),
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", None),
        ("  ", None),
        ("a", Names("FIRST", 1, ("a",))),
        ("a, B", Names("FIRST", 1, ("a", "b"))),
        ('ANY 1 ("a","b")', Names("ANY", 1, ("a", "b"))),
        ('any 2("a", b , *)', Names("ANY", 2, ("a", "b", "*"))),
        ("3 (a,b,c)", Names("FIRST", 3, ("a", "b", "c"))),
        ('FIRST 1 ("say ""hi"", x","(y)")', Names("FIRST", 1, ('say "hi", x', "(y)"))),
    ],
)
def test_names_are_read_as_postgres_reads_them(text: str, names: Names | None):
    assert parse(text) == names


@pytest.mark.parametrize("text", REFUSED)
def test_what_postgres_would_not_start_with_is_refused(text: str):
    with pytest.raises(ValueError, match="synchronous_standby_names"):
        parse(text)


@pytest.mark.real
async def test_postgres_itself_starts_with_what_is_taken_and_not_with_what_is_refused(newest: Nodes):
    a = await newest.primary()

    async def starts(text: str) -> bool:
        arguments = ["-D", a.settings.data_dir, "-c", f"synchronous_standby_names={text}", "-C", "port"]
        try:
            await run([f"{newest.bin_dir}/postgres", *arguments], name="postgres", timeout_s=60, env=clean_environment())
        except CommandFailed:
            return False
        return True

    for text in REFUSED:
        assert not await starts(text), text
        with pytest.raises(CommandFailed, match="synchronous_standby_names"):
            await a.server.synchronize(text)
        with pytest.raises(CommandFailed, match="synchronous_standby_names"):
            await a.server.start(primary=True, upstream=None, names=text)
    for text in TAKEN:
        assert await starts(text), text
        await a.server.synchronize(text)
        assert await a.sql("SHOW synchronous_standby_names") == text


# ---- whose word counts


@pytest.mark.real
async def test_names_outlive_the_agent_and_every_other_setting(nodes: Nodes):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await a.server.synchronize(NAMES_B)
    assert (await a.status()).names_confirmed
    await a.server.close()
    again = a.again()
    await again.server.configure({"postgresql": {"parameters": {"work_mem": "9MB"}}}, reload=True)
    await eventually(lambda: _shows(a, "work_mem", "9MB"))
    status = await again.status()
    assert (status.synchronous_standby_names, status.names_confirmed) == (NAMES_B, False)
    await again.server.restart()
    assert await a.sql("SHOW synchronous_standby_names") == NAMES_B
    await again.server.synchronize(NAMES_B)
    assert (await again.status()).names_confirmed
    await b.server.freeze()
    await again.server.close()


async def _shows(node: Node, setting: str, value: str) -> bool:
    return bool(await node.sql(f"SHOW {setting}") == value)


@pytest.mark.real
async def test_names_that_somebody_else_put_in_force_are_not_lost_by_a_new_agents_first_configuration(newest: Nodes):
    a = await newest.primary()
    await a.server.close()
    (a.data_dir / "theirs.conf").write_text(f"synchronous_standby_names = '{NAMES_B}'\n")
    (a.data_dir / "postgresql.conf").write_text("include 'postgresql.base.conf'\ninclude 'theirs.conf'\nunix_socket_directories = ''\n")
    await a.sql("SELECT pg_reload_conf()")
    await eventually(lambda: _shows(a, "synchronous_standby_names", NAMES_B))
    adopted = a.again()
    await adopted.server.configure({"postgresql": {"parameters": {"work_mem": "9MB"}}}, reload=True)
    await eventually(lambda: _shows(a, "work_mem", "9MB"))
    assert await a.sql("SHOW synchronous_standby_names") == NAMES_B
    await adopted.server.close()


@pytest.mark.real
async def test_neither_the_clusters_configuration_nor_alter_system_says_whom_a_commit_waits_for(newest: Nodes):
    a = await newest.primary()
    theirs = {"postgresql": {"parameters": {"synchronous_standby_names": "theirs", "work_mem": "9MB"}}}
    await a.server.configure(theirs, reload=True)
    await eventually(lambda: _shows(a, "work_mem", "9MB"))
    assert await a.sql("SHOW synchronous_standby_names") == ""
    await a.sql("ALTER SYSTEM SET synchronous_standby_names = 'theirs'")
    await a.server.synchronize("ours")
    assert await a.sql("SHOW synchronous_standby_names") == "ours"
    await a.sql("ALTER SYSTEM SET synchronous_standby_names = 'theirs'")
    await a.server.restart()
    assert await a.sql("SHOW synchronous_standby_names") == "ours"


# ---- processes that take a reload when they like


@pytest.mark.real
async def test_names_are_not_confirmed_while_the_checkpointer_lets_commits_go_without_waiting(nodes: Nodes):
    """A checkpoint that somebody waits for does this for as long as it lasts."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await b.server.freeze()
    async with stopped(a, "checkpointer"):
        synchronizing = asyncio.create_task(a.server.synchronize(NAMES_B))
        await eventually(lambda: _shows(a, "synchronous_standby_names", NAMES_B))
        await commit(a, "nobody_waited_for_b")
        await stays_undone(synchronizing)
        assert not (await a.status()).names_confirmed
    await synchronizing
    assert (await a.status()).names_confirmed
    session = await a.session()
    waiting = asyncio.create_task(session.commit("now_they_wait"))
    await eventually(session.waits)
    assert not await has(a, "now_they_wait")
    await a.server.synchronize("")
    assert await waiting == "acknowledged"


@pytest.mark.real
async def test_whoever_others_may_replace_is_not_promoted_before_its_checkpointer_knows_that_commits_wait(nodes: Nodes):
    """One that has not heard of the names lets what is committed after the promotion go unreplicated."""
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    c = await nodes.standby(of=b, name="c")  # its sender here never counts it, whatever the names say
    await eventually(c.streams)
    await b.server.freeze()
    async with stopped(b, "checkpointer"):
        synchronizing = asyncio.create_task(b.server.synchronize('ANY 1 ("c")', surely=True))
        await eventually(lambda: _shows(b, "synchronous_standby_names", 'ANY 1 ("c")'))
        await stays_undone(synchronizing)
    await synchronizing
    assert (await b.status()).names_confirmed


@pytest.mark.real
async def test_names_are_not_confirmed_while_a_wal_sender_goes_by_the_old_ones(nodes: Nodes):
    """Its row says "quorum" before and after: only what it does tells."""
    a = await nodes.primary()
    b = await nodes.standby(of=a, name="b")
    await nodes.standby(of=a, name="c")
    await a.server.synchronize('ANY 1 ("b","c")')
    async with stopped(a, "walsender", "b"):
        synchronizing = asyncio.create_task(a.server.synchronize(BOTH))
        await eventually(lambda: _shows(a, "synchronous_standby_names", BOTH))
        rows = {r.application_name: r.sync_state for r in (await a.status()).replication}
        assert rows == {"b": "quorum", "c": "quorum"}
        await stays_undone(synchronizing)
    await synchronizing
    await b.server.freeze()
    session = await a.session()
    waiting = asyncio.create_task(session.commit("needs_both"))
    await eventually(session.waits)
    await b.server.follow(a.upstream)
    assert await waiting == "acknowledged"


@pytest.mark.real
async def test_names_come_into_force_while_clients_write_as_fast_as_they_can(nodes: Nodes):
    """A WAL sender that is busy is never seen asleep: it proves itself by what it sends."""
    a = await nodes.primary()
    await nodes.standby(of=a, name="b")
    c = await nodes.standby(of=a, name="c")
    await a.sql("CREATE TABLE load (x int)")
    enough = asyncio.Event()

    async def write() -> None:
        session = await a.session()
        while not enough.is_set():
            await session.execute("INSERT INTO load SELECT generate_series(1, 50)")
        await session.close()

    writers = [asyncio.create_task(write()) for _ in range(4)]
    for names in (BOTH, 'ANY 1 ("b","c")', NAMES_B, BOTH, "", 'ANY 1 ("c")', BOTH):
        await a.server.synchronize(names)
        assert (await a.status()).names_confirmed
    enough.set()
    await asyncio.gather(*writers)
    await caught_up(c, a)


@pytest.mark.real
async def test_who_is_being_cloned_acknowledges_nothing(nodes: Nodes):
    a = await nodes.primary()
    await a.server.synchronize(NAMES_B)
    b = nodes.node("b", replica_methods={"basebackup": ["max-rate=8M"]})
    await b.server.configure(DYNAMIC, reload=False)
    await slots(a, "b")
    cloning = asyncio.create_task(b.server.clone(a.upstream))

    async def streams_wal() -> bool:
        rows = {(r.application_name, r.state) for r in (await a.status()).replication}
        assert "b" not in {name for name, _ in rows}
        return ("clone:b", "streaming") in rows

    await eventually(streams_wal)
    session = await a.session()
    waiting = asyncio.create_task(session.commit("not_before_b_streams"))
    await eventually(session.waits)
    await cloning
    assert not waiting.done()
    await b.server.start(primary=False, upstream=a.upstream)
    assert await waiting == "acknowledged"


@pytest.mark.real
async def test_a_start_as_a_standby_that_came_to_nothing_does_not_cost_a_primary_its_names(newest: Nodes):
    """Nobody has become a standby: what is started as a primary next is the one that stopped, and voters count on its names."""
    a = await newest.primary()
    await a.server.synchronize('ANY 1 ("b")')
    await a.server.stop(fast_s=5)
    with socket.create_server(("127.0.0.1", a.settings.port)), pytest.raises(CommandFailed):
        await a.server.start(primary=False, upstream=None)
    await a.server.start(primary=True, upstream=None)
    assert await a.sql("SHOW synchronous_standby_names") == 'ANY 1 ("b")'


# ---- who is no primary


@pytest.mark.real
async def test_who_becomes_a_standby_loses_its_names_by_whatever_way(nodes: Nodes):
    a = await nodes.primary()
    b = await nodes.standby(of=a)
    await a.server.synchronize("ghost")
    await b.server.freeze()
    await a.server.stop(fast_s=0)
    await b.server.promote()
    await b.server.checkpoint()
    await a.server.rewind(b.upstream)
    await slots(b, "a")  # a rewound directory may need WAL from the new primary before it accepts connections
    assert conf.read_conf((a.data_dir / "postgresql.conf").read_text())["synchronous_standby_names"] == ""
    await a.server.start(primary=False, upstream=b.upstream)
    assert await a.sql("SHOW synchronous_standby_names") == ""
    await a.server.configure(DYNAMIC, reload=True)
    await a.server.freeze()
    await a.server.promote()
    await commit(a, "waits_for_nobody")
    assert (await a.status()).role is Role.PRIMARY
