"""What `deep` needs of a model, and a client for any server that speaks OpenAI's chat form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from sluice.search.errors import BackendError
from sluice.search.settings import DeepSettings

_MAX_REPLY_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that the model wants called."""

    id: str
    name: str
    arguments: str
    """JSON as the model wrote it, perhaps broken."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One turn of the model."""

    text: str
    calls: tuple[Call, ...]


class ChatModel(Protocol):
    """A model that can call tools."""

    async def reply(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> Reply:
        """The next turn of a conversation in OpenAI's chat form.

        Raises:
            BackendError: there is no answer, or it is none.
        """
        ...


class HTTPChatModel:
    """`POST /v1/chat/completions` of a configured server.

    Args:
        settings: where it is and what it is called.
    """

    def __init__(self, settings: DeepSettings) -> None:
        self._settings = settings
        self._url = settings.base_url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self._session: aiohttp.ClientSession | None = None

    async def reply(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> Reply:
        """See `ChatModel`."""
        if self._session is None:
            headers = {"authorization": f"Bearer {self._settings.api_key}"} if self._settings.api_key else {}
            self._session = aiohttp.ClientSession(headers=headers)
        body = {"model": self._settings.model, "messages": list(messages), "temperature": 0, "max_tokens": 1024}
        if tools:
            body["tools"] = list(tools)
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
        try:
            async with self._session.post(self._url, json=body, timeout=timeout, allow_redirects=False) as response:
                data = bytearray()
                async for part in response.content.iter_any():
                    data += part
                    if len(data) > _MAX_REPLY_BYTES:
                        raise BackendError(f"{self._url} answered with more than {_MAX_REPLY_BYTES} bytes")
                if response.status != 200:
                    raise BackendError(f"{self._url} answered {response.status}: {bytes(data[:200])!r}")
                message = json.loads(data)["choices"][0]["message"]
                calls = tuple(
                    Call(str(call["id"]), str(call["function"]["name"]), str(call["function"]["arguments"]))
                    for call in message.get("tool_calls") or ()
                )
                return Reply(str(message.get("content") or ""), calls)
        except (
            aiohttp.ClientError,
            TimeoutError,
            ValueError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            said = str(error) if isinstance(error, aiohttp.ClientError) else repr(error)
            raise BackendError(f"{self._url} gave no usable answer: {said}") from error

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
