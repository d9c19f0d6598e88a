"""Ports for servers that have to be told one."""

from __future__ import annotations

import socket

import pytest

from sluice.backend import free_port as module
from sluice.backend.free_port import free_port


def test_nobody_listens_on_it() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_a_taken_one_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port()
    with socket.create_server(("127.0.0.1", first)):
        monkeypatch.setattr(module, "_PORTS", range(first, first + 1))
        with pytest.raises(OSError, match=f"no port from {first} to {first} is free"):
            free_port()
        monkeypatch.setattr(module, "_PORTS", range(first, first + 50))
        assert all(free_port() != first for _ in range(100))
