"""Logging for people and machines: structlog events as plain lines or JSON, written by a thread of its own.

`Logging(settings).start()` is called once by `rivha.__main__`, before anything logs. The event loop only puts records into a bounded queue:
a disk that hangs costs records (counted in `lost`), never a tick (HAZARDS 100). The only module that may look at the wall clock.

    log = structlog.get_logger("rivha.agent.tick")
    log.info("became the leader", term=17)      ->  2026-01-02 03:04:05,678 INFO: became the leader term=17
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from typing import Any, TextIO

import structlog

PLAIN = "%(asctime)s %(levelname)s: %(message)s"  # Patroni's line; asctime is YYYY-MM-DD HH:MM:SS,mmm
FILE = "rivha.log"
DRAIN_S = 2.0  # how long `stop` waits for a disk that may be stuck


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`log` in the file."""

    type: str = "plain"  # plain | json
    level: str = "INFO"
    traceback_level: str = "ERROR"  # records below it are written without their traceback
    format: str | Sequence[str | Mapping[str, str]] | None = None  # plain: %-style; json: fields, or {field: name}
    dateformat: str | None = None  # strftime's; None: ISO-like with milliseconds
    max_queue_size: int = 1000  # records; more are lost and counted
    dir: str | None = None  # None: stderr
    mode: int | None = None  # permissions of the files
    file_num: int = 4
    file_size: int = 25_000_000  # bytes
    loggers: Mapping[str, str] = field(default_factory=dict)  # module -> level
    static_fields: Mapping[str, object] = field(default_factory=dict)  # added to each JSON record


class Waiting(logging.Handler):
    """Puts records into a bounded queue and returns at once; when it is full the record is lost and counted."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.queue: queue.Queue[logging.LogRecord | None] = queue.Queue(size)
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.lost += 1


class Writer(threading.Thread):
    """Takes records off the queue and writes them; may hang with its disk, and nobody waits for it."""

    def __init__(self, waiting: Waiting, target: logging.Handler) -> None:
        super().__init__(name="log", daemon=True)
        self.waiting = waiting
        self.target = target
        self.told = 0  # of the lost ones

    def run(self) -> None:
        while (record := self.waiting.queue.get()) is not None:
            self.target.handle(record)
            if self.waiting.lost != self.told:
                self.tell()

    def tell(self) -> None:
        lost, self.told = self.waiting.lost - self.told, self.waiting.lost
        text = f"{lost} log records were lost: the log could not be written fast enough"
        self.target.handle(logging.LogRecord("rivha.log", logging.WARNING, __file__, 0, text, None, None))


class Logging:
    """A log: the queue, the thread and where it writes. `lost` and `waiting` feed /patroni and /metrics. The constructor raises OSError."""

    def __init__(self, settings: LogSettings) -> None:
        self.settings = settings
        self.queued = Waiting(settings.max_queue_size)
        self.target = handler(settings)
        self.writer = Writer(self.queued, self.target)

    @property
    def lost(self) -> int:
        return self.queued.lost

    @property
    def waiting(self) -> int:
        return self.queued.queue.qsize()

    def start(self) -> None:
        """Takes over Python's root logger and structlog."""
        root = logging.getLogger()
        for old in root.handlers[:]:
            root.removeHandler(old)
        root.addHandler(self.queued)
        self.apply(self.settings)
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, to_record],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=False,
        )
        self.writer.start()

    def apply(self, settings: LogSettings) -> None:
        """New levels and formats take effect at once; the directory, the queue and rotation with the next start."""
        for name in self.settings.loggers:
            logging.getLogger(name).setLevel(logging.NOTSET)
        self.settings = settings
        self.target.setFormatter(formatter(settings))
        logging.getLogger().setLevel(settings.level)
        for name, level in {"aiohttp.access": "WARNING", "asyncio": "WARNING", **settings.loggers}.items():
            logging.getLogger(name).setLevel(level)

    def stop(self) -> None:
        """Writes what waits, for at most DRAIN_S seconds; then whatever hangs is left behind."""
        root = logging.getLogger()
        root.removeHandler(self.queued)
        until = time.monotonic() + DRAIN_S
        try:
            self.queued.queue.put(None, timeout=DRAIN_S)
        except queue.Full:
            return
        self.writer.join(max(0.0, until - time.monotonic()))
        if not self.writer.is_alive():
            self.target.close()


# ---- structlog's event -> a record


def to_record(logger: Any, method: str, event: MutableMapping[str, Any]) -> tuple[Any, ...]:
    """The event stays the message; its facts travel beside it, so that each format can show them in its own way."""
    del logger, method
    text = str(event.pop("event", ""))
    exc_info = event.pop("exc_info", None)
    return (text,), {"extra": {"facts": dict(event)}, "exc_info": exc_info}


def rendered(text: str, facts: Mapping[str, object]) -> str:
    """`text key=value key="two words"`."""
    return " ".join((text, *(f"{name}={worded(value)}" for name, value in facts.items())))


def worded(value: object) -> str:
    found = value if isinstance(value, str) else str(value)
    found = found.replace("\n", "\\n").replace("\r", "\\r")  # one record, one line
    return json.dumps(found, ensure_ascii=False) if not found or " " in found or '"' in found or "=" in found else found


# ---- a record -> a line


class Plain(logging.Formatter):
    """%-style, with the event's facts behind the text."""

    def __init__(self, settings: LogSettings) -> None:
        super().__init__(settings.format if isinstance(settings.format, str) else PLAIN, settings.dateformat)
        self.traceback_from = logging.getLevelName(settings.traceback_level)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's own name)
        record.message = rendered(record.message, getattr(record, "facts", {}))
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info and record.levelno < self.traceback_from:
            record.exc_info, record.exc_text = None, None
        return super().format(record)


class Json(logging.Formatter):
    """One JSON object per line: Patroni's fields (asctime, levelname, message), the event's facts, static fields."""

    FIELDS: Sequence[str | Mapping[str, str]] = ("asctime", "levelname", "message")

    def __init__(self, settings: LogSettings) -> None:
        super().__init__(PLAIN, settings.dateformat)
        chosen = settings.format or self.FIELDS
        if isinstance(chosen, str):  # a plain format names its fields, too
            chosen = re.findall(r"%\((\w+)\)", chosen) or self.FIELDS
        pairs = [(item, item) if isinstance(item, str) else next(iter(item.items()), ("", "")) for item in chosen]
        self.names = {taken: name for taken, name in pairs if taken}
        self.static = dict(settings.static_fields)

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = self.formatTime(record, self.datefmt)
        line: dict[str, object] = {name: getattr(record, taken, None) for taken, name in self.names.items()}
        for name, value in (*self.static.items(), *getattr(record, "facts", {}).items()):
            line.setdefault(name, value)
        if record.exc_info:
            line.setdefault("exc_info", self.formatException(record.exc_info))
        return json.dumps(line, default=str, ensure_ascii=False)


def formatter(settings: LogSettings) -> logging.Formatter:
    return Json(settings) if settings.type == "json" else Plain(settings)


def handler(settings: LogSettings, stream: TextIO | None = None) -> logging.Handler:
    """Where lines go. Raises OSError when the directory cannot be written."""
    found: logging.Handler
    if settings.dir is None:
        found = logging.StreamHandler(stream or sys.stderr)
    else:
        path = os.path.join(settings.dir, FILE)
        found = Files(path, maxBytes=settings.file_size, backupCount=settings.file_num, encoding="utf-8")
        if settings.mode is not None:
            os.chmod(path, settings.mode)
    found.setFormatter(formatter(settings))
    return found


class Files(RotatingFileHandler):
    """Rotates by size. New files get the first one's permissions."""

    def doRollover(self) -> None:  # noqa: N802
        mode = os.stat(self.baseFilename).st_mode & 0o7777
        super().doRollover()
        os.chmod(self.baseFilename, mode)
