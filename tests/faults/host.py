"""A host of the fault lab: a network and a PID namespace with a first process of its own, a cable to the wire, and programs on it.

Power-off pulls the cable and kills the first process: nothing says goodbye, all that ran is gone, and its half-open connections with it.
Cuts are made by the receiver's packet filter, so each direction can be cut by itself and the sender notices nothing but silence.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.faults import world
from tests.lab.processes import Process, account, give_away

ORDER_S = 20.0  # for the first process to answer; it needs milliseconds
INIT = Path(__file__).with_name("init.py")


class Host:
    def __init__(self, root: Path, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.address = f"{world.WIRE_NET}.{number}"
        self.admin = f"{world.ADMIN_NET}.{number}"
        self.folder = root / name
        self.folder.mkdir(mode=0o755)
        give_away(self.folder)
        self.services: dict[str, Service] = {}
        self.environment: dict[str, str] = {}  # of all its programs
        self.deaf_to: set[str] = set()  # addresses whose packets it does not get
        self.loses = 0.0  # the share of what it receives that is lost
        self.unplugged = False
        self._delay: asyncio.subprocess.Process | None = None
        self._unshare: subprocess.Popen[bytes] | None = None
        self._orders: IO[bytes] | None = None
        self._answers = -1  # the pipe's end, not blocking
        self._init = 0
        self._rest = b""

    # ---- power

    @property
    def on(self) -> bool:
        return self._unshare is not None and self._unshare.poll() is None

    async def power_on(self) -> None:
        """Nothing runs on it yet. Cuts outlive a power cycle: they are the network's, not the host's."""
        if self.on:
            return
        argv = ["unshare", "--net", "--pid", "--mount", "--ipc", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
        argv += [sys.executable, "-ISE", str(INIT)]
        with (self.folder / "init.log").open("ab") as errors:
            self._unshare = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd="/", env=world.environment(), start_new_session=True
            )
        assert self._unshare.stdout is not None
        self._orders, self._answers, self._rest = self._unshare.stdin, self._unshare.stdout.fileno(), b""
        os.set_blocking(self._answers, False)
        self._wait_for("up")
        self._init = _only_child(self._unshare.pid)
        await self._plug()

    async def _plug(self) -> None:
        port, admin = f"w-{self.name}", f"a-{self.name}"
        mac = f"02:00:00:00:{self.number:02x}"  # the same after a power cycle, or the neighbours would look for the old one for a while
        await world.run("ip", "-batch", "-", stdin="\n".join([
            f"link add {port} type veth peer name eth0 address {mac}:01 netns {self._init}", f"link set {port} master {world.WIRE} up",
            f"link add {admin} type veth peer name admin0 address {mac}:02 netns {self._init}",
            f"link set {admin} master {world.ADMIN} up",
        ]))  # fmt: skip
        self.do(
            ["ip", "link", "set", "lo", "up"],
            ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore"],  # or the two networks would answer for each other
            ["mount", "-t", "tmpfs", "-o", "mode=1777,size=256m", "none", "/dev/shm"],  # shared memory does not survive a power-off
            ["ip", "addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["ip", "addr", "add", f"{self.admin}/24", "dev", "admin0"],
            ["ip", "link", "set", "eth0", "up"],
            ["ip", "link", "set", "admin0", "up"],
        )
        if self.unplugged:
            await self.unplug()
        self.filter()

    async def power_off(self) -> None:
        if not self.on:
            return
        await self.hurry()
        assert self._unshare is not None
        for port in (f"w-{self.name}", f"a-{self.name}"):
            await world.run("ip", "link", "del", port)
        os.kill(self._init, signal.SIGKILL)
        until = time.monotonic() + ORDER_S
        while self._unshare.poll() is None:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.name} does not die: an uninterruptible process?")
            await asyncio.sleep(0.005)
        self.look()
        self._close()
        for service in self.services.values():
            service.lost()

    def _close(self) -> None:
        for end in (self._unshare.stdin, self._unshare.stdout) if self._unshare else ():
            assert end is not None
            end.close()
        self._unshare = self._orders = None

    # ---- cables

    async def unplug(self) -> None:
        """Its cable carries nothing, in neither direction; the link stays up, as behind a switch that failed."""
        self.unplugged = True
        if self.on:
            await world.run("ip", "link", "set", f"w-{self.name}", "nomaster")

    async def plug_in(self) -> None:
        self.unplugged = False
        if self.on:
            await world.run("ip", "link", "set", f"w-{self.name}", "master", world.WIRE)

    async def delay(self, late_s: float) -> None:
        """Each frame on its cable takes so much longer, in each direction, until `hurry`, or until it is switched off."""
        port, near, far = f"w-{self.name}", f"n-{self.name}", f"f-{self.name}"
        await world.run("ip", "-batch", "-", stdin="\n".join([
            f"link set {port} nomaster", f"link add {near} type veth peer name {far}", f"link set {near} up",
            f"link set {far} master {world.WIRE} up",
        ]))  # fmt: skip
        argv = [sys.executable, "-ISE", str(INIT.with_name("delay.py")), port, near, str(1000 * late_s)]
        self._delay = await asyncio.create_subprocess_exec(*argv, stdin=subprocess.DEVNULL)

    async def hurry(self) -> None:
        if self._delay is None:
            return
        if self._delay.returncode is None:
            self._delay.kill()
        await self._delay.wait()
        self._delay = None
        await world.run("ip", "link", "del", f"n-{self.name}")
        if not self.unplugged:
            await self.plug_in()

    def filter(self) -> None:
        """Brings the packet filter in line with `deaf_to` and `loses`."""
        if self.on:
            drops = [["iptables", "-A", "INPUT", "-i", "eth0", "-s", address, "-j", "DROP"] for address in sorted(self.deaf_to)]
            lost = ["-m", "statistic", "--mode", "random", "--probability", f"{self.loses:.3f}", "-j", "DROP"]
            drops += [["iptables", "-A", "INPUT", "-i", "eth0", *lost]] if self.loses else []
            self.do(["iptables", "-F", "INPUT"], *drops)

    # ---- programs

    def service(self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, folder: Path | None = None) -> Service:
        found = Service(self, name, argv, folder=folder or self.folder, env=self.environment | dict(env or {}))
        self.services[name] = found
        return found

    def do(self, *commands: Sequence[str]) -> None:
        """Short programs on this host, as the lab itself (with its rights on the host's namespaces). Raises RuntimeError."""
        self.order({"do": [list(argv) for argv in commands]})
        answer = self._wait_for("done")
        if answer["done"]:
            raise RuntimeError(f"on {self.name}: {answer['said']}")

    def order(self, order: Mapping[str, object]) -> None:
        if not self.on:
            raise RuntimeError(f"{self.name} is switched off")
        assert self._orders is not None
        self._orders.write(json.dumps(order).encode() + b"\n")
        self._orders.flush()

    def _wait_for(self, key: str) -> dict[str, Any]:
        """The next answer of this kind; what else comes meanwhile is taken note of."""
        until = time.monotonic() + ORDER_S
        while True:
            for event in self._events(max(0.0, until - time.monotonic())):
                if key in event:
                    return event
            if time.monotonic() > until or not self.on:
                raise TimeoutError(f"the first process of {self.name} does not answer:\n{(self.folder / 'init.log').read_text()}")

    def look(self, wait_s: float = 0.0) -> None:
        """Takes note of what has happened since the last look, waiting at most so long for something to happen."""
        if self._unshare is not None:
            self._events(wait_s)

    def _events(self, wait_s: float) -> list[dict[str, Any]]:
        readable, _, _ = select.select([self._answers], [], [], wait_s)
        if not readable:
            return []
        *lines, self._rest = (self._rest + (os.read(self._answers, 65536))).split(b"\n")
        events = [json.loads(line) for line in lines]
        for event in events:
            if "started" in event:
                self.services[event["started"]].note(None, event["pid"])
            elif "ended" in event:
                self.services[event["ended"]].note(event["code"])
        return events


class Service(Process):
    """A program on a host, seen as the lab sees its others. `pid` is the one inside the host."""

    def __init__(self, host: Host, name: str, argv: Sequence[str], *, folder: Path, env: Mapping[str, str] | None = None) -> None:
        super().__init__(name, argv, folder=folder, env=env)
        self.host = host
        self.restart = False  # as systemd's Restart=always with RestartSec=0
        self._pid: int | None = None
        self._code: int | None = None
        self.starts = 0

    def note(self, code: int | None, pid: int | None = None) -> None:
        """Told by the host: it started (with a PID), or ended (with a code)."""
        if pid is not None:
            self._pid, self._code = pid, None
            self.starts += 1
        elif self._code is None:
            self._pid, self._code = self._pid or 0, code

    def lost(self) -> None:
        """With its host, which knows nothing of it when it is switched on again, whoever wanted it restarted."""
        self._pid, self._code = None, -signal.SIGKILL

    def start(self) -> None:
        if self.alive:
            raise RuntimeError(f"{self.name} runs already on {self.host.name}")
        self.log.touch()
        give_away(self.log)
        who = account()
        drop = ["setpriv", "--ambient-caps=-all", "--inh-caps=-all"]
        if os.geteuid() == 0:
            drop += [f"--reuid={who.uid}", f"--regid={who.gid}", "--clear-groups"]
        order = {"run": self.name, "argv": [*drop, *self.argv], "env": self.env, "cwd": str(self.folder), "log": str(self.log)}
        self._pid = self._code = None
        self.host.order(order | {"restart": self.restart})
        until = time.monotonic() + ORDER_S
        while self._pid is None:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.host.name} does not start {self.name}")
            self.host.look(0.1)

    def babysit(self, wanted: bool) -> None:
        """Started again at once when it ends, from now on, or not."""
        self.restart = wanted
        if self.host.on and self._pid is not None:
            self.host.order({"restart": self.name, "wanted": wanted})

    @property
    def alive(self) -> bool:
        """Or about to be: who is started again at once is never seen dead."""
        self.host.look()
        return self._pid is not None and (self._code is None or (self.restart and self.host.on))

    @property
    def pid(self) -> int:
        if self._pid is None:
            raise RuntimeError(f"{self.name} was never started on {self.host.name}")
        return self._pid

    @property
    def exit_code(self) -> int | None:
        self.host.look()
        return self._code

    def signal(self, number: signal.Signals) -> None:
        if self.host.on:
            self.host.order({"signal": self.name, "number": int(number)})


def _only_child(pid: int) -> int:
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
