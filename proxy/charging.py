"""What an answer takes of the budgets of its key: what the upstream says that it used, else what it was sent.

What was sent is counted once the answer is through, and for keys that have budgets alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from starlette.types import Scope

from sluice.backend.surrogates import decode_whole
from sluice.proxy.access import STATE_KEY
from sluice.proxy.access.keys import ProxyKey
from sluice.proxy.body import Body
from sluice.proxy.encoding import UnreadableBodyError, unpack_aside
from sluice.proxy.errors import BodyTooLargeError
from sluice.proxy.headers import Header, find
from sluice.proxy.log import fields, logger, where
from sluice.proxy.meter.usage import Usage
from sluice.proxy.model_name import model_of
from sluice.proxy.services import Services
from sluice.proxy.tokens import TokenCounter
from sluice.proxy.upstreams import Target
from sluice.proxy.wire.base import Wire

Count = Callable[[], Awaitable[int]]


def budgeted_key(scope: Scope) -> ProxyKey | None:
    """The proxy key of a request, if it has budgets."""
    key: ProxyKey | None = scope.get("state", {}).get(STATE_KEY)
    return key if key is not None and key.has_budgets else None


async def charge(
    services: Services, key: ProxyKey, *, usage: Usage | None, count: Count | None, model: str, target: Target | None
) -> None:
    """Charge an answer to a key. Never raises.

    Args:
        services: the parts to work with.
        key: whose budgets it takes from.
        usage: by the upstream's count; None where it gave none.
        count: counts what the upstream was sent, in tokens; asked only where there is no usage. None: it did nothing.
        model: as the client names it.
        target: the upstream that served it, whose name for the model is priced; None where that is not known.
    """
    try:
        if usage is None:
            usage = Usage(input_tokens=await count() if count is not None else 0)
        name = target.name_of(model) if target is not None else model
        price = services.prices.find(name, is_local=target is not None and target.is_local)
        dollars = price.cost(usage) if price is not None else 0.0
        if tokens := usage.num_prompt + usage.output_tokens:
            await services.access.spend(key, tokens=tokens, dollars=dollars)
    except Exception as error:  # a count is never worth a request
        logger.error(fields("charging_failed", key=key.id, error=where(error)))


async def count_sent(counter: TokenCounter, wire: Wire, body: Body, messages: Sequence[bytes]) -> int:
    """Count the tokens of a request: its messages, or its prompt where that is a text, texts, or tokens already.

    Args:
        counter: counts.
        wire: its format.
        body: the request.
        messages: those that it was forwarded with.
    """
    if messages and wire.dialect is not None:
        return (await counter.count(body.model, wire.dialect, messages))[0]
    texts, num_ids = _read_prompt(body.field(wire.shape.list_field or "prompt"))
    return num_ids + await counter.count_texts(body.model, texts)


async def name_and_count(services: Services, body: bytes, headers: Sequence[Header]) -> tuple[str | None, Count]:
    """The model of a body that is not understood otherwise, and what counts the tokens of its text.

    The model is empty where the body names none, and None where that cannot be told. What cannot be unpacked counts a
    token a byte: text becomes about a fourth by packing, and a token is four bytes.

    Args:
        services: the parts to work with.
        body: as it was forwarded.
        headers: of its request; its `content-encoding` is that of the body.
    """
    try:
        encoding = find(headers, b"content-encoding") or ""
        plain = await unpack_aside(body, encoding, services.settings.max_body_bytes)
    except (UnreadableBodyError, BodyTooLargeError):
        num_bytes = len(body)

        async def guess() -> int:
            return num_bytes

        return None, guess
    model = model_of(plain)

    async def count() -> int:
        return await services.counter.count_texts(model, [plain.decode("utf-8", "replace")])

    return model, count


def _read_prompt(data: bytes) -> tuple[list[str], int]:
    """The texts of a prompt, and the number of tokens that stand in it as such."""
    try:
        prompt = decode_whole(msgspec.json.decode, data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [data.decode("utf-8", "replace")], 0
    parts = prompt if isinstance(prompt, list) else [prompt]
    flat = [item for part in parts for item in (part if isinstance(part, list) else [part])]
    return [item for item in flat if isinstance(item, str)], sum(isinstance(item, int) for item in flat)
