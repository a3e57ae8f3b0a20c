"""rivhactl: shows a cluster and asks its agents to do things. Reads etcd, acts through the agents' REST APIs; decides nothing itself.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import ParamSpec

import click
import structlog

from rivha import __version__
from rivha.cli import act, config
from rivha.cli.common import chosen, command, decoded, format_option, names_argument, scope_argument, show
from rivha.cli.place import Failed, Options, Place, UnreachableError, gathered, leader_first, place, place_and_names
from rivha.cli.table import rendered
from rivha.model import Cluster, format_lsn

P = ParamSpec("P")

REASON_S = 2.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-c", "--config-file", envvar="RIVHACTL_CONFIG", help="A node's configuration file, or one with scope and etcd3 only.")
@click.option("--etcd", "-d", "--dcs-url", multiple=True, metavar="HOST:PORT", help="etcd's addresses, instead of the file's.")
@click.option("--namespace", help="Above the cluster's name in etcd; default: service.")
@click.option("-k", "--insecure", is_flag=True, help="Do not verify the agents' certificates.")
@click.pass_context
def cli(context: click.Context, config_file: str | None, etcd: tuple[str, ...], namespace: str | None, insecure: bool) -> None:
    """Shows and steers a Rivha cluster. Most commands take the cluster's name; it may be left out when it is clear."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )
    context.obj = Options(config_file, etcd, namespace, insecure)


# ---- looking ---------------------------------------------------------------------------------------------------------------------


async def _look(options: Options, scope: str | None, fmt: str, *, extended: bool, stamp: bool, every_s: float | None) -> None:
    async with place(options, scope) as here:
        while True:
            cluster = await here.read()
            reason = await _why_nobody_leads(here, cluster) if fmt in ("pretty", "topology") else ""
            if every_s is not None and sys.stdout.isatty():
                click.clear()
            if stamp:
                click.echo(time.strftime("%Y-%m-%d %H:%M:%S%z"))
            show(cluster, here.scope, fmt, extended=extended, reason=reason)
            if every_s is None:
                return
            sys.stdout.flush()
            await asyncio.sleep(every_s)


async def _why_nobody_leads(here: Place, cluster: Cluster) -> str:
    """In the words of the first agent that answers."""
    if cluster.leader is not None:
        return ""
    try:
        who, _, text = await here.agents.ask_any(cluster.members, "GET", "/cluster", timeout_s=REASON_S)
        found = decoded(text, who.name)
    except (UnreachableError, Failed) as why:
        return str(why)
    return str(found.get("reason", "")) if isinstance(found, dict) else ""


watch_options = (
    click.option("-e", "--extended", is_flag=True, help="Every column, also empty ones."),
    click.option("-t", "--timestamp", "stamp", is_flag=True, help="Print the time first."),
    click.option("-w", "--watch", type=click.FloatRange(min=0.1), metavar="SECONDS", help="Again and again."),
    click.option("-W", "watch_2s", is_flag=True, help="The same, every 2 seconds."),
)


def _with_watch_options(function: Callable[P, None]) -> Callable[P, None]:
    for option in reversed(watch_options):
        function = option(function)
    return function


@cli.command("list")
@scope_argument
@format_option
@_with_watch_options
@command
async def list_members(
    options: Options, scope: str | None, fmt: str, extended: bool, stamp: bool, watch: float | None, watch_2s: bool
) -> None:
    """The members, their roles and how far behind they are."""
    await _look(options, scope, fmt, extended=extended, stamp=stamp, every_s=watch or (2.0 if watch_2s else None))


@cli.command()
@scope_argument
@_with_watch_options
@command
async def topology(options: Options, scope: str | None, extended: bool, stamp: bool, watch: float | None, watch_2s: bool) -> None:
    """The members as a tree: who streams from whom."""
    await _look(options, scope, "topology", extended=extended, stamp=stamp, every_s=watch or (2.0 if watch_2s else None))


@cli.command()
@scope_argument
@format_option
@command
async def history(options: Options, scope: str | None, fmt: str) -> None:
    """The failovers and switchovers so far."""
    async with place(options, scope) as here:
        cluster = await here.read()
    columns = ("TL", "LSN", "Reason", "Timestamp", "New Leader")
    rows = [
        {"TL": line.timeline, "LSN": line.lsn, "Reason": line.reason, "Timestamp": line.at, "New Leader": line.new_leader}
        for line in cluster.history
    ]
    if fmt == "pretty":
        rows = [row | {"LSN": format_lsn(int(str(row["LSN"])))} for row in rows]
    click.echo(rendered(fmt, columns, rows))


@cli.command()
def rules() -> None:
    """The whole policy: every rule with its reason, in the order in which they are asked. As Markdown."""
    from rivha.agent.rules import page

    click.echo(page(), nl=False)


@cli.command()
@names_argument
@click.option("-n", "--last", type=click.IntRange(min=1), default=20, show_default=True, help="How many decisions.")
@command
async def explain(options: Options, names: tuple[str, ...], last: int) -> None:
    """What a member decided last, and why: its journal. Without a member: the leader's, or the first that answers."""
    async with place_and_names(options, names) as (here, members):
        cluster = await here.read()
        wanted = chosen(cluster, members) if members else leader_first(cluster)
        who, status, text = await here.agents.ask_any(wanted, "GET", "/journal")
    if status != 200:
        raise Failed(f"{who.name} has no journal ({status}): {text}")
    click.echo(f"{who.name}, its last decisions:")
    entries = decoded(text, who.name)
    for entry in entries[-last:] if isinstance(entries, list) else []:
        click.echo(f"{entry['at']}  {entry['situation']}, tick of {entry['seconds'] * 1000:.0f} ms")
        for question in ("lease", "postgres"):
            verdict = entry[question]
            click.echo(f"    {question + ':':<10}{verdict['action']:<14}{verdict['reason']}  [{verdict['rule']}]")


@cli.command()
@names_argument
@click.option("--all", "everyone", is_flag=True, help="The versions of all members too.")
@command
async def version(options: Options, names: tuple[str, ...], everyone: bool) -> None:
    """rivhactl's version; with a cluster's or members' names (or --all) also the agents' and PostgreSQL's."""
    click.echo(f"rivhactl version {__version__}")
    if not names and not everyone:
        return
    async with place_and_names(options, names) as (here, members):
        answers = await gathered(here.agents, chosen(await here.read(), members), "/patroni")
    for name, answer in answers.items():
        if isinstance(answer, str):
            click.echo(f"{name}: {answer}")
            continue
        found = decoded(answer[1], name)
        assert isinstance(found, dict), "/patroni is an object"
        number = found.get("server_version")
        postgres = f" PostgreSQL {number // 10_000}.{number % 10_000}" if isinstance(number, int) else ""
        click.echo(f"{name}: Rivha {found.get('patroni', {}).get('version', 'unknown')}{postgres}")


for _command in (*act.COMMANDS, *config.COMMANDS):
    cli.add_command(_command)


def main() -> None:
    """The program `rivhactl`."""
    cli()
