"""How long each step of an exchange with an upstream may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How long each step of an exchange may take, and how many exchanges there may be."""

    connect_timeout_s: float = 10.0
    """Longest wait for a new connection, in seconds."""
    read_timeout_s: float = 600.0
    """Longest silence while an answer is awaited or read, in seconds."""
    write_timeout_s: float = 60.0
    """Longest time in which none of a request body is taken, in seconds."""
    pool_timeout_s: float = 10.0
    """Longest wait for one of `max_connections` to come free, in seconds."""
    max_connections: int = 4096
    """Connections at once."""
