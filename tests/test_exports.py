"""What each package offers is a promise: it changes on purpose or not at all."""

from __future__ import annotations

import sluice.compressor


def test_compressor() -> None:
    assert sluice.compressor.__all__ == [
        "ANTHROPIC_MESSAGES",
        "OPENAI_CHAT",
        "OPENAI_RESPONSES",
        "AmbiguousRecallError",
        "Compressed",
        "Compressor",
        "CompressorError",
        "CompressorSettings",
        "Dialect",
        "MalformedMessageError",
        "MemoryStore",
        "Message",
        "Mode",
        "Pin",
        "Role",
        "StateError",
        "StateStore",
        "Text",
        "TooManyPinsError",
        "ToolCall",
        "UnknownRecallError",
    ]
