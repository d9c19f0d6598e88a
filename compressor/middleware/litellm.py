"""LiteLLM: its `completion` and `acompletion`, with a shorter history. The caller keeps the whole one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import litellm
from litellm.utils import validate_and_fix_openai_messages

from sluice.compressor.middleware.history import History, Json

logger = logging.getLogger(__name__)


class SluiceLiteLLM:
    """Calls LiteLLM, tool results shortened on their way.

    Args:
        history: decides and remembers; None makes one with its defaults.
    """

    def __init__(self, history: History | None = None) -> None:
        self.history = history or History()

    def completion(self, model: str, messages: Sequence[Any], **options: Any) -> Any:
        """See `litellm.completion`; takes and gives back the same."""
        context = [model, options.get("tools")]
        sent = self.history.shorten_sync(as_sent(messages), context=context)
        return litellm.completion(model=model, messages=[*sent], **options)

    async def acompletion(self, model: str, messages: Sequence[Any], **options: Any) -> Any:
        """See `litellm.acompletion`; takes and gives back the same."""
        context = [model, options.get("tools")]
        sent = await self.history.shorten(as_sent(messages), context=context)
        return await litellm.acompletion(model=model, messages=[*sent], **options)


def as_sent(messages: Sequence[Any]) -> list[Json]:
    """Messages as LiteLLM puts them on OpenAI's wire: its own objects as JSON, less what is null.

    What it refuses comes back as it is, to be refused by the call itself.
    """
    try:
        copies = [message.model_copy() if hasattr(message, "model_copy") else dict(message) for message in messages]
        return [*validate_and_fix_openai_messages(copies)]
    except Exception:
        logger.exception("the messages could not be read: they go out as they are")
        return list(messages)
