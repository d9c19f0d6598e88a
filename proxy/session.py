"""Which session a request belongs to: what its agent takes for one piece of work, across its own compactions."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sluice.proxy.body import Body
from sluice.proxy.headers import Header, find

_HEADERS = (b"x-sluice-session", b"x-claude-code-session-id", b"session_id", b"session-id", b"conversation_id")
"""Ours, then those that Claude Code and Codex send."""


def session_of(headers: Sequence[Header], body: Body) -> bytes:
    """An opaque name of the session; empty where the client gives none.

    Args:
        headers: the client's, names in lower case.
        body: Claude Code names its session in `metadata.user_id`, Codex in `prompt_cache_key`.
    """
    for name in _HEADERS:
        if (value := find(headers, name)) is not None:
            return value.encode()
    named = _string(body.field("prompt_cache_key")) or _user_id(body.field("metadata"))
    return named.encode(errors="surrogatepass")


def _user_id(metadata: bytes) -> str:
    try:
        return msgspec.json.decode(metadata, type=_Metadata).user_id
    except msgspec.DecodeError:
        return ""


def _string(value: bytes) -> str:
    try:
        return msgspec.json.decode(value, type=str)
    except msgspec.DecodeError:
        return ""


class _Metadata(msgspec.Struct):
    user_id: str = ""
