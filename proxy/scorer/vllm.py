"""Asks a vLLM that serves a model's base (`sluice scorer export`) for its last states, and applies the head here.

vLLM's own heads are one matrix; ours has a norm before it. So `/pooling` is asked for the task `token_embed`, without
its activation: 2 bytes for each number of each token's state come back, 1.2 MB for a window of 1,000 tokens of 576.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence

import msgspec
import numpy as np

from sluice.compressor.scoring.neural.head import Head
from sluice.compressor.scoring.neural.scores import NotScoredError
from sluice.compressor.scoring.neural.types import Floats, Window


def served_name(version: str) -> str:
    """What vLLM has to call the model, so that another version is not taken for it."""
    return f"sluice-scorer-{version}"


class _States(msgspec.Struct):
    index: int
    data: str
    """Base64 of float16, little-endian."""


class _Pooled(msgspec.Struct):
    data: list[_States]


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_pooled_decoder, _models_decoder = msgspec.json.Decoder(_Pooled), msgspec.json.Decoder(_Models)


class VllmWire:
    """What vLLM's pooling endpoint speaks (see `client.Wire`).

    Args:
        version: of the model.
        head: of the model.
    """

    path = "/pooling"
    health_path = "/v1/models"
    content_type = "application/json"

    def __init__(self, version: str, head: Head) -> None:
        self._name = served_name(version)
        self._head = head

    def body(self, windows: Sequence[Window], within_s: float) -> bytes:
        """See `client.Wire`."""
        return msgspec.json.encode(
            {
                "model": self._name,
                "input": [window.token_ids.tolist() for window in windows],
                "task": "token_embed",
                "use_activation": False,
                "add_special_tokens": False,
                "encoding_format": "base64",
                "embed_dtype": "float16",
                "endianness": "little",
            }
        )

    def read(self, answer: bytes, windows: Sequence[Window]) -> Sequence[Floats | NotScoredError]:
        """See `client.Wire`."""
        try:
            pooled = {one.index: binascii.a2b_base64(one.data) for one in _pooled_decoder.decode(answer).data}
        except (msgspec.DecodeError, binascii.Error) as error:
            raise ValueError(str(error)) from None
        found: list[Floats | NotScoredError] = []
        hidden_size = len(self._head.norm)
        for index, window in enumerate(windows):
            states = np.frombuffer(pooled.get(index, b""), "<f2")
            if len(states) != len(window.token_ids) * hidden_size:
                raise ValueError(f"{len(states)} numbers for {len(window.token_ids)} tokens of {hidden_size}")
            found.append(self._head.logits(states.reshape(-1, hidden_size)[window.line_ends]))
        return found

    def check_health(self, answer: bytes) -> None:
        """See `client.Wire`."""
        try:
            names = [model.id for model in _models_decoder.decode(answer).data]
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from None
        if self._name not in names:
            raise ValueError(f"it serves {', '.join(names) or 'nothing'}, not {self._name}")
