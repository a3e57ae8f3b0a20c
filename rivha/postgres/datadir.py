"""What lies in the data directory, and the ways in which Rivha may change it as a whole: marker, staging, moving aside.

It must never delete anything that Postgres wrote, except its own staging folder, and never call a directory usable unseen.
Blocking: the Server calls it off the loop.

The marker says that a bootstrap, clone or rewind was interrupted. It has to travel with the data (a container's volume is often just the
data directory), survive pg_rewind, which removes every file and link that the source lacks, and not be copied by anybody. A named pipe does
all three: pg_rewind, pg_basebackup and fsync walk past it. Custom clone programs want an empty directory, so theirs is a file beside it.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from rivha.errors import CommandFailed
from rivha.model import Data
from rivha.postgres import files
from rivha.postgres.command import data_version

MARKER = "rivha.unfinished."  # + what was begun
STAGING = ".rivha-new"  # initdb and pg_basebackup fill this, then its entries are renamed into place
SIGNALS = ("standby.signal", "recovery.signal")
KINDS = ("bootstrap", "clone", "rewind")
LEAST_ROOM = 32 << 20  # bytes
PASSING = ("postmaster.pid", "postmaster.opts", "backup_label.old", "tablespace_map.old", "recovery.done")


@dataclass(frozen=True, slots=True)
class Contents:
    """One look at the directory."""

    data: Data
    problem: str = ""
    unfinished: str = ""
    standby: bool = False  # a signal file is there
    copied: bool = False  # and backup_label is: a fresh copy, never started, however its control file reads


class DataDir:
    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self._device: int | None = None  # of the file system on which valid data was last seen

    def of(self, name: str) -> str:
        return os.path.join(self.path, name)

    @property
    def staging(self) -> str:
        return self.of(STAGING)

    def version(self) -> str | None:
        """PG_VERSION's text; None when it cannot be read."""
        return data_version(self.path)

    # ---- looking

    def look(self) -> Contents:
        """Never raises: what the operating system refuses is INACCESSIBLE."""
        try:
            return self._look()
        except OSError as e:
            return Contents(Data.INACCESSIBLE, f"{e.filename or self.path}: {e.strerror or e}")

    def _look(self) -> Contents:
        try:
            facts = os.stat(self.path)
        except FileNotFoundError:
            return self._absent()
        wrong = self._wrong_owner_or_mode(facts)
        if wrong:
            return Contents(Data.INACCESSIBLE, wrong)
        names = set(os.listdir(self.path))
        marked = self.marked(names)
        real = {n for n in names if n != "lost+found" and not n.startswith((".", MARKER))}
        if marked:
            next_step = "rewound again" if marked == "rewind" else "made anew"
            text = f"a {marked} of {self.path} was interrupted; it is not started, but {next_step}"
            return Contents(Data.UNFINISHED, text, unfinished=marked, standby=not real.isdisjoint(SIGNALS))
        if not real:
            return self._empty(facts)
        return self._filled(facts, real)

    def _filled(self, facts: os.stat_result, names: set[str]) -> Contents:
        if "PG_VERSION" not in names or not os.path.isfile(self.of("global/pg_control")):
            missing = "global/pg_control" if "PG_VERSION" in names else "PG_VERSION"
            text = f"{self.path} is not empty, but {missing} is missing: no data directory, or half of one; move it away"
            return Contents(Data.INACCESSIBLE, text)
        if not os.access(self.path, os.W_OK):
            return Contents(Data.INACCESSIBLE, f"{self.path} cannot be written: a read-only file system?")
        if facts.st_mode & 0o027:
            mode = stat.S_IMODE(facts.st_mode)
            text = f"{self.path} has mode {mode:04o}; Postgres starts only with 0700 or 0750: chmod 0700 {self.path}"
            return Contents(Data.INACCESSIBLE, text)
        self._device = facts.st_dev
        standby = not names.isdisjoint(SIGNALS)
        return Contents(Data.VALID, standby=standby, copied=standby and "backup_label" in names)

    def _absent(self) -> Contents:
        parent = os.path.dirname(self.path)
        marked = self.marked(set())
        if marked:
            return Contents(Data.UNFINISHED, f"a {marked} of {self.path} was interrupted", unfinished=marked)
        if not os.path.isdir(parent):
            return Contents(Data.INACCESSIBLE, f"{parent} does not exist; create it, owned by the user that runs Rivha")
        if not os.access(parent, os.W_OK | os.X_OK):
            return Contents(Data.INACCESSIBLE, f"{self.path} does not exist and cannot be created in {parent}: no permission, or read-only")
        return self._empty(os.stat(parent))

    def _empty(self, facts: os.stat_result) -> Contents:
        """Empty, unless that emptiness is the bare mount point of a disk that is not there (HAZARDS E 73)."""
        if self._device not in (None, facts.st_dev):
            return Contents(Data.INACCESSIBLE, f"{self.path} is empty and on another file system than its data was: unmounted?")
        point = unmounted(self.path)
        if point:
            text = f"{point} is a mount point of /etc/fstab and not mounted; {self.path} looks empty only because of that"
            return Contents(Data.INACCESSIBLE, text)
        return Contents(Data.EMPTY)

    def _wrong_owner_or_mode(self, facts: os.stat_result) -> str:
        if not stat.S_ISDIR(facts.st_mode):
            return f"{self.path} is not a directory"
        if facts.st_uid != os.geteuid():
            return f"{self.path} belongs to user {facts.st_uid}, but Rivha runs as {os.geteuid()}: chown it"
        return ""

    def holds_nothing(self) -> bool:
        """Nothing but our marker. Raises CommandFailed."""
        try:
            return all(name == "lost+found" or name.startswith((".", MARKER)) for name in os.listdir(self.path))
        except OSError as e:
            raise CommandFailed(f"cannot look into {self.path}: {e.strerror or e}") from e

    def has_no_room(self) -> bool:
        """The file system is read-only, or has less space left than two WAL segments: whatever fails there may fail for that."""
        try:
            facts = os.statvfs(self.path)
        except OSError:
            return False
        return bool(facts.f_flag & os.ST_RDONLY) or facts.f_bavail * facts.f_frsize < LEAST_ROOM

    # ---- the marker

    def marked(self, names: set[str]) -> str:
        """What was interrupted, "" when nothing was."""
        for kind in KINDS:
            if MARKER + kind in names or os.path.exists(self._beside(kind)):
                return kind
        return ""

    def _beside(self, kind: str) -> str:
        return f"{self.path}.{MARKER}{kind}"

    def mark(self, kind: str, *, beside: bool = False) -> None:
        """Durable when it returns. Raises CommandFailed."""
        try:
            if beside:
                files.write(self._beside(kind), f"a {kind} of {self.path} has begun and not ended\n")
                return
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            if not os.path.lexists(self.of(MARKER + kind)):
                os.mkfifo(self.of(MARKER + kind), 0o600)
            files.sync_folder(self.path)
            files.sync_folder(os.path.dirname(self.path))
        except OSError as e:
            raise CommandFailed(f"cannot mark {self.path} as unfinished: {e.strerror or e}; nothing was changed") from e

    def unmark(self) -> None:
        try:
            for kind in KINDS:
                files.remove(self._beside(kind))
                if os.path.lexists(self.of(MARKER + kind)):
                    os.unlink(self.of(MARKER + kind))
            files.sync_folder(self.path)
        except OSError as e:
            raise CommandFailed(f"cannot remove the marker of {self.path}: {e.strerror or e}") from e

    # ---- changing it

    def prepare_staging(self) -> str:
        """An absent staging folder in an existing data directory of mode 0700. What an earlier attempt left there never was data."""
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            os.chmod(self.path, 0o700)
            if os.path.lexists(self.staging):
                shutil.rmtree(self.staging)
        except OSError as e:
            raise CommandFailed(f"cannot prepare {self.path}: {e.strerror or e}") from e
        return self.staging

    def move_in(self) -> None:
        """Renames what staging holds into place; the control file's folder comes last. The marker must be there."""
        try:
            for name in sorted(os.listdir(self.staging), key=lambda n: (n == "global", n)):
                os.rename(os.path.join(self.staging, name), self.of(name))
            os.rmdir(self.staging)
            files.sync_folder(self.path)
        except OSError as e:
            raise CommandFailed(f"cannot move the new data into {self.path}: {e.strerror or e}") from e

    def drop_staging(self) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)

    def set_aside(self, why: str) -> str:
        """Renames the directory to `<path>.<why>.<time>`, an empty one stays. Raises CommandFailed; nothing is deleted."""
        if self.look().data is Data.EMPTY:
            return self.path
        target = f"{self.path}.{why}.{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            while os.path.lexists(target):
                target += "+"
            if os.path.lexists(self.path):
                os.rename(self.path, target)
            for kind in KINDS:
                files.remove(self._beside(kind))
            files.sync_folder(os.path.dirname(self.path))
        except OSError as e:
            raise CommandFailed(
                f"cannot move {self.path} to {target}: {e.strerror or e}; the data directory must be a folder below the mount point, "
                f"and {os.path.dirname(self.path)} writable for the user that runs Rivha"
            ) from e
        return target

    def clean_copy(self, root: str) -> None:
        """Removes from a fresh copy what belongs to its source: who it was, what it waited for, whom it served (HAZARDS E 77)."""
        try:
            for name in (*SIGNALS, *PASSING):
                if os.path.lexists(os.path.join(root, name)):
                    os.unlink(os.path.join(root, name))
            slots = os.path.join(root, "pg_replslot")
            for name in os.listdir(slots) if os.path.isdir(slots) else ():
                shutil.rmtree(os.path.join(slots, name), ignore_errors=True)
        except OSError as e:
            raise CommandFailed(f"cannot clean {root}: {e.strerror or e}") from e

    def set_standby(self, standby: bool) -> None:
        """standby.signal is there, or no signal file is. Raises CommandFailed."""
        try:
            for name in SIGNALS[0 if not standby else 1 :]:
                files.remove(self.of(name))
        except OSError as e:
            raise CommandFailed(f"cannot remove a signal file in {self.path}: {e.strerror or e}") from e
        if standby:
            files.write(self.of(SIGNALS[0]), "")


def unmounted(path: str, fstab: str = "/etc/fstab") -> str | None:
    """The mount point of fstab at or above `path` that is not mounted, if there is one."""
    try:
        lines = Path(fstab).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split("#", 1)[0].split()
        point = words[1].replace("\\040", " ").rstrip("/") if len(words) > 1 else ""
        if point and (path == point or path.startswith(point + "/")) and not os.path.ismount(point):
            return point
    return None
