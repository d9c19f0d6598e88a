from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import OPENAI_CHAT, MalformedMessageError
from tests.compressor.conversations import call, encode, result

EPHEMERAL = {"type": "ephemeral"}


def test_reads_roles_texts_and_calls() -> None:
    message = OPENAI_CHAT.parse(encode(call("c1", "Read", file_path="a.py")))
    assert message.role == "assistant"
    assert message.texts == ()
    assert [(c.id, c.name, json.loads(c.arguments)) for c in message.calls] == [("c1", "Read", {"file_path": "a.py"})]
    answer = OPENAI_CHAT.parse(encode(result("c1", "x = 1")))
    assert (answer.role, answer.texts[0].call_id, answer.texts[0].is_result) == ("tool", "c1", True)
    assert OPENAI_CHAT.parse(b'{"role":"developer","content":"be brief"}').role == "system"


def test_reads_parts_custom_calls_and_the_legacy_function_call() -> None:
    parts = [
        {"type": "text", "text": "one"},
        {"type": "image_url", "image_url": {"url": "data:"}},
        {"type": "text", "text": "two"},
    ]
    assert [text.text for text in OPENAI_CHAT.parse(encode({"role": "user", "content": parts})).texts] == ["one", "two"]
    custom = {
        "role": "assistant",
        "tool_calls": [{"id": "p", "type": "custom", "custom": {"name": "apply_patch", "input": "*** Begin"}}],
    }
    assert OPENAI_CHAT.parse(encode(custom)).calls[0].arguments == "*** Begin"
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "ls", "arguments": "{}"}}
    assert OPENAI_CHAT.parse(encode(legacy)).calls[0].name == "ls"


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"[]", b"7", b'{"role":"robot"}', b'{"content":"no role"}', b'{"role":["user"]}'),
        *(b'{"role":"user","content":7}', b'{"role":"user","content":"\xff"}'),
        *(b'{"role":"assistant","tool_calls":7}', b'{"role":"assistant","tool_calls":[{}]}'),
    ],
)
def test_what_is_not_of_this_form_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        OPENAI_CHAT.parse(raw)


def test_identity_ignores_what_clients_move_about() -> None:
    plain = OPENAI_CHAT.parse(encode({"role": "user", "content": "hello"}))
    marked = {"role": "user", "content": [{"type": "text", "text": "hello", "cache_control": EPHEMERAL}]}
    spaced = b'{ "role": "user",\n "content": "hello" }'
    assert OPENAI_CHAT.parse(encode(marked)).identity == plain.identity
    assert OPENAI_CHAT.parse(spaced).identity == plain.identity
    assert (
        OPENAI_CHAT.parse(encode({"role": "user", "content": "hello", "cache_control": EPHEMERAL})).identity
        == plain.identity
    )
    assert OPENAI_CHAT.parse(encode({"role": "user", "content": "hello!"})).identity != plain.identity
    assert OPENAI_CHAT.parse(encode({"role": "user", "content": "hello", "name": "ann"})).identity != plain.identity


def test_text_that_speaks_of_cache_control_is_not_taken_for_it() -> None:
    one = encode({"role": "user", "content": 'set "cache_control": 1'})
    assert OPENAI_CHAT.parse(one).texts[0].text == 'set "cache_control": 1'
    assert OPENAI_CHAT.carry(one, b'{"role":"user", "content":"short"}') == b'{"role":"user", "content":"short"}'


def test_half_a_surrogate_pair_is_text() -> None:
    raw = b'{"role":"tool","tool_call_id":"c","content":"cut \\ud83d","name":"\\ud83d"}'
    assert OPENAI_CHAT.parse(raw).texts[0].text == "cut \ud83d"
    assert json.loads(OPENAI_CHAT.render(raw, {0: "short"})) == {**json.loads(raw), "content": "short"}


def test_carry_puts_the_newest_cache_control_onto_an_old_rendition() -> None:
    sent = {
        "role": "tool",
        "tool_call_id": "c",
        "content": [{"type": "text", "text": "long", "cache_control": EPHEMERAL}],
    }
    rendition = OPENAI_CHAT.render(encode(sent), {0: "short"})
    assert b"cache_control" not in rendition
    carried = json.loads(OPENAI_CHAT.carry(encode(sent), rendition))
    assert carried["content"] == [{"type": "text", "text": "short", "cache_control": EPHEMERAL}]
    plain = encode({"role": "tool", "tool_call_id": "c", "content": "long"})
    assert OPENAI_CHAT.carry(plain, rendition) == rendition
    assert OPENAI_CHAT.render(plain, {0: "short"}) == rendition


@given(
    st.lists(st.text(), min_size=1, max_size=4),
    st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.booleans()),
)
def test_render_replaces_the_texts_and_nothing_else(texts: list[str], extra: dict[str, object]) -> None:
    extra = {
        key: value
        for key, value in extra.items()
        if key not in {"role", "content", "cache_control", "tool_calls", "function_call"}
    }
    raw = encode(
        {**extra, "role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": text} for text in texts]}
    )
    rendered = OPENAI_CHAT.render(raw, {0: "first"})
    assert [text.text for text in OPENAI_CHAT.parse(rendered).texts] == ["first", *texts[1:]]
    assert {key: value for key, value in json.loads(rendered).items() if key in extra and key != "tool_call_id"} == {
        key: value for key, value in extra.items() if key != "tool_call_id"
    }
