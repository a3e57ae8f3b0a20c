"""What the tests of mistakes share: a node that may be set up wrongly, and what an on-call engineer would look at."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.lab.cluster import Lab
from tests.lab.node import REPOSITORY, Node, Wishes

ENDS_S = 60.0

# Exit codes, docs/operations.md
MISTAKES, BINARIES, DATA, NAME, REST, BOOTSTRAP = 1, 3, 4, 5, 6, 7


@asynccontextmanager
async def a_node(lab: Lab, name: str, *, scope: str = "", postgresql: Mapping[str, object] | None = None) -> AsyncIterator[Node]:
    """One more node, not started. With a `scope` of its own it makes a cluster of its own in the lab's etcd."""
    wishes = Wishes(scope=scope or lab.wishes.scope)
    node = Node(lab.root, lab.session, name, etcd=lab.etcd.hosts, bin_dir=lab.bin_dir, passwords=lab.passwords, wishes=wishes)
    if postgresql:
        change(node, **postgresql)
    try:
        yield node
    finally:
        await node.kill_everything()


def change(node: Node, **postgresql: Any) -> None:
    """The node's file with other keys in its section `postgresql`; a `data_dir` is where the node's data are from now on."""
    node.write_config(postgresql=postgresql_of(node) | postgresql)
    if "data_dir" in postgresql:
        node.data = Path(postgresql["data_dir"])


def postgresql_of(node: Node) -> dict[str, Any]:
    section = node._settings()["postgresql"]
    assert isinstance(section, dict)
    return section


def with_password(node: Node, user: str, password: str) -> dict[str, Any]:
    """`authentication` with another password for superuser, replication or rewind."""
    known = postgresql_of(node)["authentication"]
    return {"authentication": known | {user: known[user] | {"password": password}}}


def limited(node: Node, largest_file: int) -> None:
    """Its agent and all that this starts may write no file beyond so many bytes: a full disk for those who must not mount one."""
    code = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_file},) * 2); os.execv(sys.argv[1], sys.argv[1:])"
    )
    node.agent.argv = [sys.executable, "-c", code, *node.agent.argv]


# ---- what is seen


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below with its size and time of change."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            facts = os.lstat(os.path.join(where, name))
            found[os.path.relpath(os.path.join(where, name), folder)] = (facts.st_size, facts.st_mtime_ns)
    return found


def beside(node: Node) -> list[str]:
    """Directories next to the data directory that Rivha made."""
    return sorted(p.name for p in node.data.parent.glob(node.data.name + ".*") if p.is_dir())


def log_of(node: Node) -> str:
    return node.agent.log.read_text(errors="replace")


def last_words(node: Node) -> str:
    return str(node.log_records()[-1].get("message", ""))


async def refuses(node: Node, code: int, *words: str) -> None:
    """The agent ends by itself with `code`, its last words contain `words`, and it leaves no traceback or complaint of Python's."""
    node.start()
    assert await node.agent.ended(ENDS_S) == code, node.agent.tail()
    for word in words:
        assert word in last_words(node), node.agent.tail()
    assert [record for record in node.log_records() if "text" in record] == []


async def says(lab: Lab, node: Node, *words: str) -> None:
    """GET /patroni names the problem; so does the log."""

    async def told() -> bool:
        problem, log = (await node.status()).get("problem", ""), log_of(node).replace('\\"', '"')  # a thread writes it, in its own time
        return all(word in problem and word in log for word in words)

    await lab.wait_for(told, f"{node.name} says {words}")


async def listed(node: Node) -> str:
    """What `rivhactl list` prints."""
    argv = [sys.executable, "-m", "rivha.cli", "-c", str(node.config), "list"]
    process = await asyncio.create_subprocess_exec(*argv, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    async with asyncio.timeout(ENDS_S):
        out, _ = await process.communicate()
    return out.decode()


async def looks_on(lab: Lab, node: Node, seconds: int) -> list[dict[str, Any]]:
    """The log records of as many further seconds in which the agent read etcd."""
    before, since = len(node.log_records()), (await node.status())["dcs_last_seen"]

    async def later() -> bool:
        return bool((await node.status()).get("dcs_last_seen", 0) >= since + seconds)

    await lab.wait_for(later, f"{node.name}'s agent looked for {seconds} s more")
    return node.log_records()[before:]


async def leads(lab: Lab, node: Node) -> None:
    await lab.wait_for(lambda: node.healthy("/primary"), f"{node.name} leads")


async def streams(lab: Lab, node: Node) -> None:
    async def streaming() -> bool:
        return (await node.status()).get("replication_state") == "streaming"

    await lab.wait_for(streaming, f"{node.name} streams", 120)
