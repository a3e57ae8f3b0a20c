"""`python -m tests.lab.demo`: tells the story, stays up on a terminal until Ctrl-C, leaves nothing behind in any case.

Exit codes: 0 all well; 1 a row was lost that must not be, or a node did not come back; 3 a program is missing; 130 interrupted.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import aiohttp
from rich.markup import escape

from tests.lab.binaries import NotFoundError, version_of
from tests.lab.cluster import GaveUpError, Lab
from tests.lab.demo.show import Show
from tests.lab.demo.story import Story
from tests.lab.node import REPOSITORY
from tests.lab.ports import LOOPBACK, port_if_free
from tests.lab.timeline import Recorder

POSTGRES = 5432


async def tell(show: Show) -> int:
    port = port_if_free(POSTGRES)
    if port is None:
        show.line(f"port {POSTGRES} is taken on this machine: HAProxy gets a free one")
    async with Lab(primary_port=port) as lab:
        show.line(f"everything lies in {lab.root}; Postgres {version_of(lab.bin_dir)} from {lab.bin_dir}")
        async with Recorder(lab) as recorder:
            story = Story(lab, show, lab.writer(), recorder)
            try:
                await story.begin()
                await story.kill_postgres()
                await story.lose_node()
                await story.switch_over()
                well = await story.settle()
            finally:
                await story.writer.stop()
        if sys.stdin.isatty() and sys.stdout.isatty():
            await stay(lab, show)
    return 0 if well else 1


async def stay(lab: Lab, show: Show) -> None:
    """Until Ctrl-C."""
    proxy = lab.proxy
    show.heading("It stays up for you to play with; Ctrl-C ends it and removes everything")
    show.line(
        f"the primary     {lab.bin_dir}/psql 'postgresql://postgres:{lab.passwords.superuser}@{LOOPBACK}:{proxy.primary_port}/postgres'"
    )
    show.line(f"the standbys    the same with port {proxy.replica_port}; HAProxy's page: http://{LOOPBACK}:{proxy.stats_port}/")
    for node in lab.nodes:
        show.line(
            f"{node.name}             Postgres {node.postgres_port}, agent http://{LOOPBACK}:{node.rest_port}/cluster, log {node.agent.log}"
        )
    show.line(f"etcd            {lab.etcd.url}")
    show.line(f"rivhactl        PYTHONPATH={REPOSITORY} {sys.executable} -m rivha.cli -c {lab.nodes[0].config} list")
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.remove_signal_handler(number)
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    show.line("ending it ...")


async def main() -> int:
    show = Show()
    task = asyncio.create_task(tell(show))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        show.line("interrupted: everything was ended and removed")
        return 130
    except GaveUpError as stuck:
        show.line("[bold red]the cluster did not come back in time; this is what it looked like:[/bold red]")
        show.console.print(escape(str(stuck)))
        return 1
    except (NotFoundError, aiohttp.ClientError, RuntimeError) as problem:
        show.line(f"[bold red]{escape(str(problem))}[/bold red]")
        return 3 if isinstance(problem, NotFoundError) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
