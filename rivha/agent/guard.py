"""The guard: a tiny process beside the agent that kills Postgres once nobody vouches for its leadership any more.

The fence (rivha.agent.fence) lives in the agent's process, and freezes, hangs and dies with it; a primary would then outlive its lease,
and in asynchronous mode acknowledge what the next leader never sees. The guard does then what the fence would have done, a little later.

The agent (rivha.agent.guard_link) starts it as `python -m rivha.agent.guard ADDRESS DATA_DIR`, and tells it one thing: until when
Postgres may be a primary, on CLOCK_BOOTTIME. They share a page of memory for it instead of sending messages: the last word always counts,
whichever of the two was asleep; nothing queues up, gets lost, or is half read.

Handing over: the socket by which an agent gets the page has a name that follows from the data directory, in the abstract namespace, where
names vanish with their owner and can be taken once. So there is one guard for a directory, and an agent that comes back after a kill -9
finds the one that is armed, with the old deadline standing, until its own first word replaces it. The other design, a new guard for each
agent, would leave an old one behind that nobody can tell that all is well.

It must never touch a Postgres that is vouched for, or that is no primary (no deadline), or any other process; never wait for a disk, the
network or its agent; and never outlive its use: it ends when no agent holds a connection and no deadline stands.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import socket
import sys
import time

from rivha.postgres.kin import is_postgres_at, parent_of, postgres_at

LOOK_S = 0.25  # between looks at the word: a deadline that was moved forward, or a suspended machine, is noticed so late at the most
FIRST_AGENT_S = 10.0  # who started us connects within milliseconds
AGENTS = 4  # connections at a time; one is normal, two while an agent replaces another
PAUSE_S = 0.5  # between the last tries to kill what does not die (a blocked disk)
NOEXEC_SEAL = 8  # MFD_NOEXEC_SEAL of linux/memfd.h, which this Python may not know
TAKEN = 3  # exit code: another guard has the name


def now_ns() -> int:
    """CLOCK_BOOTTIME counts while the machine is suspended: a lease runs out meanwhile."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Page:
    """The shared memory: until when Postgres may be a primary (0: it is none), and how long SIGQUIT gets then; both in ns.

    Spoken across versions: an agent may find the guard of the one before it.
    """

    def __init__(self, fd: int) -> None:
        self._words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("q")

    @property
    def until_ns(self) -> int:
        return self._words[0]

    @property
    def quit_ns(self) -> int:
        return self._words[1]

    def write(self, until_ns: int, quit_ns: int) -> None:
        self._words[1] = quit_ns
        self._words[0] = until_ns  # last, and in one piece: it is what counts


class Guard:
    def __init__(self, listener: socket.socket, data_dir: str) -> None:
        """`data_dir` without symbolic links."""
        self._listener = listener
        self._data_dir = data_dir
        self._memory = _memory()
        self._page = Page(self._memory)
        self._agents: list[socket.socket] = []
        self._executed = 0  # the deadline that was carried out: who starts a Postgres afterwards does so on purpose

    def run(self) -> None:
        """Until it is of no use any more."""
        give_up_at = now_ns() + int(FIRST_AGENT_S * 1e9)
        while self._agents or self._armed or now_ns() < give_up_at:
            left_s = (self._page.until_ns - now_ns()) / 1e9 if self._armed else LOOK_S
            self._serve(min(max(left_s, 0.0), LOOK_S))
            if self._agents:
                give_up_at = 0
            if self._armed and now_ns() >= (until_ns := self._page.until_ns):
                self._execute(until_ns)

    @property
    def _armed(self) -> bool:
        return self._page.until_ns not in (0, self._executed)

    # ---- agents

    def _serve(self, within_s: float) -> None:
        """Lets agents come and go, for so long or until one did."""
        ready, _, _ = select.select([self._listener, *self._agents], [], [], within_s)
        for speaker in ready:
            if speaker is self._listener:
                self._welcome()
            elif not _still_there(speaker):
                self._agents.remove(speaker)
                speaker.close()

    def _welcome(self) -> None:
        """Our own user, or root, gets the page. Its connection says that it lives; nothing is read from it."""
        try:
            agent, _ = self._listener.accept()
            agent.setblocking(False)
            if len(self._agents) < AGENTS and peer(agent)[1] in (os.geteuid(), 0):
                socket.send_fds(agent, [b"."], [self._memory])
                self._agents.append(agent)
            else:
                agent.close()
        except OSError:  # it has gone already, or the system has no files left: it tries again, and so do we, but not in a hurry
            time.sleep(LOOK_S / 10)

    # ---- the deed

    def _execute(self, until_ns: int) -> None:
        """Immediate shutdown, then SIGKILL to whatever is left, until nothing is or somebody vouches anew."""
        left = postgres_at(self._data_dir)
        if left:
            tell(f"nobody vouches for the primary in {self._data_dir} any more: killing Postgres ({len(left)} processes)")
        postmasters = [pid for pid in left if parent_of(pid) not in left and any(parent_of(child) == pid for child in left)]
        for pid in postmasters:
            self._signal(pid, signal.SIGQUIT)
        kill_at = now_ns() + (self._page.quit_ns if postmasters else 0)
        pause_s = 0.005
        killed = bool(left)
        while left:
            self._serve(pause_s)
            if self._page.until_ns != until_ns:
                return
            if now_ns() >= kill_at:
                pause_s = min(pause_s * 1.5, PAUSE_S)
                for pid in left:
                    self._signal(pid, signal.SIGKILL)
            left = postgres_at(self._data_dir)
        self._executed = until_ns
        if killed:
            tell(f"no Postgres process is left in {self._data_dir}")

    def _signal(self, pid: int, number: signal.Signals) -> None:
        """Through a pidfd, and looked at again once that is held: numbers are used again."""
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return
        try:
            if is_postgres_at(pid, self._data_dir):
                signal.pidfd_send_signal(fd, number)
        except OSError:
            pass  # it died meanwhile
        finally:
            os.close(fd)


def _memory() -> int:
    """A page that other processes can be given."""
    try:
        fd = os.memfd_create("rivha-guard")
    except PermissionError:  # vm.memfd_noexec=2 wants it said that nobody will execute it; older kernels do not know the word
        fd = os.memfd_create("rivha-guard", os.MFD_CLOEXEC | NOEXEC_SEAL)
    os.ftruncate(fd, mmap.PAGESIZE)
    return fd


def _still_there(agent: socket.socket) -> bool:
    try:
        return bool(agent.recv(4096))
    except BlockingIOError:
        return True
    except OSError:
        return False


def peer(connection: socket.socket) -> tuple[int, int]:
    """PID and user of the other side, by the kernel's word."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder), int.from_bytes(credentials[4:8], sys.byteorder)


def tell(text: str) -> None:
    """A line on the agent's stderr, by a child: whoever reads it may have stopped reading, and we must go on."""
    try:
        if os.fork() == 0:
            try:
                os.write(2, f"rivha guard: {text}\n".encode())
            finally:
                os._exit(0)
    except OSError:
        pass  # no process to spare: what matters is done without words


def _detach(listener: socket.socket) -> None:
    """From here on as nobody's child, in a session of its own; the process that was called ends when the socket listens."""
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        os._exit(0 if os.read(ready, 1) else 1)
    os.setsid()
    listener.listen(AGENTS)  # after the fork: the kernel tells agents the PID of who called listen
    os.write(told, b".")
    os.close(ready)
    os.close(told)


def main(arguments: list[str]) -> int:
    address, data_dir = arguments
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind("\0" + address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return TAKEN
        raise
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _detach(listener)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
    except OSError:
        pass  # only a privileged one may; then it is as the agent's, which systemd's unit sets
    Guard(listener, data_dir).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
