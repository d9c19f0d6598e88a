"""Which headers pass between client and upstream, and which end at the proxy. Knows no sockets.

Hop-by-hop headers (RFC 9110, 7.6.1) end here both ways, those that `Connection` names included.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_OURS = b"x-sluice-"
_FETCH = b"sec-fetch-"
"""By these and by `origin` browsers say whose page asks. The proxy has gone by them; an upstream that did as well would
take the proxy's own pages for strangers'."""
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
NO_BODY = frozenset((204, 304))
"""Statuses of answers that have no body, whatever their `content-length` says (RFC 9110, 6.4.1)."""
CREDENTIALS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
"""Headers that hold a credential for an upstream."""


def find(headers: Iterable[Header], name: bytes) -> str | None:
    """Return the first value of a header, as text, or None. Names are lower case, as ASGI has them."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1").strip()
    return None


def to_upstream(headers: Iterable[Header], *, identity: bool, kept: Collection[bytes] = ()) -> list[Header]:
    """Choose the client's headers that go to the upstream.

    Args:
        headers: the client's, names in lower case.
        identity: ask for an answer that is not compressed. An error event can be put at the end of a plain stream
            only; where False, what the client accepts is asked for, so that nothing ever needs to be re-coded.
        kept: headers of ours that this upstream reads.
    """
    headers = list(headers)
    dropped = HOP_BY_HOP | _named_by_connection(headers) | {b"host", b"content-length", b"expect", b"origin"}
    passed = [
        (key, value)
        for key, value in headers
        if key not in dropped and (key in kept or not key.startswith((_OURS, _FETCH)))
    ]
    if identity or all(key != b"accept-encoding" for key, _ in passed):
        passed = [(key, value) for key, value in passed if key != b"accept-encoding"]
        passed.append((b"accept-encoding", b"identity"))
    return passed


def to_client(headers: Iterable[Header], *, has_length: bool) -> list[Header]:
    """Choose the upstream's headers that go to the client; what HTTP does not allow stays here: no server sends it.

    Args:
        headers: the upstream's, names in any case.
        has_length: as many bytes come as `content-length` says. Not so where the answer can have no body, or is a
            stream of events, whose length is not known before it ends.
    """
    headers = [(key.lower(), value) for key, value in headers]
    dropped = HOP_BY_HOP | _named_by_connection(headers)
    if not has_length:
        dropped |= {b"content-length"}
    return [
        (key, value)
        for key, value in headers
        if key not in dropped and not key.startswith(_OURS) and _TOKEN.fullmatch(key) and not _CONTROL.search(value)
    ]


def _named_by_connection(headers: Iterable[Header]) -> set[bytes]:
    return {name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")}
