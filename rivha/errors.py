"""What can go wrong, named by what the caller should do. Foreign errors are renamed to these at the adapters' border."""

from __future__ import annotations

from collections.abc import Sequence


class RivhaError(Exception):
    """Anything Rivha raises on purpose."""


class DcsUnavailable(RivhaError):
    """Try again next tick; assume nothing about the last write."""


class PostgresUnavailable(RivhaError):
    """Postgres did not answer; its role is unknown, not down."""


class CommandFailed(RivhaError):
    """A program ran and said no, or outlived its deadline; carries its last lines."""

    def __init__(self, what: str, output: str = "", code: int | None = None) -> None:
        super().__init__(f"{what}: {output.strip()}" if output.strip() else what)
        self.what = what
        self.output = output
        self.code = code


class NoSpace(CommandFailed):
    """The same, on a disk that is full or read-only: nothing was learnt about the data, so try again when somebody has mended it."""


class ConfigError(RivhaError):
    """The operator must change something; lists every mistake."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class CannotRun(RivhaError):
    """This agent must not go on: the text says what is wrong, where, and what to do. `exit_code` is documented in docs/operations.md."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code
