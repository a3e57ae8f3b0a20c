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


def watchdog_s() -> float | None:
    """WatchdogSec of the unit; None: systemd does not watch us (sd_watchdog_enabled(3))."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / 1e6


class Heart:
    """What systemd's watchdog listens to. Only a tick that was completed may let it beat: an agent whose loop turns in vain is dead."""

    def __init__(self) -> None:
        self._asked_s = watchdog_s()
        self._told_s = self._asked_s

    def beat(self, patience_s: float) -> None:
        """`patience_s`: what two beats of a healthy agent may be apart, as the dynamic configuration has it now.

        The unit's WatchdogSec is prolonged when it is shorter: else a larger loop_wait would have every agent killed.
        """
        if self._asked_s is None:
            return
        wanted_s = max(self._asked_s, patience_s)
        if wanted_s == self._told_s:
            notify("WATCHDOG=1")
        elif notify("WATCHDOG=1", f"WATCHDOG_USEC={round(wanted_s * 1e6)}"):
            log.info("systemd's watchdog", seconds=wanted_s, unit_s=self._asked_s)
            self._told_s = wanted_s
