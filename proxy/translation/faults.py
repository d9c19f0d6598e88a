"""Upstreams' errors, read in one format and said in another, so that clients know what they can do about them.

The words that agents look for are kept: Claude Code compacts its history on "prompt is too long", OpenAI's clients on
the code `context_length_exceeded`.
"""

from __future__ import annotations

from sluice.proxy.translation.deltas import Fault
from sluice.proxy.translation.json_codec import Json, decode, mapping, text
from sluice.proxy.upstreams.overflow import overflow_of
from sluice.proxy.wire.render_errors import anthropic_form

CONTEXT_LENGTH = "context_length_exceeded"
TOO_LONG = "prompt is too long"
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_RESPONSE_CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt"}
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_MAX_TEXT_CHARS = 2000


def read_fault(body: bytes, status: int) -> Fault:
    """Read the body of an answer whose status says that it is an error, whoever wrote it."""
    try:
        value = decode(body)
    except ValueError:
        said = body.decode("utf-8", "replace")
        return _fault(said, said.strip()[:_MAX_TEXT_CHARS], status)
    if isinstance(value, list) and value:  # Gemini's surface wraps its error in a list
        value = value[0]
    form = mapping(value)
    return anthropic_fault(form, status) if form.get("type") == "error" else openai_fault(form, status)


def openai_fault(form: Json, status: int) -> Fault:
    """Read `{"error": {message, type, param, code}}`, and the looser forms of servers that follow it."""
    error = form.get("error", form)
    if isinstance(error, str):
        return _fault(form, error, status)
    inner = mapping(error)
    message = text(inner.get("message")) or text(form.get("message")) or text(form.get("detail"))
    code, kind, param = inner.get("code"), text(inner.get("type")), inner.get("param")
    if status == 500:  # in a stream, which has no status of its own
        status = code if isinstance(code, int) and 400 <= code < 600 else _STATUSES.get(kind, status)
    return _fault(form, message, status, text(code), kind, param if isinstance(param, str) else None)


def anthropic_fault(form: Json, status: int) -> Fault:
    """Read `{"type": "error", "error": {type, message}}`."""
    error = mapping(form.get("error"))
    message, kind = text(error.get("message")), text(error.get("type"))
    if status == 500:
        status = _STATUSES.get(kind, status)
    return _fault(form, message, status)


def openai_error(fault: Fault) -> Json:
    """Say an error in OpenAI's form."""
    kind = fault.type or _OPENAI_TYPES.get(
        fault.status, "server_error" if fault.status >= 500 else "invalid_request_error"
    )
    return {"error": {"message": fault.message, "type": kind, "param": fault.param, "code": fault.code}}


def responses_error(fault: Fault) -> Json:
    """Say an error as a response of OpenAI's has it that failed."""
    code = fault.code if fault.code == CONTEXT_LENGTH else _RESPONSE_CODES.get(fault.status, "server_error")
    return {"code": code, "message": fault.message}


def anthropic_error(fault: Fault) -> Json:
    """Say an error in Anthropic's form."""
    message = fault.message
    if fault.code == CONTEXT_LENGTH and TOO_LONG not in message.lower():
        message = f"{TOO_LONG}: {message}"
    return anthropic_form(fault.status, message)


def _fault(error: object, message: str, status: int, code: str = "", kind: str = "", param: str | None = None) -> Fault:
    """A fault, its code and status those of a prompt that is too long where the error, or its text, says so."""
    if overflow_of(status, error) is not None:
        code = CONTEXT_LENGTH
        status = 400 if status == 500 else status
    message = message or f"the upstream answered with status {status}"
    return Fault(message, status, code or None, kind or None, param)
