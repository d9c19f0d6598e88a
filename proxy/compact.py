"""`POST /v1/compact`: a text or messages, shortened once, by `compressor/compact.py`. No upstream is asked."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from sluice.compressor import ANTHROPIC_MESSAGES, OPENAI_CHAT, OPENAI_RESPONSES, Dialect, Mode
from sluice.compressor.compact import Compacted, Range, compact_messages, compact_text, shipped_scorer, whole
from sluice.compressor.scoring import Scorer
from sluice.compressor.turn import parse
from sluice.proxy.encoding import UnreadableBodyError, unpack
from sluice.proxy.errors import InvalidFieldError, InvalidJsonError
from sluice.proxy.headers import find
from sluice.proxy.prepare import mode_of
from sluice.proxy.receive import ClientGoneError, read_body
from sluice.proxy.services import Services

_RESULT_ITEMS = frozenset({"function_call_output", "custom_tool_call_output", "local_shell_call_output"})
_Json = dict[str, Any]


class CompactRequest(msgspec.Struct):
    """What may be asked."""

    input: str | list[_Json] | None = None
    """A text, or messages."""
    messages: list[_Json] | None = None
    """Messages of any of the wires."""
    query: str = ""
    """What they are wanted for."""
    compression_ratio: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Share of the tokens to keep; without it, what is not worth its tokens goes."""
    preserve_recent: Annotated[int, msgspec.Meta(ge=0)] = 2
    """So many of the newest messages stay whole."""
    include_markers: bool = True
    """Put a marker where lines were dropped."""
    model: str = ""
    """By whose tokenizer tokens are counted."""


_decoder = msgspec.json.Decoder(CompactRequest)


async def compact(request: Request) -> Response:
    """Serve one request.

    Raises:
        RequestError: the body is not as it should be.
    """
    services: Services = request.app.state.services
    headers = request.scope["headers"]
    mode = mode_of(headers, services.settings.mode)
    started_s = time.perf_counter()
    try:
        raw = await read_body(request.receive, find(headers, b"content-length"), services.settings.max_body_bytes)
    except ClientGoneError:
        return Response(status_code=499)
    encoding = find(headers, b"content-encoding") or ""
    asked = await asyncio.to_thread(_decode, raw, encoding, services.settings.max_body_bytes)
    content = asked.messages if asked.messages is not None else asked.input
    if content is None or (asked.messages is not None and asked.input is not None):
        raise InvalidFieldError("the body needs either 'input' or 'messages'", param="input")
    run = _run_text if isinstance(content, str) else _run_messages
    answer, before, after = await asyncio.to_thread(run, content, asked, mode)  # type: ignore[arg-type]  # told apart above
    num_in, num_out = await services.counter.count(asked.model, OPENAI_CHAT, before, after)
    answer = {
        "id": f"compact-{secrets.token_hex(8)}",
        "object": "compact",
        "model": asked.model,
        **answer,
        "usage": {
            "input_tokens": num_in,
            "output_tokens": num_out,
            "compression_ratio": round(num_out / num_in, 4) if num_in else 1.0,
            "processing_time_ms": round((time.perf_counter() - started_s) * 1000, 2),
        },
    }
    # The standard library escapes lone surrogates, which UTF-8 cannot hold.
    return Response(json.dumps(answer), media_type="application/json")


def _decode(raw: bytes, encoding: str, max_body_bytes: int) -> CompactRequest:
    try:
        return _decoder.decode(unpack(raw, encoding, max_body_bytes))
    except msgspec.ValidationError as error:
        path = str(error).rpartition("`$.")[2].rstrip("`") if "`$." in str(error) else None
        raise InvalidFieldError(f"bad value in the body: {error}", param=path) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJsonError(f"the body is no JSON: {error}") from None
    except UnreadableBodyError as error:
        raise InvalidFieldError(str(error), param="content-encoding") from None


def _run_text(text: str, asked: CompactRequest, mode: Mode) -> tuple[_Json, list[bytes], list[bytes]]:
    if mode is Mode.OFF:
        done = whole(text)
    else:
        done = compact_text(
            text,
            query=asked.query,
            ratio=asked.compression_ratio,
            include_markers=asked.include_markers,
            scorer=_scorer(mode),
        )
    answer = {"output": done.text, **_ranges(done)}
    return answer, _as_message(text), _as_message(done.text)


def _run_messages(messages: list[_Json], asked: CompactRequest, mode: Mode) -> tuple[_Json, list[bytes], list[bytes]]:
    dialect = _dialect_of(messages)
    raws = [json.dumps(message).encode() for message in messages]
    parsed = [parse(raw, dialect) for raw in raws]
    found: Sequence[Mapping[int, Compacted]] = [{} for _ in messages]
    if mode is not Mode.OFF:
        found = compact_messages(
            parsed,
            query=asked.query,
            ratio=asked.compression_ratio,
            preserve_recent=asked.preserve_recent,
            include_markers=asked.include_markers,
            scorer=_scorer(mode),
        )
    shortened: list[_Json] = []
    for raw, message, original, by_text in zip(raws, parsed, messages, found, strict=True):
        texts = {index: done.text for index, done in by_text.items()}
        rendered = json.loads(dialect.carry(raw, dialect.render(raw, texts))) if texts else original
        all_texts = {index: whole(text.text) for index, text in enumerate(message.texts)} | dict(by_text)
        ranges: _Json = {"compacted_line_ranges": [], "kept_line_ranges": []}
        for index, done in all_texts.items():
            for key, spans in _ranges(done).items():
                ranges[key] += [{**span, "text_index": index} if len(all_texts) > 1 else span for span in spans]
        shortened.append({**rendered, **ranges})
    before = [line for message in parsed for line in _as_message("".join(text.text for text in message.texts))]
    after = [
        line
        for message, by_text in zip(parsed, found, strict=True)
        for line in _as_message(
            "".join(by_text[i].text if i in by_text else t.text for i, t in enumerate(message.texts))
        )
    ]
    return {"messages": shortened}, before, after


def _dialect_of(messages: Sequence[_Json]) -> Dialect:
    """Tell the wire of messages by what only one of them has."""
    for message in messages:
        if message.get("type") in _RESULT_ITEMS or "call_id" in message:
            return OPENAI_RESPONSES
        content = message.get("content")
        if isinstance(content, list) and any(
            isinstance(block, dict) and block.get("type") in ("tool_use", "tool_result") for block in content
        ):
            return ANTHROPIC_MESSAGES
    return OPENAI_CHAT


def _ranges(done: Compacted) -> _Json:
    return {"compacted_line_ranges": _spans(done.compacted), "kept_line_ranges": _spans(done.kept)}


def _spans(ranges: Sequence[Range]) -> list[dict[str, int]]:
    return [{"start": first, "end": last} for first, last in ranges]


def _as_message(text: str) -> list[bytes]:
    return [json.dumps({"role": "user", "content": text}).encode()]


def _scorer(mode: Mode) -> Scorer | None:
    return None if mode is Mode.SAFE else shipped_scorer()
