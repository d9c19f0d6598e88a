"""A kept request laid out for reading: each text as its parts, the original beside what was forwarded.

Plain functions; nothing here is decided anew. Where the forwarded text is not made of kept lines and markers (another
version wrote it), both are shown whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sluice.compressor import Dialect, Pin
from sluice.compressor.ledger import Omitted, recall_id
from sluice.compressor.lines import split
from sluice.compressor.pins import pinned_lines
from sluice.compressor.provenance import Origins, Provenance
from sluice.compressor.turn import parse
from sluice.proxy.dashboard.kept import KeptMessage, KeptRequest

Part = dict[str, Any]


def lay_out(request: KeptRequest, dialect: Dialect, pins: Sequence[Pin]) -> list[dict[str, Any]]:
    """The messages of a request.

    Args:
        request: as it is kept.
        dialect: of its messages.
        pins: of the conversation.

    Returns:
        For each message `{index, position, role, calls: [{name, arguments}], texts: [{index, kind, tool, path,
        command, num_lines, num_pinned, num_chars_in, num_chars_out, parts}]}`. `position` is the number that markers
        name it by, the same for all pieces of one reply, None for leading system messages. A part is one of
        `{type: kept, text, start, stop}`,
        `{type: dropped, text, start, stop, reason, score, marker, is_pinned}`,
        `{type: added, text}` (forwarded and not in the original), or
        `{type: replaced, text, forwarded}`. Lines count from 0; `stop` is the line after the last.
    """
    origins = Origins()
    laid_out: list[dict[str, Any]] = []
    position: int | None = None
    for index, kept in enumerate(request.messages):
        message = parse(kept.raw, dialect)
        if index == request.num_leading:
            position = 1
        elif position is not None and not (message.role == laid_out[-1]["role"] == "assistant"):
            position += 1
        segments = {segment.index: segment.provenance for segment in origins.segments(message)}
        origins.add(message)
        forwarded = parse(kept.forwarded, dialect).texts if kept.forwarded is not None else message.texts
        texts = []
        for number, text in enumerate(message.texts):
            went = forwarded[number].text if number < len(forwarded) else text.text
            pinned = pinned_lines(pins, recall_id(message.identity, number)) if number in segments else set()
            parts = list(_parts(text.text, went, _omitted_of(kept, number), pinned))
            about = _about(segments.get(number), message.role)
            sizes = _sizes(text.text, went)
            texts.append({"index": number, **about, **sizes, "num_pinned": len(pinned), "parts": parts})
        laid_out.append(
            {
                "index": index,
                "position": position,
                "role": message.role,
                "calls": [{"name": call.name, "arguments": call.arguments} for call in message.calls],
                "texts": texts,
            }
        )
    return laid_out


def pin_of(
    request: KeptRequest, dialect: Dialect, index: int, text_index: int, start: int, stop: int, *, is_set: bool = True
) -> Pin | None:
    """The pin of some lines; None where there are no such lines, or they are no tool result's.

    Args:
        request: as it is kept.
        dialect: of its messages.
        index: of the message.
        text_index: of the text in the message.
        start: first line, from 0.
        stop: line after the last.
        is_set: whether they are to be kept, or no longer.
    """
    if not 0 <= index < len(request.messages):
        return None
    origins = Origins()
    message, segments = None, []
    for kept in request.messages[: index + 1]:
        message = parse(kept.raw, dialect)
        segments = origins.segments(message)
        origins.add(message)
    assert message is not None
    found = next((segment for segment in segments if segment.index == text_index), None)
    if found is None or not 0 <= start < stop <= len(split(found.text)):
        return None
    return Pin(recall_id(message.identity, text_index), start, stop, is_set)


def _omitted_of(kept: KeptMessage, text_index: int) -> list[Omitted]:
    of_text = [omitted for omitted in kept.omitted if omitted.text_index == text_index]
    return sorted(of_text, key=lambda omitted: omitted.start)


def _about(provenance: Provenance | None, role: str) -> dict[str, Any]:
    if provenance is None:
        return {"kind": role, "tool": "", "path": None, "command": None}
    return {
        "kind": provenance.kind,
        "tool": provenance.tool,
        "path": provenance.path,
        "command": provenance.command,
    }


def _sizes(came: str, went: str) -> dict[str, int]:
    return {"num_lines": len(split(came)), "num_chars_in": len(came), "num_chars_out": len(went)}


def _parts(came: str, went: str, omitted: Sequence[Omitted], pinned: set[int]) -> Iterator[Part]:
    lines = split(came).texts
    out = went.split("\n")
    if not omitted:
        if went == came:
            yield {"type": "kept", "text": came, "start": 0, "stop": len(lines)}
        elif went.startswith(came):
            yield {"type": "kept", "text": came, "start": 0, "stop": len(lines)}
            yield {"type": "added", "text": went[len(came) :].lstrip("\n")}
        else:
            yield {"type": "replaced", "text": came, "forwarded": went}
        return
    parts: list[Part] = []
    done = at = 0
    for span in omitted:
        if span.start > done:
            parts.append(_kept(lines, done, span.start))
            at += span.start - done
        parts.append(
            {
                "type": "dropped",
                "text": "\n".join(lines[span.start : span.stop]),
                "start": span.start,
                "stop": span.stop,
                "reason": span.reason,
                "score": span.score,
                "marker": out[at] if at < len(out) else "",
                "is_pinned": all(index in pinned for index in range(span.start, span.stop)),
            }
        )
        at, done = at + 1, span.stop
    if done < len(lines):
        parts.append(_kept(lines, done, len(lines)))
        at += len(lines) - done
    if "\n".join(_forwarded(parts)) != "\n".join(out[:at]):
        yield {"type": "replaced", "text": came, "forwarded": went}
        return
    yield from parts
    if added := "\n".join(out[at:]).strip("\n"):
        yield {"type": "added", "text": added}


def _kept(lines: Sequence[str], start: int, stop: int) -> Part:
    return {"type": "kept", "text": "\n".join(lines[start:stop]), "start": start, "stop": stop}


def _forwarded(parts: Sequence[Part]) -> list[str]:
    return [part["marker"] if part["type"] == "dropped" else part["text"] for part in parts]
