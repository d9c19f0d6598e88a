from __future__ import annotations

import json

import pytest

from sluice.eval.message import argument_strings, encode, read_message
from tests.eval.builders import assistant, user


def test_tokens_are_characters_of_text_names_and_arguments_by_4_plus_4() -> None:
    assert read_message(encode(user("abcdefgh"))).num_tokens == 8 / 4 + 4
    message = assistant("abcd", '{"a": 12}')  # text 4, name `run` 3, arguments 9
    assert read_message(encode(message)).num_tokens == (4 + 3 + 9) / 4 + 4
    assert read_message(encode({"role": "assistant", "content": None})).num_tokens == 4
    parts = [{"type": "text", "text": "abcd"}, {"type": "text", "text": "ef"}]
    assert read_message(encode({"role": "user", "content": parts})).num_tokens == 6 / 4 + 4


def test_characters_are_counted_not_bytes() -> None:
    assert read_message(encode(user("→→→→"))).num_tokens == 4 / 4 + 4


def test_a_reader_sees_the_strings_of_the_arguments_decoded() -> None:
    message = assistant("text", {"path": "a/b.py", "edits": [{"new": "x\ny"}], "count": 3})
    assert read_message(encode(message)).shown == b"text\na/b.py\nx\ny"
    assert argument_strings("*** Begin Patch") == ["*** Begin Patch"]


def test_cache_control_does_not_tell_messages_apart() -> None:
    plain = read_message(b'{"role":"user","content":"a"}')
    marked = read_message(b'{"content": "a", "role": "user", "cache_control": {"type": "ephemeral"}}')
    assert plain.identity == marked.identity
    assert [block.is_breakpoint for block in plain.blocks] == [False]
    assert [block.is_breakpoint for block in marked.blocks] == [True]
    assert plain.identity != read_message(b'{"role":"user","content":"b"}').identity


def test_blocks_are_parts_and_calls() -> None:
    parts = [{"type": "text", "text": "abcd", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "ef"}]
    message = {**assistant("", {"a": 1}), "content": parts}
    blocks = read_message(encode(message)).blocks
    assert [(block.num_tokens, block.is_breakpoint) for block in blocks] == [
        (1, True),
        (0.5, False),
        ((3 + len('{"a": 1}')) / 4 + 4, False),
    ]


def test_ids_in_markers_tell_identities_apart_but_not_likenesses() -> None:
    first, second = (read_message(encode(user(f"a\n[sluice {i}: 3 lines omitted, 1-3]"))) for i in ("7f3a", "0b1c"))
    assert first.identity != second.identity
    assert first.likeness == second.likeness


def test_custom_calls_and_the_single_call_of_old_are_calls() -> None:
    custom = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "custom", "custom": {"name": "run", "input": "ls -l"}}],
    }
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "run", "arguments": '"ls -l"'}}
    for data, num_chars in ((custom, 3 + 5), (legacy, 3 + 7)):
        message = read_message(encode(data))
        assert (message.num_calls, message.num_tokens) == (1, num_chars / 4 + 4)
        assert message.shown == b"\nls -l"


@pytest.mark.parametrize("raw", ["[]", '{"content": "a"}', '{"role": 1}', "nonsense"])
def test_what_is_no_message_is_refused(raw: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_message(raw.encode())


def test_encoding_is_compact_utf_8() -> None:
    assert encode({"role": "user", "content": "ä"}) == '{"role":"user","content":"ä"}'.encode()
    assert json.loads(encode({"content": "\ud83d"})) == {"content": "\ud83d"}
