"""A file's format is told by its first values together; what is not of it is named, never passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sluice.eval.errors import TraceError
from sluice.eval.readers import read_conversations
from tests.eval.builders import recorded, user
from tests.eval.readers.samples import BLOCKS, CALL, CHAT, ITEMS, Json, document, lines, read, told

QUOTA = {"max_tokens": 1, "messages": [{"role": "user", "content": "quota"}]}


def test_a_first_request_that_two_formats_know_decides_nothing(tmp_path: Path) -> None:
    small, trace = read(lines(tmp_path / "t.jsonl", QUOTA, {"system": "be good", "messages": BLOCKS}))
    assert (small.agent, told(small)) == ("messages", [("user", "quota")])
    assert told(trace)[2:4] == [("assistant", "look"), ("tool", "def f(): ...")]


def test_blocks_of_another_api_do_not_make_chat_requests_messages(tmp_path: Path) -> None:
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}], "tool_calls": [CALL]}
    (trace,) = read(lines(tmp_path / "t.jsonl", {"messages": [*CHAT[:2], thought, CHAT[3]]}))
    assert (trace.agent, trace.messages[2].num_calls) == ("chat", 1)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([{"messages": CHAT}, {"messages": [{"content": "no role"}]}], "t.jsonl:2: as OpenAI chat: no messages"),
        ([{"messages": CHAT}, {"name": "x"}], "t.jsonl:2: as OpenAI chat: no messages"),
        ([{"messages": CHAT}, {"input": ITEMS}], "t.jsonl:1: as OpenAI Responses: no input"),
        ([{"system": "s", "messages": BLOCKS}, {"name": "x"}], "t.jsonl:2: as Anthropic Messages: no messages"),
        ([{"system": "s", "messages": BLOCKS}, {"messages": CHAT}], "t.jsonl:2: as Anthropic Messages: a message of"),
        ([{"input": ITEMS, "previous_response_id": "r"}], "t.jsonl:1: as OpenAI Responses: its history"),
    ],
)
def test_what_is_not_of_the_format_is_named(tmp_path: Path, values: list[Json], problem: str) -> None:
    with pytest.raises(TraceError) as caught:
        read(lines(tmp_path / "t.jsonl", *values))
    assert problem in str(caught.value)


def test_a_chat_request_with_a_tool_that_has_our_keys_is_none_of_ours(tmp_path: Path) -> None:
    names = {name: {"type": "string"} for name in ("id", "source", "agent")}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": names}}}
    (trace,) = read(lines(tmp_path / "t.jsonl", {"messages": CHAT, "tools": [tool]}))
    assert trace.agent == "chat"


def test_our_own_form_bears_half_an_emoji(tmp_path: Path) -> None:
    (trace,) = read(lines(tmp_path / "t.jsonl", recorded(user("cut \ud83d"))))
    assert (trace.agent, trace.messages[0].content) == ("made-up", "cut \ud83d")


def test_in_a_folder_what_is_no_json_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "tsconfig.json").write_text('{\n  // options\n  "strict": true\n}\n')
    (tmp_path / "broken.jsonl").write_text('{"name": "x"}\n{\n')
    lines(tmp_path / "t.jsonl", {"messages": CHAT})
    assert len(read(tmp_path)) == 1
    with pytest.raises(TraceError, match=r"tsconfig\.json:1: Expecting property name"):
        read(tmp_path / "tsconfig.json")


@pytest.mark.parametrize("num_before", [1, 60])
def test_in_a_folder_a_broken_line_of_a_known_format_is_named(tmp_path: Path, num_before: int) -> None:
    file = lines(tmp_path / "t.jsonl", *[{"messages": CHAT}] * num_before)
    file.write_text(file.read_text() + "{\n")
    with pytest.raises(TraceError, match=rf"t\.jsonl:{num_before + 1}: Expecting property name"):
        read(tmp_path)


def test_pages_of_openhands_events_are_not_read_again(tmp_path: Path) -> None:
    events = [{"id": 0, "source": "user", "action": "message", "args": {"content": "fix it"}}]
    for name in ("events", "event_cache"):
        (tmp_path / name).mkdir()
    document(tmp_path / "events" / "0.json", events[0])
    page = document(tmp_path / "event_cache" / "0-25.json", events)
    (trace,) = read(tmp_path)
    assert told(trace) == [("user", "fix it")]
    assert len(read(page)) == 1


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(TraceError, match=r"pipe\.jsonl: neither a file nor a folder"):
        list(read_conversations(tmp_path / "pipe.jsonl"))
    assert read(tmp_path) == []


def test_shell_calls_and_patches_of_responses(tmp_path: Path) -> None:
    operation = {"type": "update_file", "path": "a.py", "diff": "+x"}
    outcome = {"type": "exit", "exit_code": 0}
    items = [
        ITEMS[0],
        {"type": "shell_call", "call_id": "c1", "action": {"commands": ["cd src", "ls"]}},
        {"type": "apply_patch_call", "call_id": "c2", "operation": operation},
        {
            "type": "shell_call_output",
            "call_id": "c1",
            "output": [{"stdout": "a.py", "stderr": "oh", "outcome": outcome}],
        },
        {"type": "apply_patch_call_output", "call_id": "c2", "status": "completed", "output": "patched"},
    ]
    (trace,) = read(lines(tmp_path / "t.jsonl", {"input": items}))
    assert told(trace) == [("user", "fix it"), ("assistant", ""), ("tool", "a.py\noh"), ("tool", "patched")]
    assert trace.messages[1].num_calls == 2
    assert b"cd src\nls" in trace.messages[1].shown
    assert b"update_file" in trace.messages[1].shown
