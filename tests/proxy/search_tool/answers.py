"""Answers of each wire, whole and as events, out of one neutral description of what the model says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sluice.proxy.wire import WireName

Json = dict[str, Any]
Piece = tuple[str, ...]
"""`("think", text)`, `("text", text)` or `("call", id, name, arguments)`."""
TOOL = "code_search"


def search(call_id: str, query: str = "retry") -> Piece:
    return ("call", call_id, TOOL, json.dumps({"query": query}))


def read(call_id: str, path: str = "a.py") -> Piece:
    return ("call", call_id, "Read", json.dumps({"file_path": path}))


def usage_of(wire: WireName, number: int) -> Json:
    """Usage that differs from round to round."""
    prompt, cached, output = 100 + number, 40 + number, 7 + number
    if wire is WireName.MESSAGES:
        written = {"ephemeral_5m_input_tokens": number, "ephemeral_1h_input_tokens": 0}
        return {
            "input_tokens": prompt,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": number,
            "cache_creation": written,
            "output_tokens": output,
        }
    if wire is WireName.CHAT:
        details = {"cached_tokens": cached}
        total = prompt + output
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": total,
            "prompt_tokens_details": details,
        }
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + output,
    }


def stop_of(wire: WireName, pieces: Sequence[Piece]) -> str:
    calls = any(piece[0] == "call" for piece in pieces)
    if wire is WireName.MESSAGES:
        return "tool_use" if calls else "end_turn"
    return "tool_calls" if calls else "stop"


def whole(wire: WireName, pieces: Sequence[Piece], number: int = 0, *, stop: str | None = None) -> Json:
    """One answer that is not streamed."""
    stop = stop or stop_of(wire, pieces)
    usage = usage_of(wire, number)
    if wire is WireName.MESSAGES:
        return {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [_block(piece) for piece in pieces],
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": usage,
        }
    if wire is WireName.CHAT:
        message: Json = {"role": "assistant", "content": _joined(pieces, "text") or None}
        if thought := _joined(pieces, "think"):
            message["reasoning_content"] = thought
        if calls := [_chat_call(piece) for piece in pieces if piece[0] == "call"]:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": stop, "logprobs": None}
        head = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": number, "model": "m"}
        return {**head, "choices": [choice], "usage": usage}
    output = [_item(piece, f"{number}_{index}") for index, piece in enumerate(pieces)]
    head = {"id": f"resp_{number}", "object": "response", "created_at": number, "model": "m"}
    return {**head, "status": "incomplete" if stop == "length" else "completed", "output": output, "usage": usage}


def events(wire: WireName, pieces: Sequence[Piece], number: int = 0, *, stop: str | None = None) -> bytes:
    """The same as events, texts and arguments in two pieces each."""
    body = whole(wire, pieces, number, stop=stop)
    if wire is WireName.MESSAGES:
        return b"".join(_event(data, data["type"]) for data in _message_events(body))
    if wire is WireName.CHAT:
        return b"".join(_event(data) for data in _chat_events(body)) + b"data: [DONE]\n\n"
    numbered = enumerate(_response_events(body))
    return b"".join(_event({**data, "sequence_number": at}, data["type"]) for at, data in numbered)


def parse_events(data: bytes) -> list[Json]:
    """The data of each event; `[DONE]` is left out."""
    found = []
    for event in data.split(b"\n\n"):
        lines = [line[6:] for line in event.split(b"\n") if line.startswith(b"data: ")]
        if lines and lines != [b"[DONE]"]:
            found.append(json.loads(b"\n".join(lines)))
    return found


def seen(wire: WireName, streamed: Sequence[Json]) -> Json:
    """The whole answer that a client puts together from its events, its checks included."""
    if wire is WireName.MESSAGES:
        return _seen_messages(streamed)
    if wire is WireName.CHAT:
        return _seen_chat(streamed)
    return _seen_response(streamed)


def pieces_of(wire: WireName, body: Json) -> list[Piece]:
    """What an answer says, in its order; the chat wire has thoughts, text and calls, in this order."""
    if wire is WireName.MESSAGES:
        return [_piece(block) for block in body["content"]]
    if wire is WireName.CHAT:
        message = body["choices"][0]["message"]
        thought, text = message.get("reasoning_content"), message.get("content")
        calls = [
            ("call", call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls") or []
        ]
        return [*([("think", thought)] if thought else []), *([("text", text)] if text else []), *calls]
    return [_piece_of_item(item) for item in body["output"]]


def given_back(wire: WireName, body: Json) -> list[Json]:
    """An answer as a client's next request has it."""
    if wire is WireName.MESSAGES:
        return [{"role": "assistant", "content": body["content"]}]
    if wire is WireName.CHAT:
        return [body["choices"][0]["message"]]
    return list(body["output"])


def results(wire: WireName, calls: Sequence[Piece], text: str = "a result") -> list[Json]:
    """What a client answers calls with."""
    if wire is WireName.MESSAGES:
        return [
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call[1], "content": text} for call in calls],
            }
        ]
    if wire is WireName.CHAT:
        return [{"role": "tool", "tool_call_id": call[1], "content": text} for call in calls]
    return [{"type": "function_call_output", "call_id": call[1], "output": text} for call in calls]


def request(wire: WireName, messages: Sequence[Json], *, stream: bool, tools: Sequence[str] = ("Read",)) -> Json:
    """A request with tools of its own."""
    schema = {"type": "object", "properties": {}}
    body: Json = {"model": "m", "stream": stream}
    if wire is WireName.MESSAGES:
        offered = [{"name": name, "input_schema": schema} for name in tools]
        return {**body, "max_tokens": 100, "messages": list(messages), "tools": offered}
    if wire is WireName.CHAT:
        offered = [{"type": "function", "function": {"name": name, "parameters": schema}} for name in tools]
        return {**body, "messages": list(messages), "tools": offered, "stream_options": {"include_usage": True}}
    offered = [{"type": "function", "name": name, "parameters": schema} for name in tools]
    return {**body, "input": list(messages), "tools": offered, "store": False}


def _block(piece: Piece) -> Json:
    if piece[0] == "think":
        return {"type": "thinking", "thinking": piece[1], "signature": f"sig:{piece[1]}"}
    if piece[0] == "text":
        return {"type": "text", "text": piece[1]}
    return {"type": "tool_use", "id": piece[1], "name": piece[2], "input": json.loads(piece[3])}


def _piece(block: Json) -> Piece:
    if block["type"] == "thinking":
        assert block["signature"] == f"sig:{block['thinking']}", "a signature belongs to its thought"
        return ("think", block["thinking"])
    if block["type"] == "text":
        return ("text", block["text"])
    return ("call", block["id"], block["name"], json.dumps(block["input"]))


def _chat_call(piece: Piece) -> Json:
    return {"id": piece[1], "type": "function", "function": {"name": piece[2], "arguments": piece[3]}}


def _item(piece: Piece, key: str) -> Json:
    if piece[0] == "think":
        said = [{"type": "summary_text", "text": piece[1]}]
        return {"type": "reasoning", "id": f"rs_{key}", "summary": said, "encrypted_content": f"sealed:{piece[1]}"}
    if piece[0] == "text":
        part = {"type": "output_text", "text": piece[1], "annotations": []}
        return {"type": "message", "id": f"msg_{key}", "role": "assistant", "status": "completed", "content": [part]}
    call = {"call_id": piece[1], "name": piece[2], "arguments": piece[3]}
    return {"type": "function_call", "id": f"fc_{key}", "status": "completed", **call}


def _piece_of_item(item: Json) -> Piece:
    if item["type"] == "reasoning":
        assert item["encrypted_content"] == f"sealed:{item['summary'][0]['text']}"
        return ("think", item["summary"][0]["text"])
    if item["type"] == "message":
        return ("text", item["content"][0]["text"])
    return ("call", item["call_id"], item["name"], item["arguments"])


def _joined(pieces: Sequence[Piece], kind: str) -> str:
    return "".join(piece[1] for piece in pieces if piece[0] == kind)


def _halves(text: str) -> list[str]:
    half = len(text) // 2
    return [part for part in (text[:half], text[half:]) if part]


def _event(data: Json, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json.dumps(data).encode() + b"\n\n"


def _message_events(body: Json) -> list[Json]:
    usage = body["usage"]
    begun = {**body, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    found: list[Json] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(body["content"]):
        kind = block["type"]
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}[kind]
        found.append({"type": "content_block_start", "index": index, "content_block": {**block, **empty}})
        if kind == "tool_use":
            deltas = [{"type": "input_json_delta", "partial_json": p} for p in _halves(json.dumps(block["input"]))]
        else:
            deltas = [{"type": f"{kind}_delta", kind: part} for part in _halves(block[kind])]
        if kind == "thinking":
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    stop = {"stop_reason": body["stop_reason"], "stop_sequence": None}
    found.append({"type": "message_delta", "delta": stop, "usage": {"output_tokens": usage["output_tokens"]}})
    return [*found, {"type": "message_stop"}]


def _chat_events(body: Json) -> list[Json]:
    head = {**{key: body[key] for key in ("id", "created", "model")}, "object": "chat.completion.chunk"}
    choice = body["choices"][0]
    message = choice["message"]
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    for field in ("reasoning_content", "content"):
        deltas += [{field: part} for part in _halves(message.get(field) or "")]
    for index, call in enumerate(message.get("tool_calls") or []):
        begun = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        for part in _halves(call["function"]["arguments"]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    return [*chunks, {**head, "choices": [], "usage": body["usage"]}]


def _response_events(body: Json) -> list[Json]:
    begun = {**body, "status": "in_progress", "output": [], "usage": None}
    found: list[Json] = [{"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress")]
    for index, item in enumerate(body["output"]):
        at = {"output_index": index, "item_id": item["id"]}
        empty = {"function_call": {"arguments": ""}, "message": {"content": []}, "reasoning": {"summary": []}}
        start = {**item, **empty[item["type"]]}
        found.append({"type": "response.output_item.added", "output_index": index, "item": start})
        if item["type"] == "message":
            text = item["content"][0]["text"]
            found += [{"type": "response.output_text.delta", **at, "delta": part} for part in _halves(text)]
            found.append({"type": "response.output_text.done", **at, "text": text})
        elif item["type"] == "function_call":
            for part in _halves(item["arguments"]):
                found.append({"type": "response.function_call_arguments.delta", **at, "delta": part})
        found.append({"type": "response.output_item.done", "output_index": index, "item": item})
    return [*found, {"type": f"response.{body['status']}", "response": body}]


def _seen_messages(streamed: Sequence[Json]) -> Json:
    kinds = [data["type"] for data in streamed]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("message_start") == kinds.count("message_delta") == kinds.count("message_stop") == 1
    body = dict(streamed[0]["message"])
    content: list[Json] = []
    inputs: list[str] = []
    is_open = False
    for data in streamed[1:-2]:
        if data["type"] == "content_block_start":
            assert not is_open
            assert data["index"] == len(content), "indexes are contiguous"
            content.append(dict(data["content_block"]))
            inputs.append("")
            is_open = True
            continue
        assert is_open
        assert data["index"] == len(content) - 1, "pieces belong to the open block"
        if data["type"] == "content_block_stop":
            is_open = False
            if content[-1]["type"] == "tool_use":
                content[-1]["input"] = json.loads(inputs[-1] or "{}")
            continue
        delta = data["delta"]
        if delta["type"] == "input_json_delta":
            inputs[-1] += delta["partial_json"]
        else:
            field = delta["type"].removesuffix("_delta")
            content[-1][field] += delta[field]
    assert not is_open
    end = streamed[-2]
    return {**body, "content": content, **end["delta"], "usage": {**body["usage"], **end["usage"]}}


def _seen_chat(streamed: Sequence[Json]) -> Json:
    assert len({data["id"] for data in streamed}) == 1, "one answer"
    assert len({data["created"] for data in streamed}) == 1
    message: Json = {"role": "assistant", "content": None}
    calls: list[Json] = []
    reason, usage = None, None
    for data in streamed:
        usage = data.get("usage") or usage
        for choice in data["choices"]:
            assert reason is None, "nothing follows the end"
            reason = choice["finish_reason"]
            for field in ("content", "reasoning_content"):
                if choice["delta"].get(field):
                    message[field] = (message.get(field) or "") + choice["delta"][field]
            for call in choice["delta"].get("tool_calls") or []:
                if call["index"] == len(calls):
                    calls.append({"id": call["id"], "type": "function", "function": dict(call["function"])})
                else:
                    assert call["index"] == len(calls) - 1, "indexes are contiguous"
                    calls[-1]["function"]["arguments"] += call["function"]["arguments"]
    assert reason is not None
    if calls:
        message["tool_calls"] = calls
    head = {key: streamed[0][key] for key in ("id", "created", "model")}
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}


def _seen_response(streamed: Sequence[Json]) -> Json:
    assert [data["sequence_number"] for data in streamed] == list(range(len(streamed))), "events are numbered"
    assert [data["type"] for data in streamed].count("response.created") == 1
    items: list[Json] = []
    num_begun = 0
    for data in streamed:
        if data["type"] == "response.output_item.added":
            assert data["output_index"] == num_begun, "indexes are contiguous"
            num_begun += 1
        elif data["type"] == "response.output_item.done":
            assert data["output_index"] == num_begun - 1
            items.append(data["item"])
        elif "output_index" in data:
            assert data["output_index"] == num_begun - 1
    body: Json = streamed[-1]["response"]
    assert streamed[-1]["type"] in ("response.completed", "response.incomplete")
    assert body["id"] == streamed[0]["response"]["id"]
    assert body["output"] == items, "the end repeats what was sent"
    return body
