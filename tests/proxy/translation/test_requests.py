"""Requests: what survives, what is valid, and what stays the same from turn to turn."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from sluice.proxy.errors import InvalidFieldError, InvalidJsonError
from sluice.proxy.translation import Translation
from sluice.proxy.wire import WireName
from tests.effort import examples
from tests.proxy.translation.conversations import (
    CHAT,
    CHECKS,
    CONVERSATION,
    LISTS,
    MAKERS,
    MESSAGES,
    RESPONSES,
    WAYS,
    Json,
    as_chat,
    expected,
    facts,
    translate,
)


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_texts_calls_results_and_images_survive_in_a_valid_request(source: WireName, target: WireName) -> None:
    @given(CONVERSATION)
    @examples(40)
    def check(turns: list[Any]) -> None:
        translated = translate(source, target, MAKERS[source](turns))
        CHECKS[target](translated)
        found = [fact for fact in facts(target, translated) if fact[0] != "system"]
        assert found == expected(turns)
        assert translated["stream"] is True
        assert len(translated["tools"]) == 2

    check()


def flat(target: WireName, messages: list[Json]) -> list[str]:
    """What a model reads, in order: messages for chat, blocks for Anthropic, whose cache knows blocks."""
    if target is CHAT:
        return [json.dumps(message) for message in messages]
    return [
        json.dumps([message["role"], {key: value for key, value in block.items() if key != "cache_control"}])
        for message in messages
        for block in message["content"]
    ]


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_a_longer_conversation_begins_with_what_the_shorter_one_was(source: WireName, target: WireName) -> None:
    @given(CONVERSATION)
    @examples(25)
    def check(turns: list[Any]) -> None:
        whole = MAKERS[source](turns)
        name = LISTS[source]
        # Where a client asks: behind something that the user or a tool said.
        asks = [
            number
            for number in range(1, len(whole[name]) + 1)
            if (number == len(whole[name]) or _is_models(whole[name][number]))
            and not _is_models(whole[name][number - 1])
        ]
        before: list[str] = []
        for number in asks:
            now = flat(target, translate(source, target, {**whole, name: whole[name][:number]})["messages"])
            assert now[: len(before)] == before
            before = now

    check()


def _is_models(item: Json) -> bool:
    return item.get("role") == "assistant" or item.get("type") == "function_call"


def test_what_claude_code_sends_becomes_a_request_that_any_chat_server_takes() -> None:
    request = {
        "model": "claude-opus-4-8",
        "max_tokens": 64000,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": []},
        "output_config": {"effort": "high"},
        "metadata": {"user_id": "x" * 200},
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=1.2; cch=abc;"},
            {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "go", "cache_control": {"type": "ephemeral"}}]},
            {"role": "system", "content": "Agent types: …"},
        ],
        "tools": [
            {"name": "Read", "description": "d", "input_schema": {"$schema": "x", "type": "object"}},
            {"type": "web_search_20250305", "name": "web_search"},
            {"type": "bash_20250124", "name": "bash"},
        ],
    }
    chat = translate(MESSAGES, CHAT, request)
    assert chat["messages"] == [
        {"role": "system", "content": "You are an agent."},
        {"role": "user", "content": "go\n\n<system>\nAgent types: …\n</system>"},
    ]
    assert [tool["function"]["name"] for tool in chat["tools"]] == ["Read", "bash"]
    assert set(chat) == {"model", "messages", "tools"}


def test_results_with_errors_and_images_and_thinking_of_ours_go_back_to_the_model() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    blocks = [
        {"type": "thinking", "thinking": "foreign", "signature": "c2ln"},
        {"type": "thinking", "thinking": "mine", "signature": "sluice:reasoning"},
        {"type": "tool_use", "id": "a", "name": "Read", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "Read", "input": {}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "seen"}, image]},
        {"type": "tool_result", "tool_use_id": "b", "content": "no such file", "is_error": True},
        {"type": "text", "text": "go on"},
    ]
    messages = [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
    assistant, first, second, user = translate(MESSAGES, CHAT, {"model": "m", "messages": messages})["messages"]
    assert assistant["reasoning"] == "mine"
    assert "reasoning_content" not in assistant
    assert first["content"].startswith("seen\n")
    assert second["content"] == "Error: no such file"
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "text"]


def test_custom_and_namespaced_tools_of_codex_are_functions_by_a_name_that_is_always_the_same() -> None:
    request = {
        "model": "m",
        "tools": [
            {
                "type": "custom",
                "name": "apply_patch",
                "format": {"type": "grammar", "syntax": "lark", "definition": "G"},
            },
            {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "spawn", "parameters": {}}]},
            {"type": "local_shell"},
            {"type": "web_search"},
        ],
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "one"}]},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "two"}]},
            {"type": "message", "role": "user", "content": "go"},
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}], "summary": []},
            {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "*** Begin"},
            {"type": "function_call", "call_id": "d", "name": "spawn", "namespace": "agents", "arguments": "{}"},
            {"type": "message", "role": "user", "content": "in between"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "done"}]},
            {"type": "function_call_output", "call_id": "d", "output": "ok"},
            {"type": "function_call_output", "call_id": "gone", "output": "late"},
        ],
    }
    chat = translate(RESPONSES, CHAT, request)
    names = [tool["function"]["name"] for tool in chat["tools"]]
    assert names == ["apply_patch", "agents__spawn", "local_shell"]
    system, user, assistant, first, second, after = chat["messages"]
    assert system["content"] == "one\n\ntwo"
    assert user["content"] == "go"
    assert [call["function"]["name"] for call in assistant["tool_calls"]] == names[:2]
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"input": "*** Begin"}
    assert assistant["reasoning_content"] == "hm"
    assert (first["content"], second["content"]) == ("done", "ok")
    assert after["content"].startswith("in between\n\n")
    assert "late" in after["content"]


def test_tools_that_stand_among_the_items_are_tools() -> None:
    exec_, spawn = {"type": "custom", "name": "exec"}, {"type": "function", "name": "spawn", "parameters": {}}
    told = [
        {"type": "namespace", "name": "functions", "tools": [exec_]},
        {"type": "namespace", "name": "collaboration", "tools": [spawn]},
    ]
    request = {
        "model": "m",
        "tool_choice": "auto",
        "tools": [{"type": "function", "name": "own", "parameters": {}}],
        "input": [
            {"type": "additional_tools", "id": "at_1", "role": "developer", "tools": told},
            {"type": "message", "role": "user", "content": "go"},
            {"type": "custom_tool_call", "call_id": "c", "name": "exec", "namespace": "functions", "input": "text(1)"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "1"},
            {"type": "additional_tools", "role": "developer", "tools": [*told, {"type": "custom", "name": "late"}]},
        ],
    }
    chat = translate(RESPONSES, CHAT, request)
    names = [tool["function"]["name"] for tool in chat["tools"]]
    assert names == ["own", "functions__exec", "collaboration__spawn", "late"]
    assert chat["tool_choice"] == "auto"
    assert [message["role"] for message in chat["messages"]] == ["user", "assistant", "tool"]
    assert chat["messages"][1]["tool_calls"][0]["function"]["name"] == "functions__exec"


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"tool_choice": {"type": "web_search"}, "tools": [{"type": "web_search"}]}, "tool_choice"),
    ],
)
def test_what_rests_on_the_providers_own_store_or_tools_is_refused_by_name(request_: Json, param: str) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        translate(RESPONSES, CHAT, {"model": "m", "input": "hi", **request_})
    assert raised.value.param == param
    assert param in str(raised.value)


def test_a_body_that_is_no_json_object_is_refused() -> None:
    with pytest.raises(InvalidJsonError):
        Translation().request(MESSAGES, CHAT, b"{")
    with pytest.raises(InvalidFieldError):
        Translation().request(MESSAGES, CHAT, b"[]")


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("gpt-5.2", "xhigh", "xhigh"),
        ("gpt-5.2", "none", "none"),
        ("openai/gpt-oss-120b", "xhigh", "high"),
        ("gpt-oss-20b", "low", "low"),
        ("gpt-oss-20b", "none", None),
        ("qwen3-coder", "high", None),
        ("gpt-5.2", None, None),
    ],
)
def test_an_effort_is_asked_for_where_it_is_known_to_be_taken(model: str, effort: str | None, expected: str) -> None:
    chat = translate(RESPONSES, CHAT, {"model": model, "input": "hi", "reasoning": {"effort": effort}})
    assert chat.get("reasoning_effort") == expected


SAMPLING = {"temperature": 0, "top_p": 0.9}
STOPPED = {"stop": ["x"], **SAMPLING}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-opus-4-7", {}),
        ("anthropic.claude-opus-4-8-v1:0", {}),
        ("claude-sonnet-5", {}),
        ("claude-haiku-5-5", {}),
        ("claude-mythos-preview", {}),
        ("claude-3-haiku-20240307", SAMPLING),
        ("claude-3-7-sonnet-latest", SAMPLING),
        ("claude-opus-4-0", SAMPLING),
        ("claude-sonnet-4-20250514", SAMPLING),
        ("claude-opus-4-1-20250805", SAMPLING),
        ("claude-haiku-4-5", SAMPLING),
        ("anthropic/claude-sonnet-4.6", SAMPLING),
        ("deepseek-chat", SAMPLING),
    ],
)
def test_claude_models_that_take_no_sampling_are_sent_none(model: str, expected: Json) -> None:
    for field, value in SAMPLING.items():  # of the two the one that a client gives
        sent = translate(CHAT, MESSAGES, {"model": model, "messages": [], "stop": "x", field: value})
        assert {key: sent[key] for key in SAMPLING if key in sent} == ({field: value} if expected else {})
        assert sent["stop_sequences"] == ["x"]


@pytest.mark.parametrize(
    ("model", "expected"), [("gpt-5-mini", {}), ("o3", {}), ("openai/gpt-5.2", {}), ("gpt-4o", STOPPED), ("m", STOPPED)]
)
def test_openais_models_that_reason_are_sent_no_sampling(model: str, expected: Json) -> None:
    asked = {"model": model, "messages": [], "stop_sequences": ["x"], **SAMPLING}
    sent = translate(MESSAGES, CHAT, asked)
    assert {key: sent[key] for key in STOPPED if key in sent} == expected
    sent = translate(RESPONSES, CHAT, {"model": model, "input": "hi", **SAMPLING})
    assert {key: sent[key] for key in SAMPLING if key in sent} == (SAMPLING if expected else {})


LONG = "mcp__plugin_chrome-devtools-mcp_chrome-devtools__performance_analyze_insight"


def test_a_name_of_a_tool_that_chat_servers_find_too_long_is_shortened_wherever_it_stands() -> None:
    request = {
        "model": "m",
        "tools": [{"name": name, "input_schema": {"type": "object"}} for name in (LONG, "Read")],
        "tool_choice": {"type": "tool", "name": LONG},
        "messages": [
            {"role": "user", "content": [{"type": "tool_reference", "tool_name": LONG}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": LONG, "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "ok"}]},
        ],
    }
    chat = translate(MESSAGES, CHAT, request)
    short, kept = (tool["function"]["name"] for tool in chat["tools"])
    assert len(LONG) > len(short) <= 64
    assert short.startswith("mcp__plugin_chrome-devtools-mcp")
    assert kept == "Read"
    assert chat["tool_choice"]["function"]["name"] == short
    assert chat["messages"][0]["content"] == f"[tool {short} is available]"
    assert chat["messages"][1]["tool_calls"][0]["function"]["name"] == short


def test_options_have_the_names_of_the_target() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    chat = translate(
        RESPONSES,
        CHAT,
        {
            "model": "gpt-5.2-codex",
            "input": "hi",
            "max_output_tokens": 7,
            "reasoning": {"effort": "low"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}},
            "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": True}],
            "tool_choice": {"type": "function", "name": "f"},
            "parallel_tool_calls": False,
        },
    )
    assert chat["max_completion_tokens"] == 7
    assert chat["reasoning_effort"] == "low"
    assert chat["response_format"]["json_schema"] == {"name": "n", "schema": schema, "strict": True}
    assert chat["tools"][0]["function"]["strict"] is True
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    messages = translate(
        CHAT, MESSAGES, {**chat, "stop": "x", "temperature": 1.5, "top_p": 0.5, "messages": as_chat([])["messages"]}
    )
    assert messages["max_tokens"] == 7
    assert messages["stop_sequences"] == ["x"]
    assert messages["temperature"] == 1
    assert "top_p" not in messages
    assert messages["tool_choice"] == {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    assert messages["output_config"]["format"]["schema"] == schema


def test_a_mark_in_a_result_is_the_results_own_and_the_only_ones_are_the_clients() -> None:
    mark = {"type": "ephemeral"}
    parts = [{"type": "text", "text": "one", "cache_control": mark}, {"type": "text", "text": "two"}]
    said: list[Json] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    for number in range(3):
        call = {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        said.append({"role": "assistant", "content": None, "tool_calls": [call]})
        said.append({"role": "tool", "tool_call_id": f"c{number}", "content": parts})
    sent = translate(CHAT, MESSAGES, {"model": "claude-sonnet-4-5", "messages": said})
    assert json.dumps(sent).count("cache_control") == 3, "four at most are taken"
    results = [message["content"][0] for message in sent["messages"] if message["role"] == "user"][1:]
    assert [(result["content"], result["cache_control"]) for result in results] == [("one\ntwo", mark)] * 3


def test_reasoning_in_plain_words_goes_to_no_openai() -> None:
    said = [{"type": "reasoning_text", "text": "hm"}]
    ours = {"type": "reasoning", "id": "rs_1", "summary": [], "content": said, "encrypted_content": None}
    theirs = {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAA"}
    user = {"role": "user", "content": 'says "reasoning_text"'}
    raw = json.dumps({"model": "m", "input": [user, ours, theirs, ours], "store": False}).encode()
    sent = Translation().cleaned(RESPONSES, raw, "openai")
    assert json.loads(sent) == {"model": "m", "input": [user, theirs], "store": False}
    assert Translation().cleaned(RESPONSES, raw, "vllm") == raw
    for same in (sent, b"no json", b'{"input": "reasoning_text"}', b'{"input": [{"type": "reasoning_text"}]}'):
        assert Translation().cleaned(RESPONSES, same, "openai") == same
