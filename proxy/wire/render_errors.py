"""Errors in the form of each wire: as a whole answer, and as the event that ends a stream. Knows no route."""

from __future__ import annotations

import math

import msgspec

from sluice.proxy.error_table import ErrorDetails, describe
from sluice.proxy.errors import ProxyError
from sluice.proxy.headers import Header

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Anthropic's error types by status."""


def openai_error(error: Exception) -> tuple[int, bytes]:
    """Render an exception as status and OpenAI's error JSON: `{"error": {message, type, param, code}}`."""
    told = describe(error)
    return told.status, msgspec.json.encode({"error": _openai_fields(told)})


def _openai_fields(told: ErrorDetails) -> dict[str, str | None]:
    return {"message": told.message, "type": told.type, "param": told.param, "code": told.code}


def anthropic_form(status: int, message: str, **more: str) -> dict[str, object]:
    """An error in Anthropic's form: `{"type": "error", "error": {type, message}}`.

    Args:
        status: by which its type is told.
        message: for people, and for clients that look for words in it.
        more: fields beside the message.
    """
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message, **more}}


def anthropic_error(error: Exception) -> tuple[int, bytes]:
    """Render an exception as status and Anthropic's error JSON, with our `code` in it."""
    told = describe(error)
    return told.status, msgspec.json.encode(anthropic_form(told.status, told.message, code=told.code))


def error_for_path(error: Exception, path: str) -> tuple[int, bytes]:
    """Render an exception in the form that the clients of a path read."""
    return anthropic_error(error) if path.startswith("/v1/messages") else openai_error(error)


def error_headers(error: Exception) -> list[Header]:
    """What the headers of an error's answer say beside its form and length: how long to wait."""
    if not isinstance(error, ProxyError) or error.retry_after_s is None:
        return []
    return [(b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s)))]


def chat_event(error: Exception) -> bytes:
    """Render an exception as an event of OpenAI's chat and completions streams."""
    return b"data: " + openai_error(error)[1] + b"\n\n"


def anthropic_event(error: Exception) -> bytes:
    """Render an exception as an event of Anthropic's streams."""
    return b"event: error\ndata: " + anthropic_error(error)[1] + b"\n\n"


def responses_event(error: Exception) -> bytes:
    """Render an exception as an event of OpenAI's responses streams."""
    fields = _openai_fields(describe(error))
    event = {"type": "error", **{key: fields[key] for key in ("code", "message", "param")}, "error": fields}
    return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"
