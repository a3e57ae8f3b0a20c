"""systemd hears what it asks for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rivha.agent import systemd


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield s


def test_it_tells_that_the_service_is_ready(listener: socket.socket):
    assert systemd.notify("READY=1", "STATUS=leader")
    assert listener.recv(100) == b"READY=1\nSTATUS=leader"


def test_a_reload_carries_the_instant_that_systemd_asks_for(listener: socket.socket):
    assert systemd.reloading()
    first, second = listener.recv(100).decode().split("\n")
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify("READY=1")


def test_a_socket_that_is_gone_hurts_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not systemd.notify("READY=1")


# ---- the watchdog


@pytest.fixture
def watched(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """systemd expects a sign of life every 6 seconds."""
    monkeypatch.setenv("WATCHDOG_USEC", "6000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    return listener


def test_every_beat_is_told(watched: socket.socket):
    heart = systemd.Heart()
    for _ in range(2):
        heart.beat(5.0)
        assert watched.recv(100) == b"WATCHDOG=1"


def test_a_watchdog_too_quick_for_the_configured_beat_is_prolonged_once_and_shortened_again(watched: socket.socket):
    heart = systemd.Heart()
    heart.beat(21.0)
    assert watched.recv(100) == b"WATCHDOG=1\nWATCHDOG_USEC=21000000"
    heart.beat(21.0)
    assert watched.recv(100) == b"WATCHDOG=1"
    heart.beat(5.0)
    assert watched.recv(100) == b"WATCHDOG=1\nWATCHDOG_USEC=6000000"


@pytest.mark.parametrize(("usec", "pid"), [(None, None), ("0", None), ("soon", None), ("6000000", "1")])
def test_systemd_is_told_nothing_that_it_did_not_ask_for(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None
):
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    systemd.Heart().beat(5.0)
    systemd.notify("STATUS=the last one")
    assert listener.recv(100) == b"STATUS=the last one"
