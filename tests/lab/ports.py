"""Free ports on loopback. A port is free when it was handed out, not forever: whoever gets it binds it soon."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on; all are held open while choosing, so that none comes twice."""
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            one = socket.socket()
            held.append(one)
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


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
