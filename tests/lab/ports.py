"""Ports on loopback that stay ours: below the kernel's ephemeral range, and reserved among all processes that ask here.

A port from `bind(0)` is anybody's again the moment it is released: any outgoing connection may take it while a node is down, and the node
cannot come back. Other test runs on this machine ask the same way, so each port is held by a socket in the abstract namespace, which
vanishes with the process that holds it.
"""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"
FIRST, LAST = 15_000, 31_999  # ip_local_port_range begins at 32768

_held: list[socket.socket] = []  # as long as this process lives
_order = random.Random()


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on, and that nobody else will be given."""
    found: list[int] = []
    while len(found) < count:
        port = _order.randint(FIRST, LAST)
        if _reserved(port) and port_if_free(port) is not None:
            found.append(port)
    return found


def _reserved(port: int) -> bool:
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0rivha-test-port-{port}")
    except OSError:
        holder.close()
        return False
    _held.append(holder)
    return True


def port_if_free(port: int) -> int | None:
    """The wished port, or None when somebody has it on loopback or on all addresses."""
    for address in (LOOPBACK, "0.0.0.0"):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind((address, port))
            except OSError:
                return None
    return port
