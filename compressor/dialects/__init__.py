"""Adapters between wire formats and the neutral transcript: one module each, no HTTP."""

from sluice.compressor.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from sluice.compressor.dialects.base import Dialect
from sluice.compressor.dialects.openai_chat import OPENAI_CHAT
from sluice.compressor.dialects.openai_responses import OPENAI_RESPONSES

__all__ = ["ANTHROPIC_MESSAGES", "OPENAI_CHAT", "OPENAI_RESPONSES", "Dialect"]
