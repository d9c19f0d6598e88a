"""Shortens what a framework is about to send, in its own process, with the proxy's decisions.

Takes messages as the framework's client would put them on the wire, since a message is known by its JSON. Fails open:
whatever breaks, the messages come back as they were. Knows no framework.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

from sluice.compressor.compressor import Compressor
from sluice.compressor.dialects import OPENAI_CHAT, Dialect
from sluice.compressor.dialects.json_message import decode, encode
from sluice.compressor.middleware import worker
from sluice.compressor.profiles import PROFILES, Profile
from sluice.compressor.settings import CompressorSettings
from sluice.compressor.state import MemoryStore, StateStore
from sluice.compressor.turn import parse
from sluice.compressor.types import Mode

logger = logging.getLogger(__name__)

_BACKSTOP = 3
"""Times the longest wait, as in the proxy: the compressor bounds the decision and the store by itself, and replays
what is known. To give up as a whole changes the prefix, so it is left to what is never expected."""

Json = Mapping[str, Any]


class History:
    """The conversations of one process, shortened as the proxy would: what was sent once is sent again.

    Safe to share between conversations, threads and event loops: all work is done on one loop of its own.

    Args:
        store: where decisions and originals live; None keeps them in this process. A shared store lets several
            processes go on with one conversation. It is used on one loop, which is not the caller's.
        mode: how much may be dropped.
        provider: whose prompt cache the conversation is sent to, by its name in `PROFILES`.
        tenant: who sends; nothing is shared between tenants.
        upstream: where it goes; nothing is shared between upstreams.
        max_tokens: of messages that hold more, by estimate, old results are rewritten towards so many; None: none are.
        timeout_s: longest wait for a decision, after which new messages go out as they are, and those before them as
            they went out before.
        compressor: in place of one on `store`, with a `decide_timeout_s` of its own; to be used by nobody else on
            another loop.

    Raises:
        ValueError: there is no such mode or provider.
    """

    def __init__(
        self,
        store: StateStore | None = None,
        *,
        mode: Mode | str = Mode.BALANCED,
        provider: str = "openai",
        tenant: str = "",
        upstream: str = "",
        max_tokens: int | None = None,
        timeout_s: float = 5.0,
        compressor: Compressor | None = None,
    ) -> None:
        if provider not in PROFILES:
            raise ValueError(f"provider must be one of {', '.join(PROFILES)}, not {provider!r}")
        self.mode = Mode(mode)
        self._profile: Profile = PROFILES[provider]
        self._tenant = tenant.encode()
        self._upstream = upstream
        self._max_tokens = max_tokens
        self._timeout_s = timeout_s
        self._compressor = compressor or Compressor(
            store or MemoryStore(), CompressorSettings(decide_timeout_s=timeout_s), profile=self._profile
        )

    async def shorten(
        self, messages: Sequence[Json], *, dialect: Dialect = OPENAI_CHAT, context: object = None
    ) -> list[Json]:
        """What to send in place of these messages. Never raises for what they hold.

        Args:
            messages: all of a request's, in the form in which they go on the wire.
            dialect: of these messages.
            context: JSON of what else the provider's cache depends on, such as the model and the tools.

        Returns:
            For each message itself, or a shorter one in its place.
        """
        return await asyncio.wrap_future(worker.submit(self._shorten(messages, dialect, context)))

    def shorten_sync(
        self, messages: Sequence[Json], *, dialect: Dialect = OPENAI_CHAT, context: object = None
    ) -> list[Json]:
        """See `shorten`. Blocks the calling thread."""
        return worker.submit(self._shorten(messages, dialect, context)).result()

    async def recall(self, recall_id: str) -> str:
        """The original under the id that a marker shows: offer it to the agent as a tool.

        Raises:
            UnknownRecallError: nothing is kept under it.
            AmbiguousRecallError: several originals begin with these digits.
            StateError: the store did not answer.
        """
        return await asyncio.wrap_future(worker.submit(self._compressor.recall(self._tenant, recall_id)))

    def recall_sync(self, recall_id: str) -> str:
        """See `recall`. Blocks the calling thread."""
        return worker.submit(self._compressor.recall(self._tenant, recall_id)).result()

    async def _shorten(self, messages: Sequence[Json], dialect: Dialect, context: object) -> list[Json]:
        try:
            async with asyncio.timeout(_BACKSTOP * self._timeout_s):
                raws = [encode(message) for message in messages]
                compressed = await self._compressor.compress(
                    raws,
                    dialect=dialect,
                    mode=self.mode,
                    tenant=self._tenant,
                    upstream=self._upstream,
                    context=encode(context),
                    max_tokens=self._max_tokens,
                    profile=self._profile,
                )
            return [
                message if new == raw else decode(new)
                for message, raw, new in zip(messages, raws, compressed.messages, strict=True)
            ]
        except TimeoutError:
            logger.warning("no decision in %.1f s: the messages go out as they are", _BACKSTOP * self._timeout_s)
        except Exception:  # a fault of ours must not cost the request
            logger.exception("messages could not be shortened: they go out as they are")
        return list(messages)


class Results:
    """The texts of tool results before and after, to be put where a framework keeps them.

    Args:
        before: messages as they would go out.
        after: the same, shortened.
        dialect: of both.
    """

    def __init__(self, before: Sequence[Json], after: Sequence[Json], dialect: Dialect) -> None:
        self._texts: defaultdict[tuple[str, str], deque[str]] = defaultdict(deque)
        self.any_shortened = any(new is not old for old, new in zip(before, after, strict=True))
        if not self.any_shortened:
            return
        for old, new in zip(before, after, strict=True):
            old_texts = parse(encode(old), dialect).texts
            new_texts = old_texts if new is old else parse(encode(new), dialect).texts
            for was, now in zip(old_texts, new_texts, strict=True):
                if was.is_result:
                    self._texts[was.call_id or "", was.text].append(now.text)

    def take(self, call_id: str, text: str) -> str:
        """What stands for a result's text. To be asked once for each, in order."""
        texts = self._texts.get((call_id, text))
        return texts.popleft() if texts else text
