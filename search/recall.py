"""Fetches originals from a running proxy, for the MCP tool `recall`. Knows the proxy only by its route."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable

import aiohttp

_TIMEOUT_S = 10.0
_MAX_BYTES = 8_000_000
_ID = re.compile(r"[0-9a-f]{4,32}")
_PROXY_KEY_START = "sk-sluice-"
_NOT_THERE = (401, 404)
"""Statuses by which the proxy says that nothing is kept for this caller."""


def proxy_recall(base_url: str, key: str) -> Callable[[str], Awaitable[str]]:
    """What fetches the original under an id from `GET /v1/recall/{id}`; LookupError where it is not to be had.

    Args:
        base_url: the proxy's origin, with or without `/v1`.
        key: what the agent sends there: a proxy key, or else its provider's credential; empty: none is sent.
    """
    origin = base_url.rstrip("/").removesuffix("/v1")

    async def recall(recall_id: str) -> str:
        if _ID.fullmatch(recall_id) is None:
            raise LookupError(f"{recall_id[:40]!r} is no id: 4 to 32 hex digits")
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session:
                for headers in _forms(key):
                    # A credential is the named proxy's to see, and nobody's that it might refer to.
                    path = f"{origin}/v1/recall/{recall_id}"
                    async with session.get(path, headers=headers, allow_redirects=False) as response:
                        status = response.status
                        if status == 200:
                            return await _text_of(response, recall_id)
                    if status not in _NOT_THERE:
                        break
            raise LookupError(f"the proxy has no original under {recall_id!r} ({status})")
        except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, KeyError, RecursionError) as error:
            said = str(error) if isinstance(error, aiohttp.ClientError) else repr(error)
            raise LookupError(f"the proxy at {origin} did not answer: {said}") from error

    return recall


def _forms(key: str) -> list[dict[str, str]]:
    """The headers in which an agent may send a key: what is kept is kept under the one and its value."""
    if not key:
        return [{}]
    ours = {"x-sluice-key": key}
    return (
        [ours] if key.startswith(_PROXY_KEY_START) else [{"authorization": f"Bearer {key}"}, {"x-api-key": key}, ours]
    )


async def _text_of(response: aiohttp.ClientResponse, recall_id: str) -> str:
    data = bytearray()
    async for part in response.content.iter_any():
        data += part
        if len(data) > _MAX_BYTES:
            raise LookupError(f"the original under {recall_id!r} is longer than {_MAX_BYTES} bytes")
    return str(json.loads(data)["text"])
