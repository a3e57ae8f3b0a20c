"""Writes and reads small files so that a crash leaves the old or the new text, never half of it (HAZARDS E 78).

It must never write in place. Blocking: called off the loop.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from rivha.errors import CommandFailed


def sync_folder(folder: str) -> None:
    """Makes renames, creations and removals in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path: str, text: str, mode: int = 0o600) -> bool:
    """Puts `text` into `path`: temporary file, fsync, rename, fsync of the folder. False when it says so already.

    Raises CommandFailed (full or read-only disk, no permission); the old file is then untouched.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.rivha-new")
    data = text.encode(errors="surrogateescape")
    try:
        if read(path) == text and (os.stat(path).st_mode & 0o777) == mode:
            return False
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        try:
            os.fchmod(fd, mode)
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        sync_folder(folder)
    except OSError as e:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise CommandFailed(f"cannot write {path}: {e.strerror or e}; the file was left as it was") from e
    return True


def read(path: str) -> str | None:
    """The file's text; None when there is none. Raises OSError for anything else that is wrong."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def remove(path: str) -> bool:
    """Removes a file, durably. False when there was none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    sync_folder(os.path.dirname(path))
    return True
