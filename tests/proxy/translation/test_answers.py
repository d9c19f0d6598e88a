"""What is emitted: each event as it comes, in the order of its format, and what is whole."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sluice.proxy.errors import UpstreamDisconnectedError, UpstreamError
from sluice.proxy.translation import Translation
from sluice.proxy.translation.deltas import CallArguments, CallBegin, End, Stop
from sluice.proxy.translation.sequence import Sequencer
from sluice.proxy.upstreams.types import Answer
from sluice.proxy.wire import WireName
from tests.proxy.translation.wires import EVENTS, FakeAnswer, Said, answering, chat_events, chunk, events_of, sse


def call_chunk(index: int, arguments: str, **begin: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": begin.pop("name")} if begin else {})}
    return chunk({"tool_calls": [{"index": index, "function": function, **begin}]})


async def aiter_of(answer: Answer) -> AsyncIterator[bytes]:
    while data := await answer.read():
        yield data


async def test_each_event_goes_out_as_soon_as_its_cause_came_in() -> None:
    pieces = [sse(chunk({"content": word})) for word in ("one", "two")]
    answer = FakeAnswer([*pieces, sse(chunk({}, "stop"), done=True)], content_type=b"text/event-stream")
    translated = Translation().answer(WireName.MESSAGES, WireName.CHAT, answer, stream=True, request=b"{}")
    assert b"one" in await translated.read()
    assert b"two" in await translated.read()
    last = await translated.read()
    assert b"content_block_stop" in last
    assert b"message_stop" in last
    assert await translated.read() == b""
    translated.close()
    assert answer.is_closed


async def test_comments_that_keep_the_connection_alive_go_on() -> None:
    pieces = [b": PROCESSING\n\n", b"data:\n\n", chat_events(Said("hi"), 99)]
    answer = FakeAnswer(pieces, content_type=b"text/event-stream")
    translated = Translation().answer(WireName.MESSAGES, WireName.CHAT, answer, stream=True, request=b"{}")
    assert await translated.read() == b": PROCESSING\n\n"
    rest = b"".join([data async for data in aiter_of(translated)])
    assert rest.startswith(b"event: message_start")
    assert b"message_stop" in rest


async def test_while_a_model_thinks_out_of_sight_the_client_hears_something(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [sse(chunk({"role": "assistant"})), sse(chunk({"reasoning_content": "hm"})), chat_events(Said("hi"), 99)]

    async def reads() -> list[bytes]:
        answer = FakeAnswer(pieces, content_type=b"text/event-stream")
        translated = Translation().answer(WireName.MESSAGES, WireName.CHAT, answer, stream=True, request=b"{}")
        return [data async for data in aiter_of(translated)]

    assert b":\n\n" not in await reads()
    monkeypatch.setattr("sluice.proxy.translation.answer._QUIET_S", 0.0)
    begun, quiet, *_, last = await reads()
    assert b"message_start" in begun
    assert quiet == b":\n\n"
    assert b"message_stop" in last


async def test_events_come_in_anthropics_order() -> None:
    events = await events_of(WireName.MESSAGES, WireName.CHAT, chat_events(Said("hi", [("c", "f", {"a": 1})]), 99))
    assert [event["type"] for event in events] == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_stop") * 2,
        "message_delta",
        "message_stop",
    ]
    assert [event["index"] for event in events if "index" in event] == [0, 0, 0, 1, 1, 1]


async def test_events_come_in_openais_order() -> None:
    events = await events_of(WireName.RESPONSES, WireName.CHAT, chat_events(Said("hi", [("c", "f", {"a": 1})]), 99))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize("source", [WireName.MESSAGES, WireName.RESPONSES])
async def test_calls_whose_pieces_come_interleaved_go_out_one_after_the_other(source: WireName) -> None:
    stream = sse(
        call_chunk(0, '{"a"', id="x", name="f"),
        call_chunk(1, '{"b": 1', id="y", name="g"),
        call_chunk(0, ": 0}"),
        call_chunk(1, "}"),
        chunk({}, "tool_calls"),
        done=True,
    )
    events = await events_of(source, WireName.CHAT, stream)
    if source is WireName.MESSAGES:
        pieces: dict[int, str] = {}
        for event in events:
            if event["type"] == "content_block_delta":
                index = event["index"]
                pieces[index] = pieces.get(index, "") + event["delta"]["partial_json"]
        written = list(pieces.values())
        order = [event["index"] for event in events if "index" in event]
        assert order == sorted(order)
    else:
        written = [event["arguments"] for event in events if event["type"].endswith("arguments.done")]
    assert [json.loads(text) for text in written] == [{"a": 0}, {"b": 1}]


async def test_calls_that_a_server_puts_all_at_one_place_are_told_apart_by_their_ids() -> None:
    stream = sse(
        call_chunk(0, '{"a": 1}', id="x", name="f"), call_chunk(0, '{"b": 2}', id="y", name="g"), chunk({}, "stop")
    )
    events = await events_of(WireName.MESSAGES, WireName.CHAT, stream)
    blocks = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [(block["id"], block["name"]) for block in blocks] == [("x", "f"), ("y", "g")]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_custom_and_namespaced_calls_come_back_as_codex_knows_them() -> None:
    tools = [
        {"type": "custom", "name": "apply_patch"},
        {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "spawn"}]},
        {"type": "local_shell"},
    ]
    said = Said(
        "",
        [
            ("1", "apply_patch", {"input": "*** Begin\n"}),
            ("2", "agents__spawn", {"task": "t"}),
            ("3", "local_shell", {"command": ["ls"]}),
        ],
    )
    request = {"model": "m", "tools": tools}
    events = await events_of(WireName.RESPONSES, WireName.CHAT, chat_events(said), request=request)
    custom, function, shell = (event["item"] for event in events if event["type"] == "response.output_item.done")
    assert (custom["type"], custom["name"], custom["input"]) == ("custom_tool_call", "apply_patch", "*** Begin\n")
    assert (function["name"], function["namespace"], function["arguments"]) == ("spawn", "agents", '{"task": "t"}')
    assert (shell["type"], shell["action"]["command"]) == ("local_shell_call", ["ls"])


async def test_a_call_of_a_tool_that_stood_among_the_items_comes_back_as_that_tools() -> None:
    told = {"type": "namespace", "name": "functions", "tools": [{"type": "custom", "name": "exec"}]}
    request = {"model": "m", "input": [{"type": "additional_tools", "role": "developer", "tools": [told]}]}
    said = Said("", [("1", "functions__exec", {"input": "text(1)"})])
    events = await events_of(WireName.RESPONSES, WireName.CHAT, chat_events(said), request=request)
    (item,) = (event["item"] for event in events if event["type"] == "response.output_item.done")
    assert (item["type"], item["namespace"], item["name"]) == ("custom_tool_call", "functions", "exec")
    assert item["input"] == "text(1)"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_of_a_tool_whose_name_was_shortened_comes_back_under_its_own(stream: bool) -> None:
    names = ["mcp__" + "long_" * 20 + tail for tail in ("one", "two")]
    request = {"model": "m", "tools": [{"name": name, "input_schema": {}} for name in (*names, "Read")]}
    asked = json.loads(Translation().request(WireName.MESSAGES, WireName.CHAT, json.dumps(request).encode()))
    sent = [tool["function"]["name"] for tool in asked["tools"]]
    said = Said("", [(str(number), name, {}) for number, name in enumerate(sent)])
    body = json.dumps(request).encode()
    answer = Translation().answer(
        WireName.MESSAGES, WireName.CHAT, answering(said, WireName.CHAT)(stream), stream=stream, request=body
    )
    out = b"".join([data async for data in aiter_of(answer)])
    assert [name for name in names if out.count(b'"' + name.encode() + b'"') == 1] == names
    assert sent[0].encode() not in out.replace(names[0].encode(), b"")


@pytest.mark.parametrize(
    ("reason", "anthropics", "status"),
    [
        ("length", "max_tokens", "incomplete"),
        ("content_filter", "refusal", "incomplete"),
        ("stop", "end_turn", "completed"),
    ],
)
async def test_why_the_model_stopped_is_said_in_the_clients_words(reason: str, anthropics: str, status: str) -> None:
    stream = sse(chunk({"content": "x"}), chunk({}, reason), done=True)
    assert (await events_of(WireName.MESSAGES, WireName.CHAT, stream))[-2]["delta"]["stop_reason"] == anthropics
    assert (await events_of(WireName.RESPONSES, WireName.CHAT, stream))[-1]["response"]["status"] == status


class Breaking(FakeAnswer):
    """Breaks off, or falls silent, after its pieces."""

    falls_silent = False

    async def read(self) -> bytes:
        if data := await super().read():
            return data
        if self.falls_silent:
            await asyncio.sleep(60)
        raise UpstreamDisconnectedError("gone")


@pytest.mark.parametrize("falls_silent", [False, True])
@pytest.mark.parametrize(
    ("source", "target", "last"),
    [
        (WireName.MESSAGES, WireName.CHAT, b"message_stop"),
        (WireName.RESPONSES, WireName.CHAT, b"response.completed"),
        (WireName.CHAT, WireName.MESSAGES, b"[DONE]"),
    ],
)
async def test_an_answer_that_is_whole_stays_so_whatever_its_connection_does(
    source: WireName, target: WireName, last: bytes, falls_silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.proxy.translation.answer._END_WAIT_S", 0.01)
    answer = Breaking([EVENTS[target](Said("hi"))], content_type=b"text/event-stream")
    answer.falls_silent = falls_silent
    translated = Translation().answer(source, target, answer, stream=True, request=b"{}")
    out = [data async for data in aiter_of(translated)]
    assert last in out[0], "it is whole as soon as its last event is there"
    assert b"".join(out).count(last) == out[0].count(last)


async def test_an_answer_that_breaks_off_after_its_last_words_is_whole() -> None:
    """Some servers send neither usage nor a mark behind the reason for which the model stopped."""
    answer = Breaking([sse(chunk({"content": "hi"}), chunk({}, "stop"))], content_type=b"text/event-stream")
    translated = Translation().answer(WireName.MESSAGES, WireName.CHAT, answer, stream=True, request=b"{}")
    assert b"message_stop" in b"".join([data async for data in aiter_of(translated)])
    answer = Breaking([sse(chunk({"content": "hi"}))], content_type=b"text/event-stream")
    translated = Translation().answer(WireName.MESSAGES, WireName.CHAT, answer, stream=True, request=b"{}")
    with pytest.raises(UpstreamDisconnectedError):
        _ = [data async for data in aiter_of(translated)]


@pytest.mark.parametrize("pieces", [["", "read"], [None, None, "read"]])
async def test_a_name_that_comes_behind_its_calls_id_is_awaited(pieces: list[str | None]) -> None:
    begun = {"index": 0, "id": "c", "type": "function", "function": {"name": pieces[0], "arguments": '{"a"'}}
    deltas = [{"tool_calls": [begun]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"name": piece, "arguments": ""}}]} for piece in pieces[1:]]
    deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]})
    stream = sse(*map(chunk, deltas), chunk({}, "tool_calls"), done=True)
    events = await events_of(WireName.MESSAGES, WireName.CHAT, stream)
    blocks = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [(block["id"], block["name"]) for block in blocks] == [("c", "read")]
    said = "".join(event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta")
    assert json.loads(said) == {"a": 1}


async def test_a_call_that_is_never_named_is_not_lost() -> None:
    begun = {"index": 0, "id": "c", "type": "function", "function": {"arguments": "{}"}}
    stream = sse(chunk({"tool_calls": [begun]}), chunk({}, "tool_calls"), done=True)
    events = await events_of(WireName.MESSAGES, WireName.CHAT, stream)
    blocks = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [(block["id"], block["name"]) for block in blocks] == [("c", "")]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_call_that_waits_long_for_its_turn_goes_out_at_once() -> None:
    """Each of its pieces is looked at a few times, however many there are."""
    num_compared = 0

    class Piece(str):
        def __eq__(self, other: object) -> bool:
            nonlocal num_compared
            num_compared += 1
            return super().__eq__(other)

        __hash__ = str.__hash__

    sequencer = Sequencer()
    pieces = [CallArguments(1, Piece(f"{number} ")) for number in range(300)]
    for delta in (CallBegin(0, "a", "f"), CallBegin(1, "b", "g"), *pieces):
        sequencer.push(delta)
    ready = sequencer.push(End(Stop.CALLS))
    assert [delta.text for delta in ready if isinstance(delta, CallArguments)] == [piece.text for piece in pieces]
    assert num_compared <= 10 * len(pieces)


async def test_what_comes_whole_though_a_stream_was_asked_for_goes_out_as_events() -> None:
    answer = answering(Said("hi"), WireName.CHAT)(False)
    translated = Translation().answer(WireName.MESSAGES, WireName.CHAT, answer, stream=True, request=b"{}")
    stream = await translated.read()
    assert stream.count(b"event: ") == 6
    assert (b"content-type", b"text/event-stream; charset=utf-8") in translated.headers


async def test_an_answer_that_is_compressed_unasked_is_read_or_called_unreadable() -> None:
    for encoding, data in ((b"gzip", gzip.compress(chat_events(Said("hi")))), (b"br", b"?")):
        answer = FakeAnswer([data[:9], data[9:]], content_type=b"text/event-stream")
        answer.headers = [*answer.headers, (b"Content-Encoding", encoding)]
        translated = Translation().answer(WireName.MESSAGES, WireName.CHAT, answer, stream=True, request=b"{}")
        assert b"content-encoding" not in dict(translated.headers)
        if encoding == b"br":
            with pytest.raises(UpstreamError, match="'br'"):
                await translated.read()
        else:
            assert b"message_start" in await translated.read()
