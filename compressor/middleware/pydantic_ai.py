"""Pydantic AI: a capability for `Agent(capabilities=[…])`.

The run keeps the whole history; what the model is sent is shorter. No history processor, since what that gives back
becomes the history: the next request would begin with messages that were never received.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    SystemPromptPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.models.wrapper import WrapperModel

from sluice.compressor.dialects import OPENAI_CHAT, OPENAI_RESPONSES, Dialect
from sluice.compressor.middleware.history import History, Json, Results

logger = logging.getLogger(__name__)


@dataclass
class SluiceCapability(AbstractCapability[Any]):
    """Shortens tool results on their way to the model, sync and async."""

    history: History = field(default_factory=History)
    """Decides and remembers."""

    async def before_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Put a shorter history into the request, and into nothing else."""
        try:
            messages, dialect = await _on_the_wire(request_context)
        except Exception:  # it is the model's to say what is wrong with them
            logger.exception("the messages could not be read: they go out as they are")
            return request_context
        after = await self.history.shorten(messages, dialect=dialect, context=_context(request_context))
        results = Results(messages, after, dialect)
        if not results.any_shortened:
            return request_context
        return replace(
            request_context, messages=[_with_results(message, results) for message in request_context.messages]
        )


async def _on_the_wire(request: ModelRequestContext) -> tuple[list[Json], Dialect]:
    """The messages as OpenAI's clients send them; for any other model, as the chat wire would hold them."""
    model: Model = request.model
    while isinstance(model, WrapperModel):
        model = model.wrapped
    settings, parameters = model.prepare_request(request.model_settings, request.model_request_parameters)
    messages = model.prepare_messages(request.messages, parameters)
    try:
        from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    except ImportError:  # another provider's client is installed
        return _as_chat(messages), OPENAI_CHAT
    if isinstance(model, OpenAIResponsesModel):
        _, items = await model._map_messages(messages, cast(Any, settings or {}), parameters)
        return [*items], OPENAI_RESPONSES
    if isinstance(model, OpenAIChatModel):
        return [*await model._map_messages(messages, parameters, model_settings=settings)], OPENAI_CHAT
    return _as_chat(messages), OPENAI_CHAT


def _as_chat(messages: Sequence[ModelMessage]) -> list[Json]:
    """What the compressor reads of messages: who says what, which calls are made, which results answer them."""
    chat: list[Json] = []
    for message in messages:
        if isinstance(message, ModelResponse):
            calls = [
                {
                    "id": call.tool_call_id,
                    "type": "function",
                    "function": {"name": call.tool_name, "arguments": call.args_as_json_str()},
                }
                for call in message.tool_calls
            ]
            chat.append({"role": "assistant", "content": message.text, "tool_calls": calls})
            continue
        for part in message.parts:
            if isinstance(part, ToolReturnPart):
                content = part.model_response_str()
                chat.append({"role": "tool", "tool_call_id": part.tool_call_id, "content": content})
            elif isinstance(part, RetryPromptPart):
                chat.append({"role": "user", "content": part.model_response()})
            elif isinstance(part, SystemPromptPart):
                chat.append({"role": "system", "content": part.content})
            elif isinstance(part, UserPromptPart):
                said = part.content if isinstance(part.content, str) else repr(part.content)
                chat.append({"role": "user", "content": said})
    return chat


def _context(request: ModelRequestContext) -> list[str]:
    """What the provider's cache depends on: the model and its tools."""
    tools = request.model_request_parameters.function_tools
    return [request.model.model_id, *(tool.name for tool in tools)]


def _with_results(message: ModelMessage, results: Results) -> ModelMessage:
    if not isinstance(message, ModelRequest):
        return message
    parts = [_with_result(part, results) if isinstance(part, ToolReturnPart) else part for part in message.parts]
    return message if parts == list(message.parts) else replace(message, parts=parts)


def _with_result(part: ToolReturnPart, results: Results) -> ToolReturnPart:
    if part.outcome != "success" or part.files:  # its text alone is not what is sent
        return part
    sent = part.model_response_str()
    shorter = results.take(part.tool_call_id, sent)
    return part if shorter == sent else replace(part, content=shorter)
