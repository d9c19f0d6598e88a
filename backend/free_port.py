"""A port for a server that has to be told one: where it cannot say itself which it took, or keeps it over restarts."""

from __future__ import annotations

import random
import socket

_PORTS = range(20_000, 32_768)
"""Below those that Linux (from 32,768), macOS and Windows (from 49,152) give to whoever asks for any. Such a one may be
given away again before the server that it was found for has it."""
_HOST = "127.0.0.1"


def free_port() -> int:
    """A TCP port on 127.0.0.1 on which nobody listens.

    Raises:
        OSError: there is none.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            # What has just been closed may be taken again, as servers do.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return port
    raise OSError(f"no port from {_PORTS.start} to {_PORTS.stop - 1} is free on {_HOST}")
