"""What can go wrong in the proxy, and the only table from exception class to HTTP status, type and code.

ProxyError
├── ConfigError                     a setting is wrong; start-up stops
├── StartError                      the port is taken, or the backend does not start
├── RequestError                    the request cannot be served as it is
│   ├── InvalidJsonError
│   ├── InvalidFieldError
│   ├── BodyTooLargeError
│   └── UnknownConversationError    the meter keeps none under this id
└── UpstreamError                   the upstream gave no whole answer
    ├── UpstreamUnreachableError    refused, unknown host, TLS
    ├── UpstreamDisconnectedError   closed the connection before the answer was whole
    └── UpstreamTimeoutError
        ├── UpstreamConnectTimeoutError
        ├── UpstreamReadTimeoutError
        ├── UpstreamWriteTimeoutError
        └── UpstreamPoolTimeoutError
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from starlette.exceptions import HTTPException

from sluice.compressor.errors import (
    AmbiguousRecallError,
    CompressorError,
    MalformedMessageError,
    StateError,
    UnknownRecallError,
)


class ProxyError(Exception):
    """Base of all errors that the proxy raises."""


class ConfigError(ProxyError):
    """A setting is wrong. The message names key and value, never a secret."""


class StartError(ProxyError):
    """The proxy cannot start; the message is for its user."""


class RequestError(ProxyError):
    """The request cannot be served as it is.

    Args:
        message: what is wrong, naming the value.
        param: the field or header at fault; None where it is the request as a whole.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidJsonError(RequestError):
    """The body is no JSON."""


class InvalidFieldError(RequestError):
    """A field or header has a value or a type that it cannot have."""


class BodyTooLargeError(RequestError):
    """The body is larger than the limit."""

    def __init__(self, max_body_bytes: int) -> None:
        super().__init__(f"request body is larger than the limit of {max_body_bytes:,} bytes (setting max_body_bytes)")


class UnknownConversationError(RequestError):
    """The meter keeps no conversation under this id."""

    def __init__(self, conversation: str) -> None:
        super().__init__(f"no conversation is kept under id {conversation!r}: it never was, or it has expired")


class UpstreamError(ProxyError):
    """The upstream gave no whole answer."""


class UpstreamUnreachableError(UpstreamError):
    """No connection to the upstream: refused, unknown host, or TLS failed."""


class UpstreamDisconnectedError(UpstreamError):
    """The upstream closed the connection before its answer was whole."""


class UpstreamTimeoutError(UpstreamError):
    """A step of the exchange with the upstream took too long.

    Args:
        upstream: origin of the upstream.
        timeout_s: the limit that ran out, in seconds.
    """

    step = "answer"
    setting = "read_timeout_s"

    def __init__(self, upstream: str, timeout_s: float) -> None:
        super().__init__(f"upstream {upstream} did not {self.step} within {timeout_s:g} s (setting {self.setting})")


class UpstreamConnectTimeoutError(UpstreamTimeoutError):
    """No connection within the limit."""

    step = "accept a connection"
    setting = "connect_timeout_s"


class UpstreamReadTimeoutError(UpstreamTimeoutError):
    """No byte of the answer came within the limit."""

    step = "send a byte"
    setting = "read_timeout_s"


class UpstreamWriteTimeoutError(UpstreamTimeoutError):
    """The upstream took no more of the request body within the limit."""

    step = "take the request body"
    setting = "write_timeout_s"


class UpstreamPoolTimeoutError(UpstreamTimeoutError):
    """All connections to the upstream were in use for longer than the limit."""

    step = "have a connection free"
    setting = "pool_timeout_s"


class Rendering(NamedTuple):
    """How an exception class appears on the wire."""

    status: int
    type: str
    code: str


ERROR_TABLE: dict[type[Exception], Rendering] = {
    ProxyError: Rendering(500, "server_error", "proxy_error"),
    ConfigError: Rendering(500, "server_error", "config_error"),
    StartError: Rendering(500, "server_error", "start_error"),
    RequestError: Rendering(400, "invalid_request_error", "invalid_request"),
    InvalidJsonError: Rendering(400, "invalid_request_error", "invalid_json"),
    InvalidFieldError: Rendering(400, "invalid_request_error", "invalid_value"),
    BodyTooLargeError: Rendering(413, "invalid_request_error", "body_too_large"),
    UnknownConversationError: Rendering(404, "invalid_request_error", "unknown_conversation_id"),
    UpstreamError: Rendering(502, "upstream_error", "upstream_error"),
    UpstreamUnreachableError: Rendering(502, "upstream_error", "upstream_unreachable"),
    UpstreamDisconnectedError: Rendering(502, "upstream_error", "upstream_disconnected"),
    UpstreamTimeoutError: Rendering(504, "upstream_error", "upstream_timeout"),
    UpstreamConnectTimeoutError: Rendering(504, "upstream_error", "upstream_connect_timeout"),
    UpstreamReadTimeoutError: Rendering(504, "upstream_error", "upstream_read_timeout"),
    UpstreamWriteTimeoutError: Rendering(504, "upstream_error", "upstream_write_timeout"),
    UpstreamPoolTimeoutError: Rendering(504, "upstream_error", "upstream_pool_timeout"),
    CompressorError: Rendering(500, "server_error", "compressor_error"),
    MalformedMessageError: Rendering(400, "invalid_request_error", "malformed_message"),
    StateError: Rendering(503, "server_error", "state_unavailable"),
    UnknownRecallError: Rendering(404, "invalid_request_error", "unknown_recall_id"),
    AmbiguousRecallError: Rendering(409, "invalid_request_error", "ambiguous_recall_id"),
}
"""Every class that may reach a client. What is not in here is a fault of ours: 500, and its text stays inside."""

_INTERNAL = Rendering(500, "server_error", "internal_error")


def rendering_of(error: Exception) -> Rendering:
    """Look up how an exception appears on the wire; the most specific class in the table wins."""
    if isinstance(error, HTTPException):
        code = {404: "unknown_route", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return Rendering(error.status_code, "invalid_request_error", code)
    for cls in type(error).__mro__:
        if (rendering := ERROR_TABLE.get(cls)) is not None:
            return rendering
    return _INTERNAL


def error_json(error: Exception) -> tuple[int, bytes]:
    """Render an exception as OpenAI error JSON.

    Returns:
        The HTTP status, and `{"error": {message, type, param, code}}`.
    """
    rendering = rendering_of(error)
    if isinstance(error, HTTPException):
        message = str(error.detail)
    elif rendering is _INTERNAL:
        message = "internal error of the proxy; its log says more"
    else:
        message = str(error)
    fields = {
        "message": message.encode("utf-8", "replace").decode(),
        "type": rendering.type,
        "param": getattr(error, "param", None),
        "code": rendering.code,
    }
    return rendering.status, msgspec.json.encode({"error": fields})
