"""Each kind of content, choice and call that a format has, and what stands for it in another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sluice.proxy.errors import InvalidFieldError
from sluice.proxy.translation.foreign_thinking import without_foreign_reasoning, without_foreign_thinking
from tests.proxy.translation.conversations import CHAT, MESSAGES, RESPONSES, Json, translate

PDF = {"type": "base64", "media_type": "application/pdf", "data": "cGRm"}
PNG_URL = "data:image/png;base64,aGk="
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def text(said: str) -> Json:
    return {"type": "text", "text": said}


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (
            {"type": "document", "source": PDF, "title": "a.pdf"},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,cGRm"}},
        ),
        ({"type": "document", "source": {"type": "text", "data": "said"}}, text("document:\nsaid")),
        ({"type": "document", "source": {"type": "content", "content": "said"}}, text("said")),
        ({"type": "document", "source": {"type": "content", "content": [text("one")]}}, text("one")),
        ({"type": "document", "source": {"type": "url", "url": "http://x/a.pdf"}}, text("document: http://x/a.pdf")),
        (
            {"type": "image", "source": {"type": "url", "url": "http://x/a.png"}},
            {"type": "image_url", "image_url": {"url": "http://x/a.png"}},
        ),
        (
            {"type": "search_result", "title": "T", "source": "http://x", "content": [text("found")]},
            text("T\nhttp://x\nfound"),
        ),
        ({"type": "tool_reference", "tool_name": "grep"}, text("[tool grep is available]")),
    ],
)
def test_blocks_of_the_messages_format_in_a_chat(block: Json, part: Json) -> None:
    messages = [{"role": "user", "content": [text("see"), block]}]
    (user,) = translate(MESSAGES, CHAT, {"model": "m", "messages": messages})["messages"]
    content = user["content"]
    if part["type"] == "text" and isinstance(content, str):
        assert content.startswith("see")
        assert content.endswith(part["text"])
    else:
        assert content[1:] == [part]


@pytest.mark.parametrize(
    "block", [{"type": "document", "source": {}}, {"type": "image", "source": {}}, {"type": "new"}]
)
def test_a_block_that_holds_nothing_that_can_be_told_is_left_out(block: Json) -> None:
    messages = [{"role": "user", "content": [text("see"), block]}]
    (user,) = translate(MESSAGES, CHAT, {"model": "m", "messages": messages})["messages"]
    assert user["content"] in ("see", [text("see")])


@pytest.mark.parametrize(
    ("source", "target", "part", "param"),
    [
        (RESPONSES, CHAT, {"type": "input_file", "file_id": "file_1"}, "input"),
        (RESPONSES, CHAT, {"type": "input_image", "file_id": "file_1", "detail": "auto"}, "input"),
        (RESPONSES, MESSAGES, {"type": "input_file", "file_id": "file_1"}, "input"),
        (MESSAGES, CHAT, {"type": "document", "source": {"type": "file", "file_id": "file_1"}}, "messages"),
        (MESSAGES, CHAT, {"type": "image", "source": {"type": "file", "file_id": "file_1"}}, "messages"),
        (MESSAGES, CHAT, {"type": "container_upload", "file_id": "file_1"}, "messages"),
        (CHAT, MESSAGES, {"type": "file", "file": {"file_id": "file_1"}}, "messages"),
    ],
)
def test_a_file_that_only_its_provider_has_is_refused_by_name(source: Any, target: Any, part: Json, param: str) -> None:
    said = {"type": "message", "role": "user", "content": [part]}
    with pytest.raises(InvalidFieldError, match="'file_1'") as raised:
        translate(source, target, {"model": "m", param: [said]})
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "function"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}]}, "function_call"),
    ],
)
def test_calls_of_before_there_were_tools_are_refused_by_name(asked: Json, name: str) -> None:
    with pytest.raises(InvalidFieldError, match=f"{name}.*tools"):
        translate(CHAT, MESSAGES, {"model": "m", "messages": [{"role": "user", "content": "hi"}], **asked})
    kept = {"role": "assistant", "content": "hi", "function_call": None}  # as clients dump their types
    translate(CHAT, MESSAGES, {"model": "m", "messages": [kept], "functions": None})


def test_half_a_surrogate_pair_in_arguments_leaves_them_an_object() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"text": "\ud83d"}'}}
    asked = {"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]}
    messages = translate(CHAT, MESSAGES, asked)["messages"]
    assert messages[1]["content"][0]["input"] == {"text": "\ud83d"}


@pytest.mark.parametrize(
    ("model", "is_signed"),
    [("gemini-3-pro-preview", True), ("models/gemini-flash-latest", True), ("gemini-2.5-pro", False), ("m", False)],
)
def test_gemini_gets_for_its_calls_what_it_wants_in_place_of_its_signature(model: str, is_signed: bool) -> None:
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    item = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    for chat in (
        translate(MESSAGES, CHAT, {"model": model, "messages": [{"role": "assistant", "content": [call]}]}),
        translate(RESPONSES, CHAT, {"model": model, "input": [item]}),
    ):
        extra = chat["messages"][0]["tool_calls"][0].get("extra_content")
        signed = {"google": {"thought_signature": "skip_thought_signature_validator"}}
        assert extra == (signed if is_signed else None)


@pytest.mark.parametrize(
    ("item", "part"),
    [
        (
            {"type": "input_image", "image_url": PNG_URL, "detail": "low"},
            {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "low"}},
        ),
        (
            {"type": "input_file", "file_data": "data:application/pdf;base64,cGRm", "filename": "a.pdf"},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,cGRm"}},
        ),
        ({"type": "input_file", "file_url": "http://x/a.pdf"}, text("[file: http://x/a.pdf]")),
    ],
)
def test_parts_of_the_responses_format_in_a_chat(item: Json, part: Json) -> None:
    image = {"type": "input_image", "image_url": PNG_URL}
    said = {"type": "message", "role": "user", "content": [image, item]}
    (user,) = translate(RESPONSES, CHAT, {"model": "m", "input": [said]})["messages"]
    assert user["content"] == [{"type": "image_url", "image_url": {"url": PNG_URL}}, part]


def test_every_kind_of_call_of_the_responses_format_is_a_call_in_a_chat_with_its_result() -> None:
    attached = [{"type": "input_text", "text": "drawn"}, {"type": "input_image", "image_url": PNG_URL}]
    chat = translate(
        RESPONSES,
        CHAT,
        {
            "model": "m",
            "input": [
                {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
                {"type": "local_shell_call", "call_id": "a", "action": {"type": "exec", "command": ["ls"]}},
                {"type": "shell_call", "call_id": "b", "action": {"commands": ["ls"]}},
                {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file", "path": "x"}},
                {"type": "function_call", "call_id": "d", "name": "draw", "arguments": ""},
                {"type": "local_shell_call_output", "call_id": "a", "output": "one"},
                {"type": "shell_call_output", "call_id": "b", "output": [{"stdout": "two", "stderr": "!"}]},
                {"type": "apply_patch_call_output", "call_id": "c", "output": "gone"},
                {"type": "function_call_output", "call_id": "d", "output": attached},
                {"type": "compaction", "encrypted_content": "secret"},
            ],
        },
    )
    assistants = [message for message in chat["messages"] if message["role"] == "assistant"]
    assert "".join(message.get("content") or "" for message in assistants) == "no"
    calls = [call for message in assistants for call in message.get("tool_calls", ())]
    assert [(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls] == [
        ("a", "local_shell", {"command": ["ls"]}),
        ("b", "shell", {"commands": ["ls"]}),
        ("c", "apply_patch", {"type": "delete_file", "path": "x"}),
        ("d", "draw", {}),
    ]
    results = {m["tool_call_id"]: m["content"] for m in chat["messages"] if m["role"] == "tool"}
    assert (results["a"], results["b"], results["c"]) == ("one", "two!", "gone")
    assert results["d"].startswith("drawn\n")
    last = chat["messages"][-1]
    assert {"type": "image_url", "image_url": {"url": PNG_URL}} in last["content"]
    assert "secret" not in json.dumps(chat)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"tool_choice": "auto", "parallel_tool_calls": False}),
    ],
)
def test_a_choice_of_the_messages_format_in_a_chat_and_back(choice: Json, expected: Json) -> None:
    source = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": [TOOL], "tool_choice": choice}
    chat = translate(MESSAGES, CHAT, source)
    assert {name: chat[name] for name in ("tool_choice", "parallel_tool_calls") if name in chat} == expected
    assert translate(CHAT, MESSAGES, chat)["tool_choice"] == choice


@pytest.mark.parametrize("tools", [[], [TOOL]])
def test_a_tool_that_no_other_upstream_has_cannot_be_asked_for(tools: list[Json]) -> None:
    choice = {"type": "tool", "name": "web_search"}
    with pytest.raises(InvalidFieldError, match="'web_search'"):
        translate(MESSAGES, CHAT, {"model": "m", "messages": [], "tools": tools, "tool_choice": choice})


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("required", "required"), ({"type": "allowed_tools", "mode": "auto", "tools": []}, "auto"), ({}, None)],
)
def test_a_choice_of_the_responses_format_in_a_chat(choice: Any, expected: str | None) -> None:
    tools = [{"type": "function", "name": "f", "parameters": {}}]
    chat = translate(RESPONSES, CHAT, {"model": "m", "input": "hi", "tools": tools, "tool_choice": choice})
    assert chat.get("tool_choice") == expected


def test_what_a_chat_holds_in_the_messages_format() -> None:
    kept = [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "thinking", "thinking": "unsigned"}]
    odd = {"id": "a b", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
    unreadable = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    mark = {"type": "ephemeral"}
    result = [{**text("seen"), "cache_control": mark}, {"type": "image_url", "image_url": {"url": PNG_URL}}]
    messages = translate(
        CHAT,
        MESSAGES,
        {
            "model": "m",
            "messages": [
                {"role": "assistant", "content": "first", "thinking_blocks": kept, "tool_calls": [odd, unreadable]},
                {"role": "tool", "tool_call_id": "a b", "content": result},
                {"role": "tool", "tool_call_id": "c", "content": ""},
                {"role": "system", "content": "late"},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "file",
                            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,cGRm"},
                        },
                        {"type": "image_url", "image_url": {"url": "http://x/a.png"}},
                    ],
                },
                {"role": "user", "content": ""},
            ],
        },
    )["messages"]
    first, assistant, user = messages
    assert first == {"role": "user", "content": [text("(empty)")]}
    thought, said, patch, call = assistant["content"]
    assert (thought, said) == (kept[0], text("first"))
    assert (patch["name"], patch["input"]) == ("patch", {"input": "*** Begin"})
    assert list(call["input"].values()) == ["{"]
    seen, empty, late, document, image, nothing = user["content"]
    assert seen["tool_use_id"] == patch["id"] != "a b"
    assert seen["cache_control"] == mark
    assert seen["content"][0] == text("seen")
    assert seen["content"][1]["source"] == {"type": "base64", "media_type": "image/png", "data": "aGk="}
    assert empty == {"type": "tool_result", "tool_use_id": "c"}
    assert late == text("<system>\nlate\n</system>")
    assert document == {"type": "document", "source": PDF, "title": "a.pdf"}
    assert image == {"type": "image", "source": {"type": "url", "url": "http://x/a.png"}}
    assert nothing == text("(empty)")


def test_tools_alone_carry_the_mark_of_what_stays_the_same_where_there_is_no_system_text() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    said = [{"role": "user", "content": "hi"}]
    messages = translate(CHAT, MESSAGES, {"model": "m", "messages": said, "tools": tools})
    assert messages["tools"][-1]["cache_control"] == {"type": "ephemeral"}


def test_thinking_of_ours_goes_to_no_provider_and_all_else_stays_byte_for_byte() -> None:
    ours = '{"type":"thinking","thinking":"t","signature":"sluice:reasoning"}'
    request = (
        '{ "model":"m", "messages":[{"role":"user","content":"a  b"},'
        f'{{"role":"assistant","content":[{ours},{{"type":"text","text":"x"}}]}},'
        f'{{"role":"assistant","content":[{ours}]}},'
        '{"role":"user","content":"\\"sluice:reasoning"}] }'
    ).encode()
    cleaned = without_foreign_thinking(request)
    assert cleaned.startswith(b'{ "model":"m", "messages":[{"role":"user","content":"a  b"},')
    assert cleaned.endswith(b',{"role":"user","content":"\\"sluice:reasoning"}] }')
    contents = [message["content"] for message in json.loads(cleaned)["messages"]]
    assert contents[1:3] == [[text("x")], [text("(empty)")]]
    for other in (b'{"signature":"sluice:', request.replace(b'"messages"', b'"messages":[],"messages"')):
        assert without_foreign_thinking(other) == other, "what cannot be told apart stays"


def test_reasoning_in_plain_words_is_taken_out_and_all_else_stays_byte_for_byte() -> None:
    plain = '{"type":"reasoning","content":[{"type":"reasoning_text","text":"t"}]}'
    sealed = '{"type":"reasoning","encrypted_content":"x","content":[{"type":"reasoning_text","text":"t"}]}'
    request = f'{{ "input":[{plain}, {sealed},{{"role":"user","content":"a  b"}}], "model":"m"}}'.encode()
    expected = f'{{ "input":[{sealed},{{"role":"user","content":"a  b"}}], "model":"m"}}'.encode()
    assert without_foreign_reasoning(request) == expected
    for other in (expected, b'{"input":"reasoning_text"}', b'{"reasoning_text"'):
        assert without_foreign_reasoning(other) == other
