"""Which requests the prompt cache may answer, and under what key. Plain functions of a request.

A request qualifies if its answer is meant to be the same every time: temperature 0, or a seed. One that leans on state
at the provider does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from sluice.proxy.headers import Header
from sluice.proxy.wire.types import Outgoing

_STATEFUL = ("previous_response_id", "conversation", "background", "container")
"""Fields that make an answer depend on more than the request."""
_TELLING = (b"anthropic-", b"openai-", b"accept", b"x-goog-")
"""What the names of headers begin with that may change an answer, or its encoding."""


def answer_key(outgoing: Outgoing, *, tenant: bytes, origin: str) -> bytes | None:
    """Name the answer to a request: 32 bytes; None where it must not come out of the cache.

    Args:
        outgoing: the request as it is forwarded.
        tenant: who sends it.
        origin: of the upstream that it goes to.
    """
    if outgoing.wire is None or outgoing.method != "POST":
        return None
    if b'"temperature"' not in outgoing.body and b'"seed"' not in outgoing.body:
        return None  # without decoding it
    try:
        body = msgspec.json.decode(outgoing.body)
        if not isinstance(body, dict) or not is_repeatable(body):
            return None
        canonical = msgspec.json.encode(body, order="sorted")
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    telling = sorted((key, value) for key, value in outgoing.headers if key.startswith(_TELLING))
    parts = (
        tenant,
        origin.encode(errors="surrogatepass"),
        outgoing.wire.encode(),
        outgoing.path.encode(errors="surrogatepass"),
        *(part for header in telling for part in header),
        canonical,
    )
    digest = blake2b(digest_size=32, person=b"sluice-answer")
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def is_repeatable(body: dict[str, Any]) -> bool:
    """Whether a request asks for the same answer every time, and for nothing but an answer."""
    if any(body.get(name) for name in _STATEFUL):
        return False
    temperature, seed = body.get("temperature"), body.get("seed")
    is_cold = isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0
    return is_cold or (isinstance(seed, int) and not isinstance(seed, bool))


def may_keep(headers: Sequence[Header]) -> bool:
    """Whether the client lets its answer be kept, and be taken from what was kept: no `cache-control: no-store`."""
    return "no-store" not in _directives(headers)


def may_take(headers: Sequence[Header]) -> bool:
    """Whether the client takes an answer that was kept: no `cache-control: no-cache`."""
    return "no-cache" not in _directives(headers)


def _directives(headers: Sequence[Header]) -> set[str]:
    values = (value.decode("latin-1").lower() for key, value in headers if key in (b"cache-control", b"pragma"))
    return {part.strip() for value in values for part in value.split(",")}
