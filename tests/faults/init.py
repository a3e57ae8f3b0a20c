"""The first process of a host of the fault lab: starts and restarts its programs as systemd would, and reaps whoever is left behind.

It runs as PID 1 of the host's PID namespace, so its end is the end of everything on that host: SIGKILL is a power-off, and the end of its
standard input (the program that runs the lab died) is one, too. It takes JSON lines and answers with JSON lines:
    {"run": NAME, "argv": [...], "env": {...}, "cwd": ..., "log": ..., "restart": bool}    {"signal": NAME, "number": 9}
    {"restart": NAME, "wanted": bool}                                                     {"do": [[argv], ...]}
    <- {"started": NAME, "pid": ...}   {"ended": NAME, "code": ...}   {"done": CODE, "said": ...}
Used by tests/faults/host.py only; it imports nothing of the project, so that it starts quickly.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from typing import Any

DO_S = 20.0  # for a program of `do`, which is over in milliseconds


class Service:
    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.restart = bool(order["restart"])
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        with open(self.order["log"], "ab") as out:
            self.child = subprocess.Popen(
                self.order["argv"], cwd=self.order["cwd"], env=self.order["env"], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        return self.child.pid


services: dict[str, Service] = {}


def tell(**event: object) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def obey(order: dict[str, Any]) -> None:
    if "run" in order:
        services[order["run"]] = Service(order)
        begin(order["run"])
    elif "signal" in order:
        service = services.get(order["signal"])
        if service is not None and service.child is not None and service.child.returncode is None:
            os.kill(service.child.pid, order["number"])
    elif "restart" in order:
        if order["restart"] in services:  # else the machine was switched off and on meanwhile, and has not begun it yet
            services[order["restart"]].restart = order["wanted"]
    elif "do" in order:
        tell(**do(order["do"]))


def do(commands: list[list[str]]) -> dict[str, object]:
    """One after the other, up to the first that fails."""
    for argv in commands:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DO_S, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            return {"done": done.returncode, "said": f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}"}
    return {"done": 0, "said": ""}


def begin(name: str) -> None:
    try:
        tell(started=name, pid=services[name].start())
    except OSError as error:
        tell(ended=name, code=127, said=str(error))


def reap() -> None:
    """Ours by name, anybody else's (a daemon's children) silently."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for name, service in services.items():
            if service.child is not None and service.child.pid == pid:
                code = os.waitstatus_to_exitcode(status)
                service.child.returncode = code
                tell(ended=name, code=code)
                if service.restart:
                    begin(name)


def main() -> None:
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write, 0):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wake_read, selectors.EVENT_READ)
    tell(up=os.getpid())
    rest = b""
    while True:
        for key, _ in selector.select():
            if key.fd == wake_read:
                os.read(wake_read, 4096)
                continue
            read = os.read(0, 65536)
            if not read:
                return
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                obey(json.loads(line))
        reap()


if __name__ == "__main__":
    main()
