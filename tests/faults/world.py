"""A world of its own for a fault lab: namespaces for network, processes and mounts, which end with the program that lives in them.

The program that runs a lab calls `enter` first: it is then started again as PID 1 of a new PID namespace, so that nothing that it
starts can outlive it, however it ends. Its network namespace holds two bridges and no way out: `wire`, on which the hosts talk to each
other and which has no address here, and `admin`, on which the lab asks the hosts' agents, so that a partition blinds the cluster and not
the observer.
Works as root, and as anybody where the kernel lets users make namespaces. It must never touch the machine's own network or mounts.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.lab.node import REPOSITORY
from tests.lab.processes import give_away

INSIDE = "RIVHA_FAULTS_WORLD"
PREFIX = "rivha-faults-"
WIRE, ADMIN = "wire", "admin"
WIRE_NET, ADMIN_NET = "198.18.0", "198.19.0"  # RFC 2544's, for tests: routed nowhere
OBSERVER = f"{ADMIN_NET}.1"
OBSERVER_MAC = "02:00:00:00:01:01"  # a bridge without one takes the lowest of its ports', and changes it when a host is switched off
RUN_S = 20.0


class CannotMakeNamespacesError(RuntimeError):
    """This machine does not let us; the text says what it refused."""


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", *user, "--net", "--pid", "--mount", "--ipc", "--fork", "--kill-child=SIGKILL", "--mount-proc"]


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin", "XTABLES_LOCKFILE": "/dev/null"}


def missing() -> str | None:
    """Why no fault lab can run here; None: one can."""
    for program, package in (("unshare", "util-linux"), ("ip", "iproute2"), ("iptables", "iptables"), ("setpriv", "util-linux")):
        if shutil.which(program, path=environment()["PATH"]) is None:
            return f"`{program}` is missing: apt-get install {package}"
    trial = "ip link add a0 type bridge && ip link add v0 type veth peer name v1 && iptables -A INPUT -s 198.18.0.9 -j DROP"
    trial += " && mount -t tmpfs -o size=1m none /mnt && unshare --net --pid --mount --fork --mount-proc true"
    argv = [*_unshare(), "sh", "-ec", trial]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_S, check=False, env=environment(), stdin=subprocess.DEVNULL)
    return f"this machine does not let us make namespaces: {done.stderr.strip() or done.returncode}" if done.returncode else None


def enter(module: str, arguments: Sequence[str]) -> None:
    """Returns inside the world. Outside, it replaces this process by `python -m module arguments` inside; raises what `missing` says."""
    if os.environ.get(INSIDE) == str(os.getpid()) == "1":
        return
    if why := missing():
        raise CannotMakeNamespacesError(why)
    sys.stdout.flush()
    sys.stderr.flush()
    argv = [*_unshare(), sys.executable, "-P", "-X", "faulthandler", "-m", module, *arguments]
    os.execvpe(argv[0], argv, environment() | {INSIDE: "1", "PYTHONPATH": str(REPOSITORY)})


def new_root() -> Path:
    """A directory for a lab, held by a lock as long as this process lives; removes those of labs that were killed."""
    sweep()
    # Short, because a Unix socket's path ends after 107 bytes.
    root = give_away(Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp")))
    root.chmod(0o755)
    hold = os.open(root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    fcntl.flock(hold, fcntl.LOCK_EX)
    return root


def sweep() -> None:
    """Removes what labs have left that were killed."""
    for old in Path("/tmp").glob(PREFIX + "*"):
        _remove_if_left(old)


def _remove_if_left(old: Path) -> None:
    """Of ours only: whoever holds the lock still works there, and whose it is we may not open."""
    try:
        lock = os.open(old / "lock", os.O_RDWR)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not (old / "kept").exists():
            shutil.rmtree(old, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(lock)


async def run(*argv: str, stdin: str = "") -> str:
    """A short program of the system; its output. Raises RuntimeError with its words."""
    child = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment()
    )
    async with asyncio.timeout(RUN_S):
        said, _ = await child.communicate(stdin.encode())
    if child.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {said.decode().strip()}\n{stdin}")
    return said.decode()


async def lay_cables() -> None:
    """The two bridges, unless they are there. Only ever inside: on the machine's own network nothing is changed."""
    if os.environ.get(INSIDE) != "1" or os.getpid() != 1:
        raise RuntimeError("the network of a fault lab is made inside its world only: call enter() first")
    if f"{ADMIN}:" in Path("/proc/net/dev").read_text():
        return
    await run("ip", "-batch", "-", stdin="\n".join([
        "link set lo up",
        f"link add {WIRE} type bridge forward_delay 0", f"link set {WIRE} up",
        f"link add {ADMIN} address {OBSERVER_MAC} type bridge forward_delay 0",
        f"addr add {OBSERVER}/24 dev {ADMIN}", f"link set {ADMIN} up",
    ]))  # fmt: skip
