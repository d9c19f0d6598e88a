"""The request bodies that the server reads, checked and turned into what the engine takes.

Fields of OpenAI's API that change nothing here are ignored; those that would change the answer and are not served are
refused.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from sluice.backend.base import SamplingParams
from sluice.backend.errors import InvalidRequestError

_MAX_STOPS = 16


class StreamOptions(msgspec.Struct):
    """`stream_options` of a request."""

    include_usage: bool | None = None


class ChatRequest(msgspec.Struct, kw_only=True):
    """Body of `/v1/chat/completions`."""

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    logprobs: bool | None = None

    def sampling_params(self) -> SamplingParams:
        """Raises InvalidRequestError that names field and value."""
        limit = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        _check("max_tokens", limit, limit is None or limit >= 1, "at least 1")
        _check("temperature", self.temperature, self.temperature is None or 0 <= self.temperature <= 2, "from 0 to 2")
        _check("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1")
        _check("n", self.n, self.n in (None, 1), "1")
        _check("logprobs", self.logprobs, not self.logprobs, "false")
        _check("tool_choice", self.tool_choice, self.tool_choice in (None, "none", "auto"), "'none' or 'auto'")
        kind = (self.response_format or {}).get("type", "text")
        _check("response_format.type", kind, kind == "text", "'text'")
        return SamplingParams(
            max_tokens=limit,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=None if self.seed is None else self.seed & (2**63 - 1),
        )

    def stops(self) -> list[str]:
        """Raises InvalidRequestError."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        _check("stop", len(stops), len(stops) <= _MAX_STOPS, f"at most {_MAX_STOPS} strings")
        _check("stop", stops, all(stops), "non-empty strings")
        return stops

    def plain_messages(self) -> list[dict[str, Any]]:
        """The messages with their content as one string, as chat templates expect it.

        Raises InvalidRequestError for a message without a role and for content that is not text.
        """
        _check("messages", self.messages, bool(self.messages), "a list with at least one message")
        return [_plain_message(index, message) for index, message in enumerate(self.messages)]


RequestT = TypeVar("RequestT")


def decode(body: bytes, kind: type[RequestT]) -> RequestT:
    """Read a request body. Raises InvalidRequestError that says where it is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise InvalidRequestError(str(error), where.rstrip("`") or _missing_field(what)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from None


def _missing_field(what: str) -> str | None:
    """Object missing required field `model` → model."""
    return what.split("`")[-2] if "missing required field" in what else None


def _plain_message(index: int, message: dict[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    where = f"messages[{index}]"
    _check(f"{where}.role", role, isinstance(role, str), "a string")
    if isinstance(content, list):
        for part in content:
            known = isinstance(part, dict) and isinstance(part.get("text", part.get("refusal")), str)
            _check(f"{where}.content", part, known, "text parts (this model reads text alone)")
        content = "".join(part.get("text", part.get("refusal")) for part in content)
    _check(f"{where}.content", content, content is None or isinstance(content, str), "a string or a list of parts")
    return {**message, "content": content or ""}


def _check(param: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise InvalidRequestError(f"{param} is {value!r}; it must be {expected}", param)
