"""Log lines in the forms that people's tools read, written beside the event loop and never by it."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from pathlib import Path

import pytest
import structlog

from rivha.log import Logging, LogSettings, rendered


@pytest.fixture
def started(tmp_path):
    """Starts logs into files and puts everything back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs = []

    def start(**settings):
        found = Logging(LogSettings(dir=str(tmp_path), **settings))
        found.start()
        logs.append(found)
        return found

    yield start
    for found in logs:
        found.stop()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(tmp_path):
    return (tmp_path / "rivha.log").read_text(encoding="utf-8").splitlines()


def test_a_plain_line_is_patronis_with_the_facts_behind(started, tmp_path):
    log = started()
    structlog.get_logger("rivha.agent").info("became the leader", term=17, reason="nobody leads", who="db1", empty="")
    log.stop()
    (line,) = lines(tmp_path)
    assert re.fullmatch(
        r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO: became the leader term=17 reason="nobody leads" who=db1 empty=""', line
    )


def test_a_text_without_facts_stays_as_it_is(started, tmp_path):
    log = started()
    structlog.get_logger().critical("Can't start; there is already a node named 'db1' running")
    log.stop()
    assert lines(tmp_path)[0].endswith(" CRITICAL: Can't start; there is already a node named 'db1' running")


def test_other_libraries_come_through_the_same_way(started, tmp_path):
    log = started(loggers={"aiohttp.access": "INFO"})
    logging.getLogger("aiohttp.access").info("GET %s", "/primary")
    log.stop()
    assert lines(tmp_path)[0].endswith("INFO: GET /primary")


def test_one_record_is_one_line():
    assert rendered("text", {"a": 'x\n"y"', "b": None, "c": 1.5}) == 'text a="x\\\\n\\"y\\"" b=None c=1.5'


def test_percent_formats_work(started, tmp_path):
    log = started(format="%(levelname)s|%(name)s|%(message)s")
    structlog.get_logger("rivha.dcs").warning("etcd is back", endpoint="e:1")
    log.stop()
    assert lines(tmp_path) == ["WARNING|rivha.dcs|etcd is back endpoint=e:1"]


def test_json_has_patronis_fields_the_facts_and_the_static_ones(started, tmp_path):
    log = started(type="json", static_fields={"app": "orders"})
    structlog.get_logger("x").info("voted", path=Path("/x"), message="mine")
    log.stop()
    found = json.loads(lines(tmp_path)[0])
    assert {name: found[name] for name in ("levelname", "message", "app", "path")} == {
        "levelname": "INFO",
        "message": "voted",
        "app": "orders",
        "path": "/x",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", found["asctime"])


def test_json_fields_can_be_chosen_and_renamed(started, tmp_path):
    log = started(type="json", format=({"asctime": "time"}, {"levelname": "level"}, "message", "module"))
    structlog.get_logger("x").info("voted")
    log.stop()
    log.apply(LogSettings(type="json", format="%(levelname)s: %(message)s"))
    assert list(json.loads(lines(tmp_path)[0])) == ["time", "level", "message", "module"]
    assert list(json.loads(log.target.format(logging.makeLogRecord({"msg": "x"})))) == ["levelname", "message"]


def test_levels_by_module(started, tmp_path):
    log = started(level="WARNING", loggers={"rivha.dcs": "DEBUG"})
    structlog.get_logger("rivha.dcs.etcd").debug("shown")
    structlog.get_logger("rivha.api").info("not shown")
    log.apply(LogSettings(level="INFO"))
    structlog.get_logger("rivha.dcs.etcd").debug("not any more")
    structlog.get_logger("rivha.api").info("now shown")
    log.stop()
    assert [line.rpartition(": ")[2] for line in lines(tmp_path)] == ["shown", "now shown"]


def test_tracebacks_begin_at_their_level(started, tmp_path):
    log = started(traceback_level="ERROR")
    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger().warning("small", exc_info=True)
        structlog.get_logger().error("large", exc_info=True)
    log.stop()
    text = "\n".join(lines(tmp_path))
    assert text.count("Traceback") == 1
    assert text.index("small") < text.index("large") < text.index("Traceback")


def test_files_rotate_and_keep_their_mode(started, tmp_path):
    log = started(file_size=1000, file_num=2, mode=0o640)
    for number in range(100):
        structlog.get_logger().info("a line of some length", number=number)
        until(lambda: log.waiting == 0)
    log.stop()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["rivha.log", "rivha.log.1", "rivha.log.2"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_a_stuck_disk_costs_records_but_holds_up_nobody(started, tmp_path):
    """A handler that hangs stands for the disk: the caller goes on, what does not fit is counted, and the log says so afterwards."""
    log = started(max_queue_size=10)
    stuck, reached = threading.Event(), threading.Event()
    write = log.target.emit

    def emit(record):
        reached.set()
        stuck.wait(30)
        write(record)

    log.target.emit = emit
    structlog.get_logger().info("first")
    assert reached.wait(30)
    for number in range(25):
        structlog.get_logger().info("more", number=number)
    assert (log.waiting, log.lost) == (10, 15)
    stuck.set()
    until(lambda: log.waiting == 0)
    log.stop()
    found = lines(tmp_path)
    assert sum("more number=" in line for line in found) == 10
    assert any("15 log records were lost" in line for line in found)


def test_stopping_does_not_wait_for_ever(started):
    log = started(max_queue_size=1)
    stuck = threading.Event()
    log.target.emit = lambda record: stuck.wait(60)
    for _ in range(5):
        structlog.get_logger().info("x")
    log.stop()
    assert log.writer.is_alive()
    stuck.set()


def test_a_directory_that_cannot_be_written_raises_before_anything_starts(tmp_path):
    with pytest.raises(OSError, match="none"):
        Logging(LogSettings(dir=str(tmp_path / "none")))


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        time.sleep(0.001)
