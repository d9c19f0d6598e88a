from __future__ import annotations

import json
import socket

import pytest

from sluice.compressor import OPENAI_CHAT
from sluice.proxy.tokens import TokenCounter, encoding_name, load_encoding, texts_of


def message(content: object, **more: object) -> bytes:
    return json.dumps({"role": "user", "content": content, **more}).encode()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("openai/gpt-4-turbo", "cl100k_base"),
        ("gpt-oss-120b", "o200k_harmony"),
        ("claude-sonnet", "o200k_base"),
        ("davinci", "o200k_base"),
        ("", "o200k_base"),
    ],
)
def test_each_model_has_its_encoding(model: str, name: str) -> None:
    assert encoding_name(model) == name


def test_encodings_come_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_encoding.cache_clear()
    # Known answers, from OpenAI's cookbook.
    assert load_encoding("cl100k_base").encode("tiktoken is great!") == [83, 1609, 5963, 374, 2294, 0]
    assert load_encoding("o200k_base").encode("hello world") == [24912, 2375]
    assert load_encoding("o200k_harmony").n_vocab == 201088


async def test_counts_add_up_and_grow_with_the_text() -> None:
    counter = TokenCounter()
    hello = len(load_encoding("o200k_base").encode("hello world"))
    one, two, none = await counter.count(
        "gpt-4o", OPENAI_CHAT, [message("hello world")], [message("hello world")] * 2, []
    )
    assert (one, two, none) == (hello + 4, 2 * one, 0)
    counter.close()


async def test_a_message_that_was_counted_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = TokenCounter()
    before = await counter.count("gpt-4o", OPENAI_CHAT, [message("one"), message("two")])
    monkeypatch.setattr("sluice.proxy.tokens.texts_of", lambda raw, _: [raw.decode()] if b"three" in raw else 1 / 0)
    after = await counter.count("gpt-4o", OPENAI_CHAT, [message("one"), message("two"), message("three")])
    assert after[0] > before[0]
    with pytest.raises(ZeroDivisionError):
        await counter.count("gpt-4", OPENAI_CHAT, [message("one")])  # another encoding counts for itself
    counter.close()


def test_what_the_model_reads_is_counted() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "Read", "arguments": '{"x": 1}'}}
    assert texts_of(message("text"), OPENAI_CHAT) == ["text"]
    assert texts_of(message(None, tool_calls=[call]), OPENAI_CHAT) == ["Read", '{"x": 1}']
    assert texts_of(message([{"type": "text", "text": "a"}, {"type": "image_url"}]), OPENAI_CHAT) == ["a"]
    assert texts_of(b'{"content": 7}', OPENAI_CHAT) == ['{"content": 7}']


@pytest.mark.parametrize("text", [" " * 1_500_000, "a" * 300_000, "\ud83d lone", "<|endoftext|>", "\x00" * 1000])
async def test_texts_that_break_encoders_are_counted(text: str) -> None:
    counter = TokenCounter()
    (count,) = await counter.count("gpt-4o", OPENAI_CHAT, [message(text)])
    assert count > 4
    counter.close()
