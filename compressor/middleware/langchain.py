"""LangChain and LangGraph agents: a middleware for `create_agent`.

The state keeps the whole history; what the model is sent is shorter.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage, ToolMessage, convert_to_openai_messages

from sluice.compressor.dialects import ANTHROPIC_MESSAGES, OPENAI_CHAT, OPENAI_RESPONSES, Dialect
from sluice.compressor.middleware.history import History, Json, Results

logger = logging.getLogger(__name__)


class SluiceMiddleware(AgentMiddleware[Any, Any, Any]):
    """Shortens tool results on their way to the model, sync and async.

    Args:
        history: decides and remembers; None makes one with its defaults.
    """

    def __init__(self, history: History | None = None) -> None:
        super().__init__()
        self.history = history or History()

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Call the model with a shorter history."""
        if (wire := _on_the_wire(request)) is None:
            return handler(request)
        messages, dialect = wire
        after = self.history.shorten_sync(messages, dialect=dialect, context=_context(request))
        return handler(_shortened(request, Results(messages, after, dialect)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """See `wrap_model_call`."""
        if (wire := _on_the_wire(request)) is None:
            return await handler(request)
        messages, dialect = wire
        after = await self.history.shorten(messages, dialect=dialect, context=_context(request))
        return await handler(_shortened(request, Results(messages, after, dialect)))


def _on_the_wire(request: ModelRequest[Any]) -> tuple[list[Json], Dialect] | None:
    """The messages as the model's client will send them; None where that cannot be told."""
    messages: list[BaseMessage] = [*request.messages]
    if request.system_message is not None:
        messages.insert(0, request.system_message)
    try:
        return _sent_by(request.model, messages)
    except Exception:  # it is the model's to say what is wrong with them
        logger.exception("the messages could not be read: they go out as they are")
        return None


def _sent_by(model: BaseChatModel, messages: Sequence[BaseMessage]) -> tuple[list[Json], Dialect]:
    """Ask the client itself where it can say (OpenAI's and Anthropic's, and what builds on them)."""
    payload_of = getattr(model, "_get_request_payload", None)
    payload = payload_of(list(messages)) if payload_of is not None else {}
    if isinstance(payload.get("input"), list):
        return payload["input"], OPENAI_RESPONSES
    if isinstance(payload.get("messages"), list):
        return payload["messages"], ANTHROPIC_MESSAGES if model._llm_type == "anthropic-chat" else OPENAI_CHAT
    converted = convert_to_openai_messages(messages, text_format="block")  # each text apart
    assert isinstance(converted, list), "a list gives a list"
    return [*converted], OPENAI_CHAT


def _context(request: ModelRequest[Any]) -> list[str]:
    tools = [str(tool.get("name") or tool) if isinstance(tool, dict) else tool.name for tool in request.tools]
    return [repr(request.model._identifying_params), *tools]


def _shortened(request: ModelRequest[Any], results: Results) -> ModelRequest[Any]:
    if not results.any_shortened:
        return request
    return request.override(messages=[_with_results(message, results) for message in request.messages])


def _with_results(message: AnyMessage, results: Results) -> AnyMessage:
    if not isinstance(message, ToolMessage):
        return message
    content: Any = message.content
    if isinstance(content, str):
        content = results.take(message.tool_call_id, content)
    else:
        content = [_part(part, message.tool_call_id, results) for part in content]
    return message if content == message.content else message.model_copy(update={"content": content})


def _part(part: Any, call_id: str, results: Results) -> Any:
    if isinstance(part, str):
        return results.take(call_id, part)
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return {**part, "text": results.take(call_id, part["text"])}
    return part
