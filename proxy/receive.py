"""Reads a request's body as it comes, under a cap. Knows nothing of what it says."""

from __future__ import annotations

from starlette.types import Receive

from sluice.proxy.errors import BodyTooLargeError


class ClientGoneError(Exception):
    """The client hung up before its answer was whole. Nobody is there to be answered."""


async def read_body(receive: Receive, content_length: str | None, max_body_bytes: int) -> bytes:
    """Read a request body to its end.

    Args:
        receive: ASGI's receive.
        content_length: what the client says; it may lie, so that what comes is counted as well.
        max_body_bytes: the cap.

    Raises:
        BodyTooLargeError: the body is, or says it is, larger than the cap.
        ClientGoneError: the client hung up.
    """
    if content_length is not None and content_length.isdecimal() and int(content_length) > max_body_bytes:
        raise BodyTooLargeError(max_body_bytes)
    parts: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        num_bytes += len(part)
        if num_bytes > max_body_bytes:
            raise BodyTooLargeError(max_body_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
