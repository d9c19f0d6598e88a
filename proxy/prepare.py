"""From a chat request's body to the body that is forwarded. Fails open: whatever breaks, the client's bytes go out.

Only a body that is certainly no chat request is refused. Knows no sockets and no answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from sluice.compressor import OPENAI_CHAT, Mode, StateError
from sluice.proxy.body import ChatBody, parse_chat
from sluice.proxy.errors import InvalidFieldError, RequestError
from sluice.proxy.headers import Header, find
from sluice.proxy.log import fields, logger, where
from sluice.proxy.services import Services
from sluice.proxy.tenant import tenant_of
from sluice.proxy.upstreams import Target

MODE_HEADER = b"x-sluice-mode"
BUDGET_HEADER = b"x-sluice-budget-tokens"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request, ready to be forwarded."""

    body: bytes
    """What goes to the upstream."""
    mode: Mode
    """The mode in force."""
    bypass: str | None = None
    """Why compression was skipped or failed; None where it ran, or where the mode is `off`."""
    chat: ChatBody | None = None
    """The client's body, decoded; None where it was not."""
    messages_out: Sequence[bytes] = ()
    """The messages in `body`."""
    target: Target | None = None
    """Which upstream serves it; None: the one that serves requests that name no model."""
    epoch: str | None = None
    """Why earlier messages were rewritten; None where they were not."""


def mode_of(headers: Sequence[Header], default: Mode) -> Mode:
    """Read the mode that a request asks for.

    Raises:
        InvalidFieldError: there is no such mode.
    """
    value = find(headers, MODE_HEADER)
    if value is None:
        return default
    try:
        return Mode(value.lower())
    except ValueError:
        known = ", ".join(Mode)
        raise InvalidFieldError(f"x-sluice-mode must be one of {known}, not {value!r}", param="x-sluice-mode") from None


def budget_of(headers: Sequence[Header]) -> int | None:
    """Read how many tokens a request may be forwarded with; None where it does not say.

    Raises:
        InvalidFieldError: it is no positive whole number.
    """
    value = find(headers, BUDGET_HEADER)
    if value is None:
        return None
    if not value.isdecimal() or int(value) == 0:
        name = BUDGET_HEADER.decode()
        raise InvalidFieldError(f"{name} must be a positive whole number, not {value!r}", param=name)
    return int(value)


async def prepare(raw: bytes, headers: Sequence[Header], mode: Mode, services: Services) -> Prepared:
    """Compress a request's messages.

    Raises:
        RequestError: the body is no chat request, and the mode is not `off`; or the budget is none.
    """
    max_tokens = budget_of(headers)
    encoding = find(headers, b"content-encoding")
    if encoding not in (None, "", "identity"):
        return Prepared(raw, mode, bypass="content-encoding")
    if mode is Mode.OFF:
        try:
            chat = parse_chat(raw)
        except RequestError:
            return Prepared(raw, mode)
        target = services.upstreams.resolve(chat.model)
        return Prepared(raw, mode, chat=chat, messages_out=chat.messages, target=target)
    chat = parse_chat(raw)
    target = services.upstreams.resolve(chat.model)
    if chat.spans is None:
        return Prepared(raw, mode, bypass="duplicate-key", chat=chat, target=target)
    messages = chat.messages
    try:
        async with asyncio.timeout(services.settings.compress_timeout_s):
            tenant = tenant_of(headers, await services.store.secret())
            compressed = await services.compressor.compress(
                messages,
                dialect=OPENAI_CHAT,
                mode=mode,
                tenant=tenant,
                upstream=target.origin,
                max_tokens=max_tokens,
                context=chat.model.encode(errors="surrogatepass") + b"\0" + chat.tools,
            )
        return Prepared(
            chat.splice(compressed.messages),
            compressed.mode,
            compressed.bypass,
            chat,
            compressed.messages,
            target,
            compressed.epoch,
        )
    except StateError:
        bypass = "state"
    except TimeoutError:
        bypass = "timeout"
    except Exception as error:  # a fault of ours must not cost the request
        bypass = "error"
        logger.error(fields("compression_failed", error=where(error)))
    return Prepared(raw, mode, bypass, chat, messages, target)
