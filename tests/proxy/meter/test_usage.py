from __future__ import annotations

import gzip
import itertools
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.meter.reader import MAX_HELD_BYTES, UsageReader, readable, reader_for
from sluice.proxy.meter.usage import Usage, usage_of
from sluice.proxy.wire.types import WireName
from tests.effort import examples

CHAT, COMPLETIONS, RESPONSES, MESSAGES = WireName.CHAT, WireName.COMPLETIONS, WireName.RESPONSES, WireName.MESSAGES


def read(wire: WireName, body: bytes, *, stream: bool = False, cuts: tuple[int, ...] = ()) -> Usage | None:
    """What a reader finds in a body that comes cut at these places."""
    reader = UsageReader(wire, stream)
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        reader.feed(body[start:end])
    return reader.usage()


def sse(*events: Any, end: bytes = b"\n\n", named: bool = False) -> bytes:
    line = end[: len(end) // 2]
    parts = []
    for event in events:
        name = b"event: " + event["type"].encode() + line if named else b""
        parts.append(name + b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + end)
    return b"".join(parts)


@pytest.mark.parametrize(
    ("wire", "fields", "expected"),
    [
        pytest.param(
            CHAT,
            {
                "prompt_tokens": 2006,
                "completion_tokens": 300,
                "total_tokens": 2306,
                "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 200},
            },
            Usage(input_tokens=86, cache_read=1920, output_tokens=300, reasoning=200),
            id="openai",
        ),
        pytest.param(
            RESPONSES,
            {
                "input_tokens": 1000,
                "input_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
                "output_tokens": 5,
                "output_tokens_details": {"reasoning_tokens": 0},
            },
            Usage(input_tokens=100, cache_read=600, cache_write_5m=300, output_tokens=5),
            id="openai-writes",
        ),
        pytest.param(
            CHAT,
            {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "prompt_tokens_details": None},
            Usage(input_tokens=10, output_tokens=2),
            id="vllm",
        ),
        pytest.param(
            CHAT,
            {
                "prompt_tokens": 100,
                "completion_tokens": 7,
                "prompt_cache_hit_tokens": 64,
                "prompt_cache_miss_tokens": 36,
            },
            Usage(input_tokens=36, cache_read=64, output_tokens=7),
            id="deepseek",
        ),
        pytest.param(
            CHAT,
            {"prompt_tokens": 100, "completion_tokens": 7, "cached_tokens": 40},
            Usage(input_tokens=60, cache_read=40, output_tokens=7),
            id="moonshot",
        ),
        pytest.param(
            CHAT,
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 150,
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            Usage(input_tokens=100, output_tokens=50, reasoning=40),
            id="gemini-leaves-reasoning-out",
        ),
        pytest.param(
            MESSAGES,
            {
                "input_tokens": 12,
                "cache_creation_input_tokens": 300,
                "cache_read_input_tokens": 5000,
                "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
                "output_tokens": 9,
            },
            Usage(input_tokens=12, cache_write_5m=100, cache_write_1h=200, cache_read=5000, output_tokens=9),
            id="anthropic",
        ),
        pytest.param(
            MESSAGES,
            {"input_tokens": 12, "cache_creation_input_tokens": 300, "output_tokens": 9},
            Usage(input_tokens=12, cache_write_5m=300, output_tokens=9),
            id="anthropic-without-lifetimes",
        ),
        pytest.param(
            MESSAGES,
            {
                "input_tokens": 10,
                "output_tokens": 20,
                "iterations": [
                    {"type": "compaction", "input_tokens": 1000, "output_tokens": 50},
                    {"type": "message", "input_tokens": 10, "output_tokens": 20},
                ],
            },
            Usage(input_tokens=1010, output_tokens=70),
            id="anthropic-compaction",
        ),
        pytest.param(CHAT, {"prompt_tokens": "many", "completion_tokens": True}, None, id="no-counts"),
        pytest.param(CHAT, {}, None, id="empty"),
    ],
)
def test_what_each_provider_means_is_brought_to_one_form(wire: WireName, fields: Any, expected: Usage | None) -> None:
    assert usage_of(wire, fields) == expected


ANSWERS = {
    "chat": (
        CHAT,
        False,
        json.dumps(
            {
                "choices": [{"message": {"content": 'the "usage" of a \n\n word', "tool_calls": None}}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 3},
            }
        ).encode(),
        Usage(input_tokens=9, output_tokens=3),
    ),
    "chat-stream": (
        CHAT,
        True,
        sse(
            {"choices": [{"delta": {"content": 'say "usage" ü'}}], "usage": None},
            {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}},
            b"[DONE]",
        ),
        Usage(input_tokens=9, output_tokens=3),
    ),
    "cumulative-stream": (
        CHAT,
        True,
        sse(*({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": number}} for number in range(4))),
        Usage(input_tokens=9, output_tokens=3),
    ),
    "crlf-stream": (
        COMPLETIONS,
        True,
        sse({"choices": [{"text": "a"}]}, {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, end=b"\r\n\r\n"),
        Usage(input_tokens=1, output_tokens=2),
    ),
    "responses-stream": (
        RESPONSES,
        True,
        sse(
            {"type": "response.created", "response": {"id": "r", "usage": None}},
            {"type": "response.output_text.delta", "delta": '"usage": {"input_tokens": 77}'},
            {"type": "response.completed", "response": {"usage": {"input_tokens": 50, "output_tokens": 4}}},
            named=True,
        ),
        Usage(input_tokens=50, output_tokens=4),
    ),
    "messages-stream": (
        MESSAGES,
        True,
        sse(
            {
                "type": "message_start",
                "message": {
                    "id": "m",
                    "usage": {
                        "input_tokens": 4,
                        "cache_read_input_tokens": 800,
                        "cache_creation_input_tokens": 60,
                        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 60},
                        "output_tokens": 1,
                    },
                },
            },
            {"type": "ping"},
            {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"usage": 1}'}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 31}},
            {"type": "message_stop"},
            named=True,
        ),
        Usage(input_tokens=4, cache_write_1h=60, cache_read=800, output_tokens=31),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
@given(cuts=st.lists(st.integers(0, 5000), max_size=40).map(tuple))
@examples(40)
def test_any_chunking_gives_the_same_usage(name: str, cuts: tuple[int, ...]) -> None:
    wire, stream, body, expected = ANSWERS[name]
    assert read(wire, body, stream=stream, cuts=cuts) == expected


@pytest.mark.parametrize("name", ANSWERS)
def test_one_byte_at_a_time(name: str) -> None:
    wire, stream, body, expected = ANSWERS[name]
    assert read(wire, body, stream=stream, cuts=tuple(range(len(body)))) == expected


@given(
    wire=st.sampled_from(WireName),
    stream=st.booleans(),
    encoding=st.sampled_from([None, "gzip", "br"]),
    chunks=st.lists(
        st.one_of(
            st.binary(max_size=50), st.sampled_from([b'data: {"usage":', b'"usage"', b"{}", b"\n\n", b'{"a":[1'])
        ),
        max_size=12,
    ),
)
@examples(200)
def test_no_bytes_make_it_raise(wire: WireName, stream: bool, encoding: str | None, chunks: list[bytes]) -> None:
    reader = UsageReader(wire, stream, encoding)
    for chunk in chunks:
        reader.feed(chunk)
    usage = reader.usage()
    assert usage is None or usage.num_prompt >= 0


def test_a_usage_that_the_model_wrote_is_not_counted() -> None:
    tool = {"type": "tool_use", "input": {"usage": {"input_tokens": 99, "output_tokens": 99}}}
    body = json.dumps({"content": [tool], "usage": {"input_tokens": 5, "output_tokens": 6}}).encode()
    assert read(MESSAGES, body) == Usage(input_tokens=5, output_tokens=6)


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_too_long_goes_unmetered_in_bounded_memory(stream: bool) -> None:
    reader = UsageReader(CHAT, stream)
    for _ in range(3 * MAX_HELD_BYTES // 65536):
        reader.feed(b"x" * 65536)
        assert len(reader._held) <= MAX_HELD_BYTES + 65536
    assert reader.usage() is None
    # In a stream the next event is read again.
    reader.feed(b"\n\n" + sse({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}))
    assert reader.usage() == (Usage(input_tokens=1, output_tokens=2) if stream else None)


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_answers_are_read(name: str, pack: Any) -> None:
    wire, _, body, expected = ANSWERS["chat"]
    reader = reader_for(wire, [(b"Content-Type", b"application/json"), (b"Content-Encoding", name.encode())])
    packed = pack(body)
    for start in range(0, len(packed), 7):
        reader.feed(packed[start : start + 7])
    assert reader.usage() == expected


def test_an_answer_that_unpacks_to_too_much_is_let_go() -> None:
    reader = UsageReader(CHAT, False, "gzip")
    reader.feed(gzip.compress(b" " * (8 * MAX_HELD_BYTES)))
    assert reader.usage() is None
    assert len(reader._held) <= MAX_HELD_BYTES


@pytest.mark.parametrize(
    ("accepted", "asked"),
    [
        (b"gzip, deflate, br, zstd", b"gzip, deflate"),
        (b"br;q=1.0, gzip;q=0.9, deflate;q=0.8", b"gzip, deflate"),
        (b"gzip;q=0, deflate; q=0.5, br", b"deflate"),
        (b"GZIP;q=0.000, br", b"GZIP;q=0.000, br"),
        (b"br", b"br"),
    ],
)
def test_of_the_encodings_that_a_client_takes_those_are_asked_for_that_can_be_read(
    accepted: bytes, asked: bytes
) -> None:
    other = (b"accept", b"*/*")
    assert readable([other, (b"accept-encoding", accepted)]) == [other, (b"accept-encoding", asked)]


@pytest.mark.parametrize("stream", [False, True])
def test_half_an_emoji_in_an_answer_leaves_it_metered(stream: bool) -> None:
    said = {"type": "response.completed", "response": {"output": "cut \ud83d off", "usage": {"input_tokens": 7}}}
    data = json.dumps(said if stream else said["response"]).encode()
    reader = UsageReader(WireName.RESPONSES, stream)
    reader.feed(b"data: " + data + b"\n\n" if stream else data)
    found = reader.usage()
    assert found is not None
    assert found.input_tokens == 7
