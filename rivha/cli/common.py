"""What rivhactl's commands share: options, printing, asking before acting, and running a coroutine as a command."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Concatenate, ParamSpec

import click
from rich.console import Console
from rich.text import Text

from rivha.cli.place import Agents, Failed, Options, Place, UnreachableError
from rivha.cli.table import FORMATS, described, footer, member_rows, rendered, titled
from rivha.errors import RivhaError
from rivha.model import Cluster, Member

P = ParamSpec("P")

GOOD = r"\b(running|streaming)\b"
BAD = r"\b(crashed|stopped|start failed|unknown)\b"

scope_argument = click.argument("scope", required=False)
names_argument = click.argument("names", nargs=-1, metavar="[SCOPE] [MEMBER]...")
force_option = click.option("--force", is_flag=True, help="Do not ask.")
format_option = click.option("-f", "--format", "fmt", type=click.Choice([f for f in FORMATS if f != "topology"]), default="pretty")


def command(work: Callable[Concatenate[Options, P], Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A coroutine as a click command's callback; what Rivha raises on purpose becomes a message and exit code 1."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        options = click.get_current_context().find_object(Options) or Options()
        try:
            asyncio.run(work(options, *args, **kwargs))
        except (RivhaError, UnreachableError) as error:
            raise Failed(str(error)) from error

    return run


def paint(text: str) -> None:
    """Prints; states in colour when there is a terminal. Lines are never broken: scripts read them."""
    told = Text(text)
    told.highlight_regex(GOOD, "green")
    told.highlight_regex(BAD, "red")
    Console(highlight=False, soft_wrap=True).print(told)


def show(cluster: Cluster, scope: str, fmt: str = "pretty", *, extended: bool = False, reason: str = "") -> None:
    """The cluster's table, and below it what concerns the whole."""
    document = described(cluster, scope) | ({"reason": reason} if reason else {})
    columns, rows = member_rows(document, extended=extended, topology=fmt == "topology")
    if fmt not in ("pretty", "topology"):
        click.echo(rendered(fmt, columns, rows))
        return
    paint(rendered(fmt, columns, rows, titled(cluster, scope)))
    for line in footer(document):
        paint(line)


def confirm(question: str, *, force: bool) -> None:
    """Ends the command unless the operator says yes; without a terminal nobody does."""
    if not force:
        try:
            click.confirm(question, abort=True)
        finally:
            if not sys.stdin.isatty():
                click.echo()  # nobody pressed return on this terminal


def chosen(cluster: Cluster, names: Iterable[str], role: str = "any") -> list[Member]:
    """The members of those names (none: all) and of that role: leader, primary, replica, standby, any. Raises Failed without one."""
    known = {member.name: member for member in cluster.members}
    wanted = list(names) or list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise Failed(f"there is no member {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    leader = cluster.leader.name if cluster.leader else None
    leads = {"leader": True, "primary": True, "replica": False, "standby": False}.get(role)
    found = [known[name] for name in wanted if leads is None or (name == leader) is leads]
    if not found:
        raise Failed(f"there is no {role} among the members")
    return found


async def each(agents: Agents, members: Iterable[Member], what: str, method: str, path: str, body: object, timeout_s: float = 10.0) -> None:
    """The same request to several agents, one after another; raises Failed at the end when any did not do it."""
    wrong = 0
    for member in members:
        try:
            status, text = await agents.ask(member, method, path, body, timeout_s=timeout_s)
        except (UnreachableError, Failed) as why:
            status, text = 0, str(why)
        done = 200 <= status < 300
        wrong += not done
        code = f", status code={status}" if status else ""
        click.echo(f"Success: {what} on member {member.name}" if done else f"Failed: {what} for member {member.name}{code}, ({text})")
        if done and text and status == 202:
            click.echo(f"  {text}")
    if wrong:
        raise Failed(f"{what} failed on {wrong} of the members")


def decoded(text: str, who: str) -> object:
    """An agent's answer that is to be JSON. Raises Failed."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise Failed(f"{who} answered what is no JSON ({error}): {text[:80]!r}; is it a Rivha agent?") from error


async def asked(place: Place, members: Iterable[Member], method: str, path: str, body: object, timeout_s: float = 10.0) -> str:
    """The text of the first agent that can be reached. Raises Failed with its words when it refuses, else UnreachableError."""
    member, status, text = await place.agents.ask_any(members, method, path, body, timeout_s=timeout_s)
    if 200 <= status < 300:
        return text
    hint = "; give restapi.authentication in -c, or ctl.authentication" if status == 401 else ""
    raise Failed(f"{member.name} refused ({status}): {text}{hint}")
