"""Conversations that belong to no wire, as each wire's request, and what is read back out of one."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from sluice.proxy.translation import Translation
from sluice.proxy.wire import WireName

Json = dict[str, Any]
CHAT, MESSAGES, RESPONSES = WireName.CHAT, WireName.MESSAGES, WireName.RESPONSES
WAYS = [(MESSAGES, CHAT), (RESPONSES, CHAT), (CHAT, MESSAGES), (RESPONSES, MESSAGES)]
PNG = "data:image/png;base64,aGk="

# A neutral conversation: turns of what the user says, what the model says, its calls with their results, an image.
WORD = st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1, max_size=8)
ARGUMENTS = st.dictionaries(WORD, WORD | st.integers(-99, 99) | st.lists(WORD, max_size=2), max_size=2)
CALL = st.tuples(st.sampled_from(["read", "edit"]), ARGUMENTS, WORD)
TURN = st.tuples(
    WORD, st.booleans(), st.lists(st.tuples(WORD, st.lists(CALL, min_size=1, max_size=3)), max_size=3), WORD
)
CONVERSATION = st.lists(TURN, min_size=1, max_size=4)


def as_chat(turns: list[Any]) -> Json:
    messages: list[Json] = [{"role": "system", "content": "be brief"}]
    number = 0
    for said, has_image, steps, final in turns:
        image = [{"type": "image_url", "image_url": {"url": PNG}}] * has_image
        messages.append({"role": "user", "content": [{"type": "text", "text": said}, *image]})
        for text, calls in steps:
            made, results = [], []
            for name, arguments, result in calls:
                number += 1
                function = {"name": name, "arguments": json.dumps(arguments)}
                made.append({"id": f"call_{number}", "type": "function", "function": function})
                results.append({"role": "tool", "tool_call_id": f"call_{number}", "content": result})
            messages += [{"role": "assistant", "content": text, "tool_calls": made}, *results]
        messages.append({"role": "assistant", "content": final})
    tools = [{"type": "function", "function": {"name": n, "parameters": {"type": "object"}}} for n in ("read", "edit")]
    return {"model": "m", "messages": messages, "tools": tools, "stream": True}


def as_messages(turns: list[Any]) -> Json:
    messages: list[Json] = []
    number = 0
    for said, has_image, steps, final in turns:
        image = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}] * has_image
        messages.append({"role": "user", "content": [{"type": "text", "text": said}, *image]})
        for text, calls in steps:
            made, results = [], []
            for name, arguments, result in calls:
                number += 1
                made.append({"type": "tool_use", "id": f"call_{number}", "name": name, "input": arguments})
                results.append({"type": "tool_result", "tool_use_id": f"call_{number}", "content": result})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": text}, *made]})
            messages.append({"role": "user", "content": results})
        messages.append({"role": "assistant", "content": final})
    tools = [{"name": name, "input_schema": {"type": "object"}} for name in ("read", "edit")]
    return {"model": "m", "max_tokens": 100, "system": "be brief", "messages": messages, "tools": tools, "stream": True}


def as_responses(turns: list[Any]) -> Json:
    items: list[Json] = []
    number = 0
    for said, has_image, steps, final in turns:
        image = [{"type": "input_image", "image_url": PNG}] * has_image
        items.append({"role": "user", "content": [{"type": "input_text", "text": said}, *image]})
        for text, calls in steps:
            items.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
            results = []
            for name, arguments, result in calls:
                number += 1
                call = {"call_id": f"call_{number}", "name": name, "arguments": json.dumps(arguments)}
                items.append({"type": "function_call", **call})
                results.append({"type": "function_call_output", "call_id": f"call_{number}", "output": result})
            items += results
        items.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": final}]})
    tools = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in ("read", "edit")]
    return {"model": "m", "instructions": "be brief", "input": items, "tools": tools, "stream": True}


MAKERS = {CHAT: as_chat, MESSAGES: as_messages, RESPONSES: as_responses}
LISTS = {CHAT: "messages", MESSAGES: "messages", RESPONSES: "input"}


def translate(source: WireName, target: WireName, request: Json) -> Json:
    return json.loads(Translation().request(source, target, json.dumps(request).encode()))


def facts(target: WireName, request: Json) -> list[Any]:
    """Everything said, called and answered, in order."""
    found: list[Any] = []
    for message in request["messages"]:
        content = message["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if message["role"] == "tool":
            found.append(("result", message["tool_call_id"], message["content"]))
            continue
        for block in content or []:
            if block["type"] == "text":
                found.append((message["role"], block["text"]))
            elif block["type"] == "tool_use":
                found.append(("call", block["id"], block["name"], block["input"]))
            elif block["type"] == "tool_result":
                found.append(("result", block["tool_use_id"], block["content"]))
            else:
                found.append(("image",))
        for call in message.get("tool_calls", []):
            function = call["function"]
            found.append(("call", call["id"], function["name"], json.loads(function["arguments"])))
    return found


def expected(turns: list[Any]) -> list[Any]:
    found: list[Any] = []
    number = 0
    for said, has_image, steps, final in turns:
        found.append(("user", said))
        found += [("image",)] * has_image
        for text, calls in steps:
            found.append(("assistant", text))
            first = number + 1
            for name, arguments, _ in calls:
                number += 1
                found.append(("call", f"call_{number}", name, arguments))
            found += [("result", f"call_{first + place}", result) for place, (_, _, result) in enumerate(calls)]
        found.append(("assistant", final))
    return found


def check_chat(request: Json) -> None:
    """What the strictest chat servers ask for."""
    waiting: set[str] = set()
    last = ""
    for number, message in enumerate(request["messages"]):
        role = message["role"]
        assert role != "system" or number == 0
        assert role == "tool" or not waiting, "results stand right behind their calls"
        assert (role, last) not in (("user", "user"), ("assistant", "assistant"))
        if role == "tool":
            waiting.remove(message["tool_call_id"])
            assert isinstance(message["content"], str)
        waiting |= {call["id"] for call in message.get("tool_calls", [])}
        last = role
    assert not waiting


def check_messages(request: Json) -> None:
    """What Anthropic asks for."""
    assert request["max_tokens"] > 0
    waiting: set[str] = set()
    last, num_marks = "assistant", json.dumps(request).count('"cache_control"')
    assert 1 <= num_marks <= 4
    for message in request["messages"]:
        assert message["role"] != last, "roles alternate"
        last = message["role"]
        assert message["content"]
        results = [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"]
        assert set(results) == waiting
        assert len(results) == len(waiting)
        waiting = {block["id"] for block in message["content"] if block["type"] == "tool_use"}
        assert all(block["text"].strip() for block in message["content"] if block["type"] == "text")


CHECKS = {CHAT: check_chat, MESSAGES: check_messages}
