"""What can go wrong in the proxy. How each appears to a client is said in `error_table.py`.

ProxyError
├── ConfigError                     a setting is wrong; start-up stops
├── StartError                      the port is taken, or the backend does not start
├── RequestError                    the request cannot be served as it is
│   ├── InvalidJsonError
│   ├── InvalidFieldError
│   ├── WebSocketError
│   ├── BodyTooLargeError
│   ├── UnknownConversationError    the meter keeps none under this id
│   ├── ContentNotKeptError         no content of this conversation is kept for this key
│   ├── AccessError                 the request may not be served, or not now
│   │   ├── ForbiddenHostError
│   │   ├── ForbiddenOriginError
│   │   ├── MissingKeyError
│   │   ├── UnknownKeyError
│   │   ├── KeysUnavailableError
│   │   └── LimitError
│   │       ├── RateLimitError
│   │       ├── BudgetSpentError
│   │       └── TooManyRequestsError
│   ├── UnknownModelError           no upstream serves the model
│   └── ForeignCredentialError      the credential is another provider's than the model's
└── UpstreamError                   the upstream gave no whole answer
    ├── BackendDownError            it is the backend that this proxy runs, which has ended
    ├── UpstreamUnreachableError    refused, unknown host, TLS
    ├── UpstreamDisconnectedError   closed the connection before the answer was whole
    └── UpstreamTimeoutError
        ├── UpstreamConnectTimeoutError
        ├── UpstreamReadTimeoutError
        ├── UpstreamWriteTimeoutError
        └── UpstreamPoolTimeoutError
"""

from __future__ import annotations


class ProxyError(Exception):
    """Base of all errors that the proxy raises."""

    retry_after_s: float | None = None
    """Seconds before which another attempt is of no use; None where nothing is said of it."""


class ConfigError(ProxyError):
    """A setting is wrong. The message names key and value, never a secret.

    Args:
        message: for the user.
        is_usage: whether it was given on the command line.
    """

    def __init__(self, message: str, *, is_usage: bool = False) -> None:
        super().__init__(message)
        self.is_usage = is_usage


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


class WebSocketError(RequestError):
    """The client wants to speak WebSocket.

    426 makes agents that try it first fall back to HTTP for good; they take other statuses for a fault to retry.
    """

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is not served over WebSocket; use HTTP")


class BodyTooLargeError(RequestError):
    """The body is larger than the limit."""

    retry_after_s = 3_600.0
    """Whether it fits is up to whoever changes the limit, and nobody does so within seconds."""

    def __init__(self, max_body_bytes: int) -> None:
        super().__init__(f"request body is larger than the limit of {max_body_bytes:,} bytes (setting max_body_bytes)")


class UnknownConversationError(RequestError):
    """The meter keeps no conversation under this id."""

    def __init__(self, conversation: str) -> None:
        super().__init__(f"no conversation is kept under id {conversation!r}: it never was, or it has expired")


class ContentNotKeptError(RequestError):
    """No content of a conversation is kept, or none that this key may see."""

    def __init__(self, conversation: str, *, is_on: bool) -> None:
        why = "it is none of this key's, or newer ones took its place" if is_on else "setting store_content is off"
        super().__init__(f"no content of conversation {conversation!r} is kept here: {why}")


class AccessError(RequestError):
    """The request may not be served, or not now."""


class ForbiddenHostError(AccessError):
    """The `Host` header names another machine: a page that the browser took for it may be asking."""

    def __init__(self, host: str) -> None:
        super().__init__(f"host {host!r} is not one of this proxy's (setting allowed_hosts)", param="host")


class ForbiddenOriginError(AccessError):
    """A web page asks that may not."""

    def __init__(self, origin: str) -> None:
        super().__init__(f"pages of {origin!r} may not use this proxy (setting allowed_origins)", param="origin")


class MissingKeyError(AccessError):
    """The request has no proxy key, and needs one."""

    def __init__(self) -> None:
        super().__init__("this proxy wants a key of its own in the header x-sluice-key", param="x-sluice-key")


class UnknownKeyError(AccessError):
    """The proxy key is none, or was removed."""

    def __init__(self) -> None:
        super().__init__("the proxy key in x-sluice-key is not known here", param="x-sluice-key")


class KeysUnavailableError(AccessError):
    """Whether the proxy key is one cannot be told at the moment."""

    retry_after_s = 2.0

    def __init__(self) -> None:
        super().__init__("proxy keys cannot be looked up at the moment", param="x-sluice-key")


class LimitError(AccessError):
    """A limit is reached.

    Args:
        message: which.
        retry_after_s: when there will be room again, in seconds.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimitError(LimitError):
    """The key's requests come too fast."""


class BudgetSpentError(LimitError):
    """The key's tokens or money of the day or month are spent."""


class TooManyRequestsError(LimitError):
    """Too many requests are being served at once."""


class UnknownModelError(RequestError):
    """No upstream serves the model."""

    def __init__(self, model: str) -> None:
        super().__init__(f"no upstream serves the model {model!r} (setting upstreams)", param="model")


class ForeignCredentialError(RequestError):
    """The credential that came with the request is another provider's than the one that serves the model.

    Args:
        provider: whose credential it is, by its form.
        upstream: name of the upstream that it was not sent to.
    """

    def __init__(self, provider: str, upstream: str) -> None:
        super().__init__(
            f"the credential of this request looks like one of {provider}'s and was not sent to upstream "
            f"{upstream!r}: give that upstream a credential of its own, or send its"
        )


class UpstreamError(ProxyError):
    """The upstream gave no whole answer."""

    was_stale = False
    """Whether it was a kept connection that the upstream had closed meanwhile, so that nothing was asked of it."""


class BackendDownError(UpstreamError):
    """The backend that this proxy runs has ended.

    Args:
        message: whether it is started again.
        retry_after_s: when that should be done, in seconds; None: it is not.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


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
