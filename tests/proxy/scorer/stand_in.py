"""A scorer's process whose model needs no torch: `python -m tests.proxy.scorer.stand_in PORT [VERSION] [SECONDS]`."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Sequence

import uvicorn

from sluice.compressor.scoring.neural.batcher import Batcher
from sluice.compressor.scoring.neural.types import Floats, Window
from sluice.proxy.scorer.server import ScorerApp
from tests.compressor.scoring.neural.doubles import Coins


class Slow(Coins):
    """Takes its time, once it is asked from outside."""

    def __init__(self, version: str, pause_s: float) -> None:
        super().__init__()
        self.version = version
        self._pause_s = pause_s

    def logits(self, windows: Sequence[Window]) -> list[Floats]:
        if not _is_blank(windows):
            time.sleep(self._pause_s)
        return super().logits(windows)


def _is_blank(windows: Sequence[Window]) -> bool:
    """Whether the batcher measures its pace."""
    return len(windows[0].line_ends) > 1 and windows[0].line_ends[0] == 15


def main(port: int, version: str = "7", pause_s: str = "0") -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        app = ScorerApp(Batcher(lambda: Slow(version, float(pause_s))), "127.0.0.1")
        print(f"listens at {listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, ws="none", log_level="warning", lifespan="on")).run(sockets=[listener])


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
