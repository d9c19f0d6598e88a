"""How proxies ask a scorer's process: one POST with windows, answered with their logits, in MessagePack.

Numbers are little-endian: token ids and line ends int32, logits float16, as they are kept (`score_cache.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.neural.scores import Fallback, NotScoredError
from sluice.compressor.scoring.neural.types import Floats, Window

SCORES_PATH = "/v1/scores"
HEALTH_PATH = "/healthz"
CONTENT_TYPE = "application/msgpack"


class WireWindow(msgspec.Struct, array_like=True):
    """A window; what of a result it holds is the asker's business."""

    token_ids: bytes
    line_ends: bytes


class Asked(msgspec.Struct, array_like=True):
    """The body of a request."""

    within_s: float
    """After so many seconds nobody waits for the answer."""
    windows: list[WireWindow]


class Answered(msgspec.Struct, array_like=True):
    """The body of an answer."""

    version: str
    """Of the model."""
    windows: list[bytes | None]
    """Logits of each."""
    reasons: dict[int, Fallback]
    """By a window's index: why it has none."""


class Health(msgspec.Struct):
    """The body of `GET /healthz`; status 200 once windows are scored, 503 before."""

    name: str
    version: str
    tokens_per_s: float


_ask_encoder, _answer_encoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Encoder()
_ask_decoder = msgspec.msgpack.Decoder(Asked)
_answer_decoder = msgspec.msgpack.Decoder(Answered)
_health_decoder = msgspec.json.Decoder(Health)


def encode_windows(windows: Sequence[Window], within_s: float) -> bytes:
    """Write a request."""
    return _ask_encoder.encode(
        Asked(
            within_s,
            [
                WireWindow(window.token_ids.astype("<i4").tobytes(), window.line_ends.astype("<i4").tobytes())
                for window in windows
            ],
        )
    )


def decode_windows(body: bytes, max_window_tokens: int) -> tuple[list[Window], float]:
    """Read a request: the windows, and how long they are waited for.

    Raises:
        ValueError: it is none, or a window's lines do not lie within its tokens in order.
    """
    try:
        asked = _ask_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    windows: list[Window] = []
    for number, one in enumerate(asked.windows):
        token_ids, line_ends = np.frombuffer(one.token_ids, "<i4"), np.frombuffer(one.line_ends, "<i4")
        if not 0 < len(token_ids) <= max_window_tokens:
            raise ValueError(f"window {number} has {len(token_ids)} tokens, not 1 to {max_window_tokens}")
        if (
            len(line_ends) == 0
            or line_ends[0] < 0
            or line_ends[-1] >= len(token_ids)
            or (np.diff(line_ends) <= 0).any()
        ):
            raise ValueError(f"the line ends of window {number} do not lie in order among its tokens")
        windows.append(Window(token_ids.astype(np.int32), line_ends.astype(np.int32), 0, 0, 0))
    return windows, asked.within_s


def encode_scores(version: str, found: Sequence[Floats | Fallback]) -> bytes:
    """Write an answer."""
    reasons = {index: one for index, one in enumerate(found) if isinstance(one, Fallback)}
    windows = [None if isinstance(one, Fallback) else one.astype("<f2").tobytes() for one in found]
    return _answer_encoder.encode(Answered(version, windows, reasons))


def decode_scores(body: bytes, windows: Sequence[Window], version: str) -> list[Floats | NotScoredError]:
    """Read an answer.

    Raises:
        ValueError: it is none to these windows, or by another model.
    """
    try:
        answered = _answer_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    if answered.version != version:
        raise ValueError(f"scores of version {answered.version!r}, not {version!r}")
    if len(answered.windows) != len(windows):
        raise ValueError(f"scores of {len(answered.windows)} windows, not {len(windows)}")
    found: list[Floats | NotScoredError] = []
    for index, (window, one) in enumerate(zip(windows, answered.windows, strict=True)):
        if one is None:
            found.append(NotScoredError(answered.reasons.get(index, Fallback.ERROR)))
        else:
            logits = np.frombuffer(one, "<f2").astype(np.float32)
            found.append(logits.reshape(len(window.line_ends), len(HEADS)))
    return found


def decode_health(body: bytes) -> Health:
    """Read what a scorer says of itself.

    Raises:
        ValueError: it is no scorer's answer.
    """
    try:
        return _health_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


class OwnWire:
    """What `sluice scorer serve` speaks (see `client.Wire`).

    Args:
        version: of the model that is to answer.
    """

    path = SCORES_PATH
    health_path = HEALTH_PATH
    content_type = CONTENT_TYPE

    def __init__(self, version: str) -> None:
        self._version = version

    def body(self, windows: Sequence[Window], within_s: float) -> bytes:
        """See `client.Wire`."""
        return encode_windows(windows, within_s)

    def read(self, answer: bytes, windows: Sequence[Window]) -> Sequence[Floats | NotScoredError]:
        """See `client.Wire`."""
        return decode_scores(answer, windows, self._version)

    def check_health(self, answer: bytes) -> None:
        """See `client.Wire`."""
        health = decode_health(answer)
        if health.version != self._version:
            raise ValueError(f"it serves {health.name} {health.version}, not version {self._version}")
