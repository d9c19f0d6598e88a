"""Each format as the agent writes it, in small; made up here, in the shapes of the real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sluice.eval.data import Trace
from sluice.eval.errors import TraceError
from sluice.eval.readers import read_conversations
from sluice.eval.readers.told import FORMATS
from sluice.eval.traces import AGENTS, trace_file
from tests.eval.readers.samples import BLOCKS, CALL, CHAT, ITEMS, Json, claude, document, lines, read, told


def assert_one_look(trace: Trace, *, first: list[tuple[str, str]], last: list[tuple[str, str]]) -> None:
    """One call of Read and its result stand between what is before and behind."""
    assert told(trace) == [*first, ("assistant", "look"), ("tool", "def f(): ..."), *last]
    (asked,) = [json.loads(message.raw) for message in trace.messages if message.num_calls]
    (call,) = asked["tool_calls"]
    assert (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) == (
        "c1",
        "Read",
        {"path": "a.py"},
    )
    assert trace.results == {len(first) + 1}
    assert json.loads(trace.messages[len(first) + 1].raw)["tool_call_id"] == "c1"


def test_own_files_pass_as_they_are() -> None:
    for agent in AGENTS:
        (line,) = read_conversations(trace_file(agent))
        assert line.data == trace_file(agent).read_bytes().strip()


@pytest.mark.parametrize("wrap", [lambda body: body, lambda body: {"request": body}, lambda body: {"body": body}])
def test_chat_requests(tmp_path: Path, wrap: Any) -> None:
    (trace,) = read(lines(tmp_path / "t.jsonl", wrap({"model": "m", "messages": CHAT})))
    assert_one_look(trace, first=[("system", "be good"), ("user", "fix it")], last=[])


def test_a_chat_answer_ends_the_conversation(tmp_path: Path) -> None:
    answer = {"choices": [{"message": {"role": "assistant", "content": "done"}}]}
    (trace,) = read(lines(tmp_path / "t.jsonl", {"request": {"messages": CHAT}, "response": answer}))
    assert told(trace)[-1] == ("assistant", "done")


def test_requests_that_repeat_what_was_before_are_one_conversation(tmp_path: Path) -> None:
    other = [{"role": "user", "content": "other"}]
    grown = [*CHAT, {"role": "assistant", "content": "done"}, {"role": "user", "content": "thanks"}]
    requests = [{"messages": each} for each in (CHAT[:2], other, CHAT, grown, [*CHAT[:2], *other])]
    found = read(lines(tmp_path / "t.jsonl", *requests))
    assert [len(trace.messages) for trace in found] == [len(grown), 1, 3]


def test_messages_requests(tmp_path: Path) -> None:
    answer = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "done"}]}
    request = {"model": "m", "system": [{"type": "text", "text": "be good"}], "messages": BLOCKS}
    (trace,) = read(lines(tmp_path / "t.jsonl", {"request": request, "response": answer}))
    last = [("user", "go on"), ("assistant", "done")]
    assert_one_look(trace, first=[("system", "be good"), ("user", "fix it")], last=last)


def test_responses_requests(tmp_path: Path) -> None:
    (trace,) = read(lines(tmp_path / "t.jsonl", {"instructions": "be good", "input": ITEMS}))
    assert_one_look(trace, first=[("system", "be good"), ("user", "fix it")], last=[])
    (trace,) = read(lines(tmp_path / "u.jsonl", {"input": "hi", "model": "m"}))
    assert told(trace) == [("user", "hi")]


def test_claude_code_sessions(tmp_path: Path) -> None:
    _, asked, answered = BLOCKS
    blocks = [{"role": "assistant", "id": "m1", "content": [block]} for block in asked["content"]]
    side = claude("user", {"role": "user", "content": "look around"}, isSidechain=True, agentId="a1")
    file = lines(
        tmp_path / "s1.jsonl",
        {"type": "summary", "summary": "Fixing", "leafUuid": "x"},
        {"type": "file-history-snapshot", "messageId": "m", "snapshot": {}},
        claude("user", {"role": "user", "content": "fix it"}),
        *(claude("assistant", block, requestId="r") for block in blocks),
        side,
        {"type": "system", "subtype": "turn_duration", "sessionId": "s1", "uuid": "v"},
        claude("user", answered, toolUseResult={"stdout": "def f(): ..."}),
        claude("assistant", {"role": "assistant", "id": "m9", "content": []}, isApiErrorMessage=True),
        claude(
            "user", {"role": "user", "content": "summary so far"}, isCompactSummary=True, isVisibleInTranscriptOnly=True
        ),
        claude("assistant", {"role": "assistant", "id": "m2", "content": [{"type": "text", "text": "done"}]}),
    )
    main, aside = read(file)
    last = [("user", "go on"), ("user", "summary so far"), ("assistant", "done")]
    assert_one_look(main, first=[("user", "fix it")], last=last)
    assert (main.id, main.agent, main.starts) == ("s1", "claude-code", {4})
    assert (aside.id, told(aside)) == ("s1/a1", [("user", "look around")])


def codex(kind: str, payload: Json) -> Json:
    return {"timestamp": "2026-01-01T00:00:00.000Z", "type": kind, "payload": payload}


def test_codex_sessions(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "rollout-x.jsonl",
        codex(
            "session_meta",
            {"id": "x1", "cwd": "/w", "cli_version": "0.118.0", "base_instructions": {"text": "be good"}},
        ),
        codex("turn_context", {"model": "gpt-5"}),
        *(codex("response_item", item) for item in ITEMS),
        codex("event_msg", {"type": "token_count", "info": None}),
        codex(
            "response_item", {"type": "custom_tool_call", "name": "apply_patch", "input": "*** Begin", "call_id": "c2"}
        ),
        codex("response_item", {"type": "custom_tool_call_output", "call_id": "c2", "output": "ok"}),
        codex("compacted", {"message": "so far", "replacement_history": ITEMS[:1]}),
    )
    (trace,) = read(file)
    assert told(trace) == [
        ("system", "be good"),
        ("user", "fix it"),
        ("assistant", "look"),
        ("tool", "def f(): ..."),
        ("assistant", ""),
        ("tool", "ok"),
        ("user", "fix it"),
    ]
    assert (trace.id, trace.agent, trace.results, trace.starts) == ("x1", "codex-cli", {3, 5}, {6})


def test_codex_sessions_of_the_first_form(tmp_path: Path) -> None:
    head = {"id": "x1", "timestamp": "t", "instructions": "be good", "git": {}}
    (trace,) = read(lines(tmp_path / "rollout-x.jsonl", head, {"record_type": "state"}, *ITEMS))
    assert_one_look(trace, first=[("system", "be good"), ("user", "fix it")], last=[])


def test_swe_agent_trajectories(tmp_path: Path) -> None:
    history = [
        {"role": "system", "content": "be good", "agent": "main", "message_type": "system_prompt"},
        {
            "role": "user",
            "content": "a demonstration",
            "agent": "main",
            "is_demo": True,
            "message_type": "demonstration",
        },
        {
            "role": "user",
            "content": [{"type": "text", "text": "fix it"}],
            "agent": "main",
            "message_type": "observation",
        },
        {
            "role": "assistant",
            "content": "look",
            "thought": "look",
            "action": "cat a.py",
            "agent": "main",
            "message_type": "action",
        },
        {"role": "user", "content": "def f(): ...", "agent": "main", "message_type": "observation"},
    ]
    (trace,) = read(
        document(tmp_path / "t.traj", {"environment": "main", "trajectory": [], "history": history, "info": {}})
    )
    assert (trace.agent, trace.results, len(trace.messages)) == ("swe-agent", {4}, 5)
    history[3] |= {"tool_calls": [CALL]}
    history[4] |= {"role": "tool", "tool_call_ids": ["c1"]}
    (trace,) = read(
        document(tmp_path / "u.traj", {"trajectory": [], "history": history, "info": {"instance_id": "i-1"}})
    )
    assert trace.id == "i-1"
    first = [("system", "be good"), ("user", "a demonstration"), ("user", "fix it")]
    assert_one_look(trace, first=first, last=[])


def test_mini_swe_agent_trajectories(tmp_path: Path) -> None:
    text = [
        {"role": "system", "content": "be good"},
        {"role": "user", "content": "fix it"},
        {"role": "assistant", "content": "look\n```mswea_bash_command\ncat a.py\n```", "extra": {"actions": []}},
        {"role": "user", "content": "<output>def f(): ...</output>", "extra": {"raw_output": ""}},
        {"role": "exit", "content": "done", "extra": {"exit_status": "Submitted"}},
    ]
    whole = {"info": {"mini_version": "2.0.0"}, "messages": text, "trajectory_format": "mini-swe-agent-1.1"}
    for value in (whole, text):
        (trace,) = read(document(tmp_path / "t.traj.json", value))
        assert (trace.agent, trace.results, len(trace.messages)) == ("mini-swe-agent", {3}, 4)
    answer = {"object": "response", "output": ITEMS[1:4], "extra": {}}
    calls = {**whole, "messages": [*text[:2], answer, {**ITEMS[4], "extra": {}}]}
    (trace,) = read(document(tmp_path / "u.traj.json", calls))
    assert_one_look(trace, first=[("system", "be good"), ("user", "fix it")], last=[])


def event(kind: str, **more: Json) -> Json:
    return {"id": "e", "timestamp": "t", "source": "agent", "kind": kind, **more}


OPENHANDS = [
    event("SystemPromptEvent", system_prompt={"type": "text", "text": "be good"}, tools=[]),
    event("MessageEvent", source="user", llm_message={"role": "user", "content": [{"type": "text", "text": "fix it"}]}),
    event("ConversationStateUpdateEvent", source="environment", key="x", value=1),
    event(
        "ActionEvent",
        thought=[{"type": "text", "text": "look"}],
        tool_name="Read",
        tool_call_id="c1",
        tool_call={"id": "c1", "name": "Read", "arguments": '{"path": "a.py"}', "origin": "completion"},
        llm_response_id="r1",
    ),
    event(
        "ObservationEvent",
        source="environment",
        tool_name="Read",
        tool_call_id="c1",
        action_id="e",
        observation={"kind": "FileEditorObservation", "content": [{"type": "text", "text": "def f(): ..."}]},
    ),
    event("Condensation", source="environment", forgotten_event_ids=["e"], summary="so far", llm_response_id="r2"),
]


def test_openhands_events(tmp_path: Path) -> None:
    folder = tmp_path / "conversation" / "events"
    folder.mkdir(parents=True)
    for number, each in enumerate(OPENHANDS):
        document(folder / f"event-{number:05}-00000000-0000.json", each)
    document(tmp_path / "conversation" / "base_state.json", {"agent": {}})
    files = (document(tmp_path / "list.json", OPENHANDS), lines(tmp_path / "lines.jsonl", *OPENHANDS), folder.parent)
    for file in files:
        (trace,) = read(file)
        first = [("system", "be good"), ("user", "fix it")]
        assert_one_look(trace, first=first, last=[("user", "so far")])
        assert (trace.agent, trace.starts) == ("openhands", {4})


def test_openhands_events_of_version_0(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": "look", "tool_calls": [CALL]}
    made = {
        "function_name": "Read",
        "tool_call_id": "c1",
        "model_response": {"id": "r1", "choices": [{"message": said}]},
        "total_calls_in_response": 1,
    }
    events = [
        {"id": 0, "source": "agent", "action": "system", "args": {"content": "be good", "tools": []}},
        {"id": 1, "source": "user", "action": "message", "args": {"content": "fix it"}},
        {"id": 2, "source": "environment", "observation": "agent_state_changed", "content": "", "extras": {}},
        {"id": 3, "source": "agent", "action": "read", "args": {"path": "a.py"}, "tool_call_metadata": made},
        {
            "id": 4,
            "source": "agent",
            "observation": "read",
            "cause": 3,
            "content": "def f(): ...",
            "tool_call_metadata": made,
        },
    ]
    (trace,) = read(document(tmp_path / "trajectory.json", events))
    assert_one_look(trace, first=[("system", "be good"), ("user", "fix it")], last=[])


@pytest.mark.parametrize(
    ("wire", "request_body"),
    [
        ("chat", {"messages": CHAT}),
        ("messages", {"system": "be good", "messages": BLOCKS[:2]}),
        ("responses", {"input": ITEMS}),
    ],
)
def test_recorded_requests(tmp_path: Path, wire: str, request_body: Json) -> None:
    line = {
        "format": "sluice-record-1",
        "time": 1.0,
        "wire": wire,
        "request": request_body,
        "status": 200,
        "usage": None,
    }
    (trace,) = read(lines(tmp_path / "r.jsonl", line, {**line, "request": None}))
    assert ("assistant", "look") in told(trace)


def test_a_folder_is_searched_and_what_is_no_conversation_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    lines(tmp_path / "deep" / "b.jsonl", {"messages": CHAT})
    lines(tmp_path / "a.jsonl", {"messages": CHAT[:2]})
    document(tmp_path / "package.json", {"name": "x"})
    (tmp_path / "notes.txt").write_text("none")
    assert [len(trace.messages) for trace in read(tmp_path)] == [2, 4]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"name": "x"}\n', "not a recorded conversation in a known format"),
        ("{\n", "t.jsonl:1: Expecting property name"),
        ('{"messages": [{"role": "user", "content": "a"}]}\n{\n', "t.jsonl:2: Expecting property name"),
        (
            '{"timestamp": "t", "type": "session_meta", "payload": {}}\n[]\n',
            "t.jsonl:2: as Codex: an event must be an object",
        ),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(TraceError) as caught:
        list(read_conversations(tmp_path / "t.jsonl"))
    assert problem in str(caught.value)


def test_every_format_has_a_name_of_its_own() -> None:
    assert len({each.name for each in FORMATS}) == len(FORMATS) == 9
