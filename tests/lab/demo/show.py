"""How the demo looks: plain lines and tables, with colour where there is a terminal. It only shows; `story` does."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from tests.lab.cluster import Lab
from tests.lab.node import now
from tests.lab.timeline import Timeline
from tests.lab.writer import Account

LABELS = {
    "noticed": "noticed by an agent",
    "elected": "new leader elected",
    "promoted": "primary takes writes",
    "routed": "HAProxy routes there",
    "first_write": "first acknowledged write",
    "streaming": "old node streams again",
}


class Show:
    def __init__(self) -> None:
        # Lines are not cut to the terminal's width: commands and addresses shall be copied from them.
        self.console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
        self.began = now()

    def heading(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/bold]")

    def line(self, text: str) -> None:
        self.console.print(f"  {text}")

    @asynccontextmanager
    async def waiting(self, text: str) -> AsyncIterator[Progress]:
        """Shows what is waited for, and every change of it."""
        if self.console.is_terminal:
            with self.console.status(text):
                yield Progress(self)
        else:
            self.line(f"{text} ...")
            yield Progress(self)

    async def cluster(self, lab: Lab) -> None:
        """The members as the cluster itself tells them (GET /cluster of whoever answers)."""
        table = Table("Member", "Host", "Role", "State", "TL", "Lag", title=None)
        for member in await members_of(lab):
            lag = member.get("lag", "")
            row = [member["name"], f"{member.get('host')}:{member.get('port')}", member["role"], member["state"]]
            table.add_row(*map(str, row), str(member.get("timeline", "")), f"{lag} B" if isinstance(lag, int) else str(lag))
        self.console.print(table)

    def timeline(self, story: Timeline, old: str) -> None:
        table = Table("  after the fault", Column("ms", justify="right"), show_edge=False, pad_edge=False, box=None)
        for step, seconds in story.steps():
            said = f"{seconds * 1000:,.0f}" if seconds is not None else _why_not(step, story, old)
            table.add_row("  " + LABELS[step], said)
        self.console.print(table)
        self.line(f"writes stood still for [bold]{story.outage.seconds * 1000:,.0f} ms[/bold]; {story.leader} leads now")

    def account(self, account: Account) -> None:
        colour = "red" if account.lost else "green"
        self.console.print(f"\n[bold {colour}]acknowledged {account.acknowledged} rows, lost {len(account.lost)}[/bold {colour}]")
        self.line(f"{account.unknown} commits have no known outcome (the connection broke), {account.refused} were refused")


class Progress:
    """News while something is waited for; the same news twice is shown once."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._last = ""

    def news(self, text: str) -> None:
        if text and text != self._last:
            self._last = text
            self._show.console.print(f"    [dim]{now() - self._show.began:6.1f} s  {text}[/dim]")


def _why_not(step: str, story: Timeline, old: str) -> str:
    if story.leader == old and step in ("elected", "streaming"):
        return f"- ({old} came back as primary)"
    if step == "routed":
        return f"- (it never left {story.leader})"
    return "-"


async def members_of(lab: Lab) -> list[dict[str, Any]]:
    leader = await lab.leader()
    for node in sorted(lab.nodes, key=lambda node: node is not leader):  # the leader's news are the newest
        code, text = await node.ask("GET", "/cluster")
        if code == 200:
            members: list[dict[str, Any]] = json.loads(text)["members"]
            return members
    return []


async def roles(lab: Lab) -> str:
    """One line: `db1 leader running, db2 replica streaming, db3 creating replica`."""
    members = await lab.members()
    leader = (await lab.keys()).get("leader")
    words = []
    for node in lab.nodes:
        member = members.get(node.name)
        if member is None:
            words.append(f"{node.name} {'starting' if node.agent.alive else 'gone'}")
        else:
            role = "leader" if node.name == leader else member.get("role", "?")
            words.append(f"{node.name} {role} {member.get('replication_state') or member.get('state', '?')}")
    return ", ".join(words)
