"""Messages in, smaller messages out. Knows no HTTP, no Redis client and no FastAPI."""

from sluice.compressor.compressor import Compressor
from sluice.compressor.dialects import ANTHROPIC_MESSAGES, OPENAI_CHAT, OPENAI_RESPONSES, Dialect
from sluice.compressor.errors import (
    AmbiguousRecallError,
    CompressorError,
    MalformedMessageError,
    StateError,
    TooManyPinsError,
    UnknownRecallError,
)
from sluice.compressor.pins import Pin
from sluice.compressor.settings import CompressorSettings
from sluice.compressor.state import MemoryStore, StateStore
from sluice.compressor.types import Compressed, Message, Mode, Role, Text, ToolCall

__all__ = [
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
