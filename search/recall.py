"""Fetches originals from a running proxy, for the MCP tool `recall`. Knows the proxy only by its route."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable

import aiohttp

_TIMEOUT_S = 10.0
_MAX_BYTES = 8_000_000
_ID = re.compile(r"[0-9a-f]{4,32}")


def proxy_recall(base_url: str, key: str) -> Callable[[str], Awaitable[str]]:
    """What fetches the original under an id from `GET /v1/recall/{id}`; LookupError where it is not to be had.

    Args:
        base_url: the proxy's origin, with or without `/v1`.
        key: sent as `x-sluice-key`; empty: none is sent.
    """
    origin = base_url.rstrip("/").removesuffix("/v1")
    headers = {"x-sluice-key": key} if key else {}

    async def recall(recall_id: str) -> str:
        if _ID.fullmatch(recall_id) is None:
            raise LookupError(f"{recall_id[:40]!r} is no id: 4 to 32 hex digits")
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.get(f"{origin}/v1/recall/{recall_id}") as response,
            ):
                if response.status != 200:
                    raise LookupError(f"the proxy has no original under {recall_id!r} ({response.status})")
                data = bytearray()
                async for part in response.content.iter_any():
                    data += part
                    if len(data) > _MAX_BYTES:
                        raise LookupError(f"the original under {recall_id!r} is longer than {_MAX_BYTES} bytes")
                return str(json.loads(data)["text"])
        except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, KeyError, RecursionError) as error:
            said = str(error) if isinstance(error, aiohttp.ClientError) else repr(error)
            raise LookupError(f"the proxy at {origin} did not answer: {said}") from error

    return recall
