"""Runs PostgreSQL's programs: with a deadline, a clean environment, their output captured, and nothing left behind.

It must never run anything through a shell, and never let a program outlive the call (the postmaster: see rivha.postgres.process).
Called by the other modules of this package only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rivha.errors import CannotRun, CommandFailed
from rivha.postgres.settings import PostgresSettings

KEPT_LINES = 40  # of a program's output, for the error message
DEAD_WITHIN_S = 5.0  # SIGKILL works at once but in uninterruptible sleep
EXIT_BINARIES = 3  # docs/operations.md, exit codes
NEEDED = ("postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind", "pg_waldump", "psql")
SUPPORTED = range(14, 20)
SINGLE_USER_DATABASE = "template1"  # exists in every cluster

OnLine = Callable[[str], None]


def clean_environment(extra: Mapping[str, str] | None = None, *, c_locale: bool = True) -> dict[str, str]:
    """Ours without what would steer libpq or systemd's notification (HAZARDS E 68, D 61); messages in English where they are parsed."""
    dropped = ("PG", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    if c_locale:
        kept.update(LC_ALL="C", LANG="C")
    return {**kept, **(extra or {})}


class Programs:
    """Where the programs are, and how to run one."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._found: dict[str, str] = {}

    def path(self, name: str) -> str:
        """The program's full path. Raises CommandFailed when there is none."""
        if name not in self._found:
            file = self._settings.bin_names.get(name, name)
            path = self._search(file)
            if path is None:
                where = self._settings.bin_dir or "PATH and /usr/lib/postgresql/*/bin"
                raise CommandFailed(f"{file} not found in {where}; install PostgreSQL or set postgresql.bin_dir")
            self._found[name] = path
        return self._found[name]

    def _search(self, file: str) -> str | None:
        if self._settings.bin_dir:
            return shutil.which(file, path=self._settings.bin_dir)
        found = shutil.which(file) if shutil.which("postgres") else None  # Debian has psql in PATH, but not the server
        return found or next((p for d in debian_bin_dirs(self._settings.data_dir) if (p := shutil.which(file, path=d))), None)

    async def run(
        self,
        name: str,
        *args: str,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        c_locale: bool = True,
        on_line: OnLine | None = None,
        keep_bytes: int | None = None,
        any_code: bool = False,
    ) -> str:
        """stdout of `name args`. Raises CommandFailed when it fails or outlives `timeout_s`; it is dead when this returns."""
        path = self._found[name] if name in self._found else await asyncio.to_thread(self.path, name)
        return await run(
            [path, *args],
            name=name,
            timeout_s=timeout_s,
            env=clean_environment(env, c_locale=c_locale),
            on_line=on_line,
            keep_bytes=keep_bytes,
            any_code=any_code,
        )

    async def version(self) -> int:
        """Major version of the binaries: 15."""
        text = await self.run("postgres", "--version", timeout_s=20)
        match = re.search(r"PostgreSQL\)? (\d+)", text)
        if match is None:
            raise CommandFailed("postgres --version answered something unknown", text)
        return int(match.group(1))

    async def check(self) -> int:
        """As `version`. Raises CannotRun when a program is missing or does not fit the data directory."""
        try:
            for name in NEEDED:
                await asyncio.to_thread(self.path, name)
            version = await self.version()
        except CommandFailed as e:
            raise CannotRun(f"PostgreSQL's programs cannot be used: {e}", EXIT_BINARIES) from e
        if version not in SUPPORTED:
            text = f"PostgreSQL {version} in {os.path.dirname(self.path('postgres'))} is not supported; Rivha works with 14 to 18"
            raise CannotRun(text, EXIT_BINARIES)
        lying = await asyncio.to_thread(data_version, self._settings.data_dir)
        if lying is not None and lying != str(version):
            raise CannotRun(
                f"the data directory {self._settings.data_dir} is of PostgreSQL {lying}, but the programs in "
                f"{os.path.dirname(self.path('postgres'))} are of {version}; set postgresql.bin_dir, or upgrade with pg_upgrade",
                EXIT_BINARIES,
            )
        return version


def data_version(data_dir: str) -> str | None:
    """PG_VERSION's text; None when it cannot be read."""
    try:
        return Path(data_dir, "PG_VERSION").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def debian_bin_dirs(data_dir: str) -> list[str]:
    """Debian's and Ubuntu's folders of server programs: the one for this data directory, else the newest first."""
    mine = data_version(data_dir)
    found = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if p.parent.name.isdigit()]
    found.sort(key=lambda p: (p.parent.name == mine, int(p.parent.name)), reverse=True)
    return [str(p) for p in found]


async def run(
    argv: Sequence[str],
    *,
    name: str,
    timeout_s: float,
    env: Mapping[str, str],
    on_line: OnLine | None = None,
    keep_bytes: int | None = None,
    any_code: bool = False,
) -> str:
    """stdout of a program run in its own session. On failure, timeout or cancellation its whole process group is killed.

    `keep_bytes`: only the last ones, of output that may be endless. `any_code`: the caller reads the output, whatever the exit code.
    """
    try:
        process = await _spawned(argv, env)
    except OSError as e:
        raise CommandFailed(f"{name} could not be started: {e}") from e
    assert process.stdout is not None
    assert process.stderr is not None
    errors: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        async with asyncio.timeout(timeout_s):
            out, _ = await asyncio.gather(_collect(process.stdout, keep_bytes), _follow(process.stderr, errors, on_line))
            code = await process.wait()
    except TimeoutError:
        raise CommandFailed(f"{name} was ended after {timeout_s:g} s", "\n".join(errors)) from None
    finally:
        await _end(process)
    text = out.decode(errors="replace")
    if code != 0 and not any_code:
        raise CommandFailed(f"{name} failed with exit code {code}", "\n".join(errors) or text[-2000:], code)
    return text


async def _spawned(argv: Sequence[str], env: Mapping[str, str]) -> asyncio.subprocess.Process:
    """asyncio forgets a program that it is just starting when the task is cancelled: it would run on, unseen."""
    spawning = asyncio.ensure_future(
        asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=dict(env), start_new_session=True)
    )
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            await _end(await spawning)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing of it is left. What another user's children it may have (sudo) cannot be killed, and are not waited for."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEAD_WITHIN_S):
            await process.wait()


async def _collect(stream: asyncio.StreamReader, keep_bytes: int | None) -> bytes:
    kept = bytearray()
    while chunk := await stream.read(65536):
        kept += chunk
        if keep_bytes is not None and len(kept) > 2 * keep_bytes:
            del kept[:-keep_bytes]
    return bytes(kept)


async def _follow(stream: asyncio.StreamReader, kept: deque[str], on_line: OnLine | None) -> None:
    """Reads lines ended by newline or, as progress reports are, by carriage return. Bounded, whatever the program writes."""
    rest = ""
    while chunk := await stream.read(65536):
        *lines, rest = re.split(r"[\r\n]+", rest + chunk.decode(errors="replace"))
        rest = rest[-65536:]
        for line in filter(None, lines):
            kept.append(line)
            if on_line:
                on_line(line)
    if rest:
        kept.append(rest)
