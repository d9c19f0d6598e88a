"""Adapters between wire formats and the neutral transcript: one module each, no HTTP."""

from sluice.compressor.dialects.base import Dialect
from sluice.compressor.dialects.openai_chat import OPENAI_CHAT

__all__ = ["OPENAI_CHAT", "Dialect"]
