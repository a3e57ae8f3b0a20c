"""Tells systemd how the service is: sd_notify's protocol, which is one datagram. Without NOTIFY_SOCKET it does nothing.

Called by `agent.main`. See docs/rivha.service and sd_notify(3).
"""

from __future__ import annotations

import os
import socket
import time

import structlog

log = structlog.get_logger(__name__)


def notify(*lines: str) -> bool:
    """Sends `READY=1`, `STOPPING=1`, `STATUS=...`; False when nobody listens. Never raises: systemd is not what we run for."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as s:
            s.sendto("\n".join(lines).encode(), address)
    except OSError as error:
        log.warning("systemd was not told", error=str(error), message=lines[0])
        return False
    return True


def reloading() -> bool:
    """Before a reload; `notify("READY=1")` ends it. systemd asks for the monotonic instant in microseconds."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
