"""Writes answers in OpenAI's Responses format, as events and whole. Knows no other format.

The order of events is OpenAI's: response.created, response.in_progress, then per item its beginning, pieces and end,
then response.completed (or incomplete, or failed) with everything once more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping

from sluice.proxy.translation.deltas import CallArguments, CallBegin, Fault, Stop, Thinking, Tokens
from sluice.proxy.translation.faults import openai_error, responses_error
from sluice.proxy.translation.json_codec import Json, decode_object, mapping
from sluice.proxy.translation.sse import event
from sluice.proxy.translation.tool_names import Kind, ToolName, custom_input
from sluice.proxy.translation.writer import AnswerWriter

_ECHOED: dict[str, object] = {
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "max_output_tokens": None,
    "reasoning": None,
    "text": {"format": {"type": "text"}},
    "truncation": "disabled",
}
"""What clients' types want to be there. The provider repeats the request here; a client's own tools would come back to
it three times with every turn, and nobody reads them."""
_INCOMPLETE = {Stop.LENGTH: "max_output_tokens", Stop.REFUSAL: "content_filter"}


class ResponsesWriter(AnswerWriter):
    """Writes one answer.

    Args:
        names: the client's tools by their names in the chat format.
    """

    _begins_with_fault = True

    def __init__(self, *, names: Mapping[str, ToolName]) -> None:
        super().__init__()
        self._names = names
        self._response: Json = {}
        self._number = 0
        self._item: Json | None = None
        self._part: str | None = None
        self._pieces: list[str] = []
        self._call: int | None = None

    def _stop(self) -> bytes:
        return self._close()

    def _last(self) -> bytes:
        closed = self._close()
        reason = _INCOMPLETE.get(self._end.stop)
        self._response["status"] = "incomplete" if reason else "completed"
        self._response["incomplete_details"] = {"reason": reason} if reason else None
        self._response["completed_at"] = None if reason else int(time.time())
        self._response["usage"] = _usage(self._tokens)
        kind = "response.incomplete" if reason else "response.completed"
        return closed + self._event(kind, response=self._response)

    def _body(self) -> Json:
        return self._response

    def _error(self, fault: Fault) -> Json:
        return openai_error(fault)

    def _begin(self, model: str) -> bytes:
        self._response = {
            "id": f"resp_{secrets.token_hex(12)}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            "usage": None,
            **_ECHOED,
        }
        created = self._event("response.created", response=self._response)
        return created + self._event("response.in_progress", response=self._response)

    def _fail(self, fault: Fault) -> bytes:
        self._response["status"] = "failed"
        self._response["error"] = responses_error(fault)
        return self._event("response.failed", response=self._response)

    def _said(self, kind: str, piece: str) -> bytes:
        opened = b""
        if self._item is None or self._item["type"] != "message":
            opened = self._open({"type": "message", "role": "assistant", "content": []}, "msg")
        if self._part != kind:
            opened += self._close_part() + self._open_part(kind)
        self._pieces.append(piece)
        if kind == "refusal":
            return opened + self._piece("response.refusal.delta", delta=piece, **self._at)
        return opened + self._piece("response.output_text.delta", delta=piece, logprobs=[], **self._at)

    def _text(self, piece: str) -> bytes:
        return self._said("output_text", piece)

    def _refusal(self, piece: str) -> bytes:
        return self._said("refusal", piece)

    def _thinking(self, delta: Thinking) -> bytes:
        opened = b""
        if self._item is None or self._item["type"] != "reasoning":
            opened = self._open({"type": "reasoning", "summary": [], "content": []}, "rs")
            opened += self._open_part("reasoning_text")
        self._pieces.append(delta.text)
        return opened + self._piece("response.reasoning_text.delta", delta=delta.text, **self._at)

    def _call_begin(self, delta: CallBegin) -> bytes:
        tool = self._names.get(delta.name, ToolName(delta.name))
        item: Json = {"type": "function_call", "call_id": delta.call_id, "name": tool.name, "arguments": ""}
        prefix = "fc"
        if tool.kind is Kind.CUSTOM:
            item = {"type": "custom_tool_call", "call_id": delta.call_id, "name": tool.name, "input": ""}
            prefix = "ctc"
        elif tool.kind is Kind.LOCAL_SHELL:
            action = {"type": "exec", "command": [], "env": {}}
            item = {"type": "local_shell_call", "call_id": delta.call_id, "action": action}
            prefix = "lsh"
        if tool.namespace:
            item["namespace"] = tool.namespace
        opened = self._open(item, prefix)
        self._call = delta.index
        return opened

    def _arguments(self, delta: CallArguments) -> bytes:
        if self._item is None or delta.index != self._call:
            return b""  # its call is whole already
        self._pieces.append(delta.text)
        if self._item["type"] != "function_call":
            return b""  # its input is known when its JSON is whole
        return self._piece("response.function_call_arguments.delta", delta=delta.text)

    def _open(self, item: Json, prefix: str) -> bytes:
        closed = self._close()
        key = f"{prefix}_{self._response['id'].removeprefix('resp_')}_{self._index}"
        self._item = {"id": key, **item, "status": "in_progress"}
        return closed + self._event("response.output_item.added", output_index=self._index, item=self._item)

    def _open_part(self, kind: str) -> bytes:
        self._part = kind
        return self._piece("response.content_part.added", part=_part(kind, ""), **self._at)

    def _close_part(self) -> bytes:
        kind, self._part = self._part, None
        if kind is None or self._item is None:
            return b""
        said, self._pieces = "".join(self._pieces), []
        part = _part(kind, said)
        if kind == "refusal":
            done = self._piece("response.refusal.done", refusal=said, **self._at)
        elif kind == "reasoning_text":
            done = self._piece("response.reasoning_text.done", text=said, **self._at)
        else:
            done = self._piece("response.output_text.done", text=said, logprobs=[], **self._at)
        done += self._piece("response.content_part.done", part=part, **self._at)
        self._item["content"].append(part)
        return done

    def _close(self) -> bytes:
        item = self._item
        if item is None:
            return b""
        closers: dict[str, Callable[[Json, str], bytes]] = {
            "function_call": self._close_function,
            "custom_tool_call": self._close_custom,
            "local_shell_call": self._close_shell,
        }
        if (closer := closers.get(item["type"])) is not None:
            written, self._pieces = "".join(self._pieces), []
            closed = closer(item, written)
        else:
            closed = self._close_part()
        item["status"] = "completed"
        closed += self._event("response.output_item.done", output_index=self._index, item=item)
        self._response["output"].append(item)
        self._item, self._call = None, None
        return closed

    def _close_function(self, item: Json, written: str) -> bytes:
        item["arguments"] = written or "{}"
        return self._piece("response.function_call_arguments.done", name=item["name"], arguments=item["arguments"])

    def _close_custom(self, item: Json, written: str) -> bytes:
        item["input"] = custom_input(written)
        piece = self._piece("response.custom_tool_call_input.delta", delta=item["input"]) if item["input"] else b""
        return piece + self._piece("response.custom_tool_call_input.done", input=item["input"])

    def _close_shell(self, item: Json, written: str) -> bytes:
        try:
            action = decode_object(written)
        except ValueError:
            action = {"command": ["bash", "-lc", written]}
        command = action.get("command")
        action["command"] = ["bash", "-lc", command] if isinstance(command, str) else command or []
        item["action"] = {**item["action"], **mapping(action)}
        return b""

    @property
    def _index(self) -> int:
        return len(self._response["output"])

    @property
    def _at(self) -> Json:
        assert self._item is not None
        return {"content_index": len(self._item["content"])}

    def _piece(self, kind: str, **fields: object) -> bytes:
        assert self._item is not None
        return self._event(kind, item_id=self._item["id"], output_index=self._index, **fields)

    def _event(self, kind: str, **fields: object) -> bytes:
        self._number += 1
        return event({"type": kind, "sequence_number": self._number - 1, **fields}, name=kind)


def _part(kind: str, said: str) -> Json:
    if kind == "refusal":
        return {"type": kind, "refusal": said}
    if kind == "reasoning_text":
        return {"type": kind, "text": said}
    return {"type": kind, "text": said, "annotations": [], "logprobs": []}


def _usage(tokens: Tokens) -> Json:
    return {
        "input_tokens": tokens.num_prompt,
        "input_tokens_details": {"cached_tokens": tokens.num_cached, "cache_write_tokens": tokens.num_written},
        "output_tokens": tokens.num_output,
        "output_tokens_details": {"reasoning_tokens": tokens.num_thinking},
        "total_tokens": tokens.num_prompt + tokens.num_output,
    }
