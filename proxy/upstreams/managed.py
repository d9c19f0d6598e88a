"""The backend that this proxy runs, as those who serve know it: what is told of it, and why it does not answer.

The process that keeps it up writes its state into a file, and whoever serves reads it when there is something to say:
one way for one process and for workers.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sluice.proxy.errors import BackendDownError, UpstreamDisconnectedError, UpstreamError, UpstreamUnreachableError

if TYPE_CHECKING:
    from sluice.backend.supervisor import ServerState

NOTICED_S = 0.5
"""Within so many seconds whoever keeps a backend up has noticed that it ended."""
_RETRY_S = 5.0
"""When to ask again where it is not known when it will be ready."""


class BackendStatus:
    """What is told of the backend.

    Args:
        kind: `embedded` or `vllm`.
        file: where it is written; only its owner may read it.
    """

    def __init__(self, kind: str, file: Path) -> None:
        self.kind = kind
        self._file = file

    def write(self, state: ServerState) -> None:
        """Tell a new state. That it cannot be written (a full disk, say) is no reason not to serve."""
        part = self._file.with_suffix(".part")
        with contextlib.suppress(OSError):
            part.write_bytes(msgspec.json.encode(state))
            part.replace(self._file)

    def read(self) -> ServerState:
        """The last state that was told; as at the start, where there is none."""
        from sluice.backend.supervisor import ServerState

        try:
            return msgspec.json.decode(self._file.read_bytes(), type=ServerState)
        except (OSError, msgspec.DecodeError):
            return ServerState()

    def render(self) -> str:
        """The state in Prometheus' text form."""
        from sluice.backend.exposition import family
        from sluice.backend.supervisor import Phase

        state, labels = self.read(), {"backend": self.kind}
        lines = family("sluice_backend_up", "gauge", [(labels, state.phase is Phase.READY)])
        lines += family("sluice_backend_restarts_total", "counter", [(labels, state.num_restarts)])
        return "\n".join(lines) + "\n"


def explained(error: UpstreamError, kind: str, state: ServerState, now_s: float) -> UpstreamError:
    """What to say of an error of the backend: that it is down, where that is why.

    Args:
        error: what came of asking it.
        kind: of the backend.
        state: what was told of it since.
        now_s: seconds since the epoch.
    """
    from sluice.backend.supervisor import Phase

    if not may_be_down(error):
        return error
    if state.phase is Phase.GIVEN_UP:
        text = "ended too often and was given up: the log says why, and 'sluice serve' has to be started again"
        return BackendDownError(f"the {kind} backend {text}")
    if state.phase is Phase.READY and isinstance(error, UpstreamDisconnectedError):
        return error  # it runs, and closed this one connection
    wait_s = max(1.0, state.ready_at_s - now_s) if state.ready_at_s else _RETRY_S
    return BackendDownError(f"the {kind} backend ended and is being started again", retry_after_s=wait_s)


def may_be_down(error: UpstreamError) -> bool:
    """Whether an error may come of a backend that has ended."""
    return isinstance(error, UpstreamUnreachableError | UpstreamDisconnectedError)
