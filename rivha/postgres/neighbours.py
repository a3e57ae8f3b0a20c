"""Questions to others about what stands in this Postgres's way: who holds its port, and why its upstream does not let it stream.

The answers are for people: nothing is decided by them. Called by `starting`, `bootstrap` and `status`.
"""

from __future__ import annotations

import errno
import socket

from rivha.advice import advised, brief
from rivha.errors import CommandFailed
from rivha.postgres import conninfo
from rivha.postgres.parts import Parts
from rivha.postgres.settings import PostgresSettings

ASK_UPSTREAM_S = 6.0  # connect_timeout is 2 s and counts for each address


def refuse_taken_port(settings: PostgresSettings) -> None:
    """Raises CommandFailed when none of the addresses can be had because somebody listens there: Postgres would not start. Blocking."""
    taken = []
    for host in settings.listen_addresses.split(","):
        try:
            found = socket.getaddrinfo(None if host == "*" else host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError:
            continue  # Postgres says it better
        for family, kind, protocol, _, address in found:
            number = _bind(family, kind, protocol, address)
            if number == errno.EADDRINUSE:
                taken.append(str(address[0]))
            elif number == 0:
                return
    if taken:
        raise CommandFailed(f"Postgres cannot listen on port {settings.port} of {', '.join(taken)}: Address already in use")


def _bind(family: int, kind: int, protocol: int, address: object) -> int:
    """The system's error number, 0 when the address is free. Reuse as Postgres does it: remains of old connections do not count."""
    try:
        with socket.socket(family, kind, protocol) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)  # type: ignore[arg-type]
    except OSError as error:
        return error.errno or -1
    return 0


async def why_nothing_streams(parts: Parts) -> str:
    """What the upstream says to a replication connection such as the WAL receiver makes; "" when it would have it."""
    facts = conninfo.parse(parts.conf.primary_conninfo())
    if not facts.get("host"):
        return ""
    target = conninfo.render({**facts, "application_name": "Rivha", "replication": "true"})
    environment = {"PGPASSFILE": parts.conf.passfile}
    try:
        await parts.programs.run("psql", "-XAtw", target, "-c", "IDENTIFY_SYSTEM", timeout_s=ASK_UPSTREAM_S, env=environment)
    except CommandFailed as refused:
        said = brief(f"{facts['host']}:{facts.get('port', '5432')} does not let this node stream", refused.output or str(refused))
        return advised(said, refused.output)
    return ""
