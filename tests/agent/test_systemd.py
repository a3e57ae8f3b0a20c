"""systemd hears what it asks for."""

from __future__ import annotations

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
