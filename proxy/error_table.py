"""The only table from exception class to HTTP status, type and code, and what a client is told of an exception.

Knows no wire's form of it (`wire/render_errors.py`). A test fails on a class that is not in the table.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from starlette.exceptions import HTTPException

from sluice.compressor.errors import (
    AmbiguousRecallError,
    CompressorError,
    MalformedMessageError,
    StateError,
    StateRefusedError,
    TooManyPinsError,
    UnknownRecallError,
)
from sluice.proxy.errors import (
    AccessError,
    BackendDownError,
    BodyTooLargeError,
    BudgetSpentError,
    ConfigError,
    ContentNotKeptError,
    ForbiddenHostError,
    ForbiddenOriginError,
    ForeignCredentialError,
    InvalidFieldError,
    InvalidJsonError,
    KeysUnavailableError,
    LimitError,
    MissingKeyError,
    ProxyError,
    RateLimitError,
    RequestError,
    StartError,
    TooManyRequestsError,
    UnknownConversationError,
    UnknownKeyError,
    UnknownModelError,
    UpstreamConnectTimeoutError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamPoolTimeoutError,
    UpstreamReadTimeoutError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
    UpstreamWriteTimeoutError,
    WebSocketError,
)
from sluice.search.errors import (
    BackendError,
    MissingExtraError,
    ModelError,
    QueryError,
    SearchError,
    StoreError,
    UnknownRootError,
    UnreadableRootError,
    WrongTreeError,
)


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
    WebSocketError: Rendering(426, "invalid_request_error", "no_websocket"),
    BodyTooLargeError: Rendering(413, "invalid_request_error", "body_too_large"),
    UnknownConversationError: Rendering(404, "invalid_request_error", "unknown_conversation_id"),
    ContentNotKeptError: Rendering(404, "invalid_request_error", "content_not_kept"),
    AccessError: Rendering(403, "permission_error", "access_denied"),
    ForbiddenHostError: Rendering(403, "permission_error", "forbidden_host"),
    ForbiddenOriginError: Rendering(403, "permission_error", "forbidden_origin"),
    MissingKeyError: Rendering(401, "authentication_error", "missing_proxy_key"),
    UnknownKeyError: Rendering(401, "authentication_error", "unknown_proxy_key"),
    KeysUnavailableError: Rendering(503, "server_error", "keys_unavailable"),
    LimitError: Rendering(429, "rate_limit_error", "limit_reached"),
    RateLimitError: Rendering(429, "rate_limit_error", "rate_limited"),
    BudgetSpentError: Rendering(429, "rate_limit_error", "budget_spent"),
    TooManyRequestsError: Rendering(429, "rate_limit_error", "too_many_requests"),
    UnknownModelError: Rendering(404, "invalid_request_error", "model_not_found"),
    ForeignCredentialError: Rendering(401, "authentication_error", "foreign_credential"),
    UpstreamError: Rendering(502, "upstream_error", "upstream_error"),
    BackendDownError: Rendering(503, "server_error", "backend_down"),
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
    StateRefusedError: Rendering(503, "server_error", "state_refused"),
    UnknownRecallError: Rendering(404, "invalid_request_error", "unknown_recall_id"),
    TooManyPinsError: Rendering(409, "invalid_request_error", "too_many_pins"),
    AmbiguousRecallError: Rendering(409, "invalid_request_error", "ambiguous_recall_id"),
    SearchError: Rendering(500, "server_error", "search_error"),
    QueryError: Rendering(400, "invalid_request_error", "invalid_query"),
    UnknownRootError: Rendering(404, "invalid_request_error", "unknown_root"),
    WrongTreeError: Rendering(503, "server_error", "wrong_tree"),
    UnreadableRootError: Rendering(503, "server_error", "unreadable_root"),
    StoreError: Rendering(503, "server_error", "search_index_unavailable"),
    MissingExtraError: Rendering(501, "server_error", "missing_extra"),
    ModelError: Rendering(501, "server_error", "no_embedding_model"),
    BackendError: Rendering(502, "upstream_error", "search_backend_error"),
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


def level_of(error: Exception | None) -> int:
    """How loudly the log tells of a request that this went wrong with; None: nothing did."""
    if error is None:
        return logging.INFO
    if isinstance(error, UpstreamError):
        return logging.WARNING
    return logging.ERROR if rendering_of(error).status == 500 else logging.INFO


class ErrorDetails(NamedTuple):
    """What a client is told of an error; a wire puts it into its own form."""

    status: int
    type: str
    code: str
    message: str
    param: str | None


def describe(error: Exception) -> ErrorDetails:
    """Tell what a client may know of an exception."""
    rendering = rendering_of(error)
    if isinstance(error, HTTPException):
        message = str(error.detail)
    elif rendering is _INTERNAL:
        message = "internal error of the proxy; its log says more"
    else:
        message = str(error)
    message = message.encode("utf-8", "replace").decode()
    return ErrorDetails(*rendering, message, getattr(error, "param", None))
