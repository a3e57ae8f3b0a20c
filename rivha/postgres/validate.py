"""Keeps one mistyped setting from stopping Postgres: what this version does not know, or does not take, is left out, and said.

A cluster's configuration reaches every node at once; without this the next restart of each would fail. Called by Server.configure.
"""

from __future__ import annotations

import asyncio
import re

import structlog

from rivha.errors import CommandFailed
from rivha.postgres import files
from rivha.postgres.parts import Parts

log = structlog.get_logger(__name__)

MOST = 50  # mistakes; beyond that something else is wrong
TRY_S = 20.0
_UNKNOWN = re.compile(r'unrecognized configuration parameter "([^"]+)"')
_INVALID = re.compile(r'invalid value for parameter "([^"]+)"')
_OTHER = re.compile(r'parameter "([^"]+)"')


async def validate(parts: Parts) -> None:
    """Sets `parts.conf.unusable`. Mistakes in others' files are only reported: they are not ours to leave out."""
    given = dict(parts.conf.parameters())
    dropped: dict[str, str] = {}
    for _ in range(MOST):
        draft = await asyncio.to_thread(parts.conf.write_draft, given)
        try:
            await parts.programs.run("postgres", "-D", parts.settings.data_dir, f"--config_file={draft}", "-C", "port", timeout_s=TRY_S)
            break
        except CommandFailed as e:
            name, reason = _culprit(e.output, given)
            if name is None:
                log.warning("the configuration has a mistake that Rivha did not write", postgres_says=e.output)
                break
            dropped[name] = reason
            del given[name]
        finally:
            await asyncio.to_thread(files.remove, draft)
    if set(dropped) != parts.conf.unusable:
        for name, reason in dropped.items():
            log.warning("a setting is left out: Postgres does not take it", setting=name, reason=reason)
    parts.conf.unusable = frozenset(dropped)


def _culprit(output: str, given: dict[str, str]) -> tuple[str | None, str]:
    for line in output.splitlines():
        for pattern in (_UNKNOWN, _INVALID, _OTHER):
            match = pattern.search(line)
            if match and match.group(1) in given:
                return match.group(1), line
    return None, ""
