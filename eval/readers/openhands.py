"""OpenHands' events: those of its SDK (each with a `kind`), and those of version 0 (`action` and `observation`).

One JSON list, one event a line, or a folder with a file an event. What its condenser forgets is gone from the
summary on; of the events that it kept, none is repeated behind the summary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sluice.eval.readers.base import Format, Message, Recorded, Value, add_calls, call, result, text_of

_SILENT = {"agent_state_changed", "recall", "null", "change_agent_state", "microagent", "condensation"}
"""Events of version 0 that no model is shown."""


def knows(value: Any) -> bool:
    """See `Format`."""
    event = value[0] if isinstance(value, list) and value else value
    if not isinstance(event, dict) or event.get("source") not in ("agent", "user", "environment"):
        return False
    return str(event.get("kind", "")).endswith(("Event", "Condensation")) or "action" in event or "observation" in event


def read(values: Iterable[Value]) -> Iterator[Recorded]:
    """See `Format`."""
    events: list[Any] = []
    for value in values:
        if isinstance(value.data, list):
            yield from _conversation(value.data, value.number)
        else:
            events.append(value.data)
    yield from _conversation(events, 1)


def _conversation(events: list[Any], number: int) -> Iterator[Recorded]:
    found = Recorded("openhands", [], number=number)
    answers: dict[str, Message] = {}
    for event in events:
        if not isinstance(event, dict):
            raise ValueError("an event must be an object")
        (_add_event if "kind" in event else _add_old_event)(found.messages, answers, event)
    if found.messages:
        yield found


def _add_event(messages: list[Message], answers: dict[str, Message], event: dict[str, Any]) -> None:
    kind, call_id = event["kind"], str(event.get("tool_call_id") or "")
    if kind == "SystemPromptEvent":
        parts = (event.get("system_prompt"), event.get("dynamic_context"))
        texts = [str(part.get("text", "")) for part in parts if isinstance(part, dict)]
        messages.append({"role": "system", "content": "\n".join(texts)})
    elif kind == "MessageEvent":
        said = event.get("llm_message") or {}
        texts = [text_of(said.get("content")), text_of(event.get("extended_content"))]
        messages.append({"role": str(said.get("role", "user")), "content": "\n".join(filter(None, texts))})
    elif kind == "ActionEvent":
        _call(
            messages,
            answers,
            str(event.get("llm_response_id")),
            text_of(event.get("thought")),
            event["tool_call"],
            event,
        )
    elif kind == "ObservationEvent":
        shown = event.get("observation") or {}
        text = text_of(shown.get("content") if isinstance(shown, dict) else shown) or text_of(shown.get("output"))
        messages.append(result(call_id, "\n".join(filter(None, (text, text_of(event.get("extended_content")))))))
    elif kind in ("AgentErrorEvent", "UserRejectObservation"):
        messages.append(result(call_id, str(event.get("error") or event.get("rejection_reason") or "")))
    elif kind == "Condensation" and event.get("summary"):
        messages.append({"role": "user", "content": str(event["summary"]), "compaction_summary": True})


def _call(
    messages: list[Message],
    answers: dict[str, Message],
    response_id: str,
    thought: str,
    made: dict[str, Any],
    event: dict[str, Any],
) -> None:
    """One call of an answer; the first one of an answer brings its text."""
    if response_id not in answers:
        answers[response_id] = {"role": "assistant", "content": thought}
        messages.append(answers[response_id])
    function = made.get("function") or made
    name = str(function.get("name") or event.get("tool_name"))
    add_calls(answers[response_id], [call(str(made.get("id")), name, function.get("arguments") or {})])


def _add_old_event(messages: list[Message], answers: dict[str, Message], event: dict[str, Any]) -> None:
    action, observation = event.get("action"), event.get("observation")
    if (action or observation) in _SILENT or not (action or observation):
        return
    arguments, made = event.get("args") or {}, event.get("tool_call_metadata") or {}
    name = str(made.get("tool_call_id") or f"event_{event.get('cause', event.get('id'))}")
    if observation:
        messages.append(result(name, text_of(event.get("content"))))
    elif action == "system":
        messages.append({"role": "system", "content": text_of(arguments.get("content"))})
    elif action == "message" or event.get("source") == "user":
        role = "user" if event.get("source") == "user" else "assistant"
        messages.append({"role": role, "content": text_of(arguments.get("content"))})
    else:
        response = made.get("model_response") or {}
        said: dict[str, Any] = next(
            (choice["message"] for choice in response.get("choices") or [] if "message" in choice), {}
        )
        calls = {str(each.get("id")): each for each in said.get("tool_calls") or []}
        plain = {"id": name, "name": made.get("function_name") or action, "arguments": arguments}
        thought = text_of(said.get("content")) or text_of(arguments.get("thought"))
        _call(messages, answers, str(response.get("id") or name), thought, calls.get(name) or plain, event)


FORMAT = Format("OpenHands", knows, read)
