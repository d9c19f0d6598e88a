"""The routes of what is content: the last request of a conversation, and the pins that are set while reading it.

A request may be tens of megabytes: it is unpacked and laid out in a thread, so that nobody's answer waits for it.
"""

from __future__ import annotations

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from sluice.compressor import Dialect
from sluice.proxy.dashboard.kept import KeptRequest, Summary, unpack
from sluice.proxy.dashboard.layout import lay_out, pin_of
from sluice.proxy.dashboard.pages import json_answer
from sluice.proxy.dashboard.viewer import require_key, viewer_of
from sluice.proxy.errors import ContentNotKeptError, InvalidFieldError, InvalidJsonError
from sluice.proxy.receive import ClientGoneError, read_body
from sluice.proxy.services import Services
from sluice.proxy.wire.wires import WIRES

_MAX_BODY_BYTES = 10_000


class _PinAsked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a pin."""

    message: int
    """Index of the message in the request."""
    text: int
    """Index of the text in the message."""
    start: int
    stop: int
    pinned: bool = True
    """False takes back what was pinned of these lines."""


async def kept_request(request: Request) -> Response:
    """The last request of a conversation, the original beside what was forwarded.

    Raises:
        MissingKeyError: no key was shown.
        ContentNotKeptError: nothing is kept, or it is not for this key.
    """
    services: Services = request.app.state.services
    name: str = request.path_params["conversation_id"]
    summary, kept = await _kept(request, name)
    pins = await services.compressor.pins(bytes.fromhex(name))

    def shown() -> Response:
        messages = lay_out(kept, _dialect_of(kept), pins)
        return json_answer({"at_s": summary.at_s, "wire": kept.wire, "messages": messages})

    return await asyncio.to_thread(shown)


async def pin(request: Request) -> Response:
    """Have lines of a tool result kept from now on, or no longer: `{message, text, start, stop, pinned?=true}`.

    Raises:
        MissingKeyError: no key was shown.
        ContentNotKeptError: nothing is kept, or it is not for this key.
        InvalidJsonError: the body is no JSON.
        InvalidFieldError: it is not of this form, or there are no such lines.
        TooManyPinsError: the pins of the conversation may be changed no more.
        StateError: the state store does not answer.
    """
    services: Services = request.app.state.services
    name: str = request.path_params["conversation_id"]
    _, kept = await _kept(request, name)
    try:
        body = await read_body(request.receive, request.headers.get("content-length"), _MAX_BODY_BYTES)
        asked = msgspec.json.decode(body, type=_PinAsked)
    except ClientGoneError:
        return Response(status_code=499)  # reaches nobody
    except msgspec.ValidationError as error:
        raise InvalidFieldError(f"bad pin: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJsonError(f"the body is no JSON: {error}") from None
    place = asked.message, asked.text, asked.start, asked.stop
    wanted = await asyncio.to_thread(pin_of, kept, _dialect_of(kept), *place, is_set=asked.pinned)
    if wanted is None:
        raise InvalidFieldError(
            f"there are no lines {asked.start} to {asked.stop} in text {asked.text} of message {asked.message} "
            "that a tool gave"
        )
    await services.compressor.pin(bytes.fromhex(name), wanted)
    return json_answer({"start": wanted.start, "stop": wanted.stop, "pinned": wanted.is_set})


async def _kept(request: Request, name: str) -> tuple[Summary, KeptRequest]:
    services: Services = request.app.state.services
    viewer = await viewer_of(request)
    require_key(viewer)
    await services.watch.flush()
    found = await services.watch.store.request(name)
    if found is None or not viewer.may_read(found[0].tenant):
        raise ContentNotKeptError(name, is_on=services.settings.store_content)
    kept = await asyncio.to_thread(unpack, found[1])
    if kept is None:
        raise ContentNotKeptError(name, is_on=True)
    return found[0], kept


def _dialect_of(kept: KeptRequest) -> Dialect:
    dialect = WIRES[kept.wire].dialect
    assert dialect is not None, "only what a dialect reads is kept"
    return dialect
