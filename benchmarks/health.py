"""How fast a node answers health checks: `python benchmarks/health.py`.

Runs the server in a process of its own, bound to one core where the machine has two, and the clients here. Compares, in one run, our
server with a plain aiohttp Application answering the same body, each with 64 connections as fast as they can, then 200 requests a second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from multiprocessing import Process, Queue, set_start_method

from aiohttp import web

from rivha.api.app import Api
from rivha.api.health import Bodies
from rivha.api.settings import RestSettings
from rivha.metrics import Metrics
from tests.api.views import a_desk, a_view

REQUEST = b"GET /primary HTTP/1.1\r\nHost: rivha\r\n\r\n"
SECONDS = 5.0
CONNECTIONS = 64


def serve(kind: str, ports: Queue[int]) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    asyncio.run(_serve(kind, ports))


async def _serve(kind: str, ports: Queue[int]) -> None:
    now = time.monotonic()
    desk = a_desk(a_view(now=now + 3600), now=None)
    if kind == "rivha":
        api = Api(RestSettings(listen_port=0), desk, Metrics("bench", "a"), "bench")
        await api.start()
        ports.put(api.port)
    else:
        await _serve_application(ports)
    await asyncio.Event().wait()


async def _serve_application(ports: Queue[int]) -> None:
    bodies, view = Bodies("bench"), a_view()

    async def primary(_request: web.Request) -> web.Response:
        return web.Response(body=bodies.render(view, 1000.0), content_type="application/json")

    app = web.Application()
    app.router.add_get("/primary", primary)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ports.put(runner.addresses[0][1])


async def one_client(port: int, until: float, every_s: float, delay_s: float, waits: list[float], *, keep: bool) -> None:
    """Asks on one connection, or (as HAProxy does) on a new one each time."""
    await asyncio.sleep(delay_s)
    reader = writer = None
    due = time.perf_counter()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        begun = time.perf_counter()
        if reader is None or writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        await reader.readexactly(length)
        waits.append(time.perf_counter() - begun)
        if not keep:
            writer.close()
            await writer.wait_closed()
            reader = writer = None
        due = due + every_s if every_s else time.perf_counter()
    if writer is not None:
        writer.close()
        await writer.wait_closed()


async def load(port: int, clients: int, rate: float, seconds: float, *, keep: bool) -> tuple[float, float, float]:
    """(requests a second, median ms, 99th percentile ms); rate 0: as fast as they can."""
    waits: list[float] = []
    begun = time.perf_counter()
    every_s = clients / rate if rate else 0.0
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            delay_s = number / rate if rate else 0.0
            group.create_task(one_client(port, begun + seconds, every_s, delay_s, waits, keep=keep))
    took = time.perf_counter() - begun
    cuts = statistics.quantiles(waits, n=100)
    return len(waits) / took, cuts[49] * 1000, cuts[98] * 1000


def measure(kind: str, seconds: float) -> None:
    ports: Queue[int] = Queue()
    server = Process(target=serve, args=(kind, ports), daemon=True)
    server.start()
    port = ports.get(timeout=20)
    try:
        for name, clients, rate, keep in (
            ("64 connections, kept", CONNECTIONS, 0.0, True),
            ("64 connections, a new one per request", CONNECTIONS, 0.0, False),
            ("200 requests/s, a new connection each", 8, 200.0, False),
        ):
            per_second, median, p99 = asyncio.run(load(port, clients, rate, seconds, keep=keep))
            print(f"{kind:12} {name:40} {per_second:8.0f} /s   median {median:7.2f} ms   p99 {p99:7.2f} ms", flush=True)
    finally:
        server.terminate()
        server.join(10)


if __name__ == "__main__":
    set_start_method("spawn")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=["rivha", "application"], help="rivha: ours; application: a plain aiohttp one")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each load")
    options = parser.parse_args()
    for which in options.kinds:
        measure(which, options.seconds)
