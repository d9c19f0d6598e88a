"""Requests to a compressor, and what goes out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sluice.compressor import (
    OPENAI_CHAT,
    Compressed,
    Compressor,
    Mode,
)
from tests.compressor.conversations import Json, call, encode, file_lines, numbered, result


async def send(
    compressor: Compressor, messages: Sequence[Json], *, mode: Mode = Mode.SAFE, tenant: bytes = b"t"
) -> Compressed:
    return await compressor.compress(
        [encode(message) for message in messages], dialect=OPENAI_CHAT, mode=mode, tenant=tenant, upstream="http://up"
    )


def contents(compressed: Compressed) -> list[Any]:
    return [json.loads(raw)["content"] for raw in compressed.messages]


def reread(num_lines: int = 40) -> list[Json]:
    text = numbered(file_lines(num_lines))
    return [
        {"role": "user", "content": "fix it"},
        call("c1", "Read", file_path="a.py"),
        result("c1", text),
        call("c2", "Read", file_path="a.py"),
        result("c2", text),
    ]
