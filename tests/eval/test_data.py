from __future__ import annotations

import json
from pathlib import Path

import pytest
import zstandard

from sluice.eval.data import WINDOW_BYTES, TraceLine, agent_of, read_lines, read_traces
from sluice.eval.errors import TraceError
from tests.eval.builders import assistant, recorded, system, tool, trace_of, user


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_reads_lines_and_skips_empty_ones(tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", json.dumps(recorded(user("a"))), "", json.dumps(recorded(user("b"))))
    assert [line.number for line in read_lines(file)] == [1, 3]
    assert [trace.messages[0].content for trace in read_traces(file)] == ["a", "b"]


def test_reads_zstd_with_a_long_window_and_several_frames(tmp_path: Path) -> None:
    line = json.dumps(recorded(user("a" * 1000))).encode() + b"\n"
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    # A stream's frame names no content size, so that it demands its whole window of the decoder.
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = stream.compress(line) + stream.flush()
    assert zstandard.get_frame_parameters(frame).window_size == WINDOW_BYTES
    file = tmp_path / "t.jsonl.zst"
    file.write_bytes(frame + frame)
    assert len(list(read_traces(file))) == 2


def test_what_is_no_part_of_the_chat_form_is_taken_off() -> None:
    trace = trace_of(
        user("a", meta=True, compaction_note="x", demo=True),
        assistant("b", {"x": 1}, reasoning_content="secret thoughts"),
        tool("c", is_error=True),
        observation_indexes=[],
    )
    sent = [json.loads(message.raw) for message in trace.messages]
    assert [sorted(message) for message in sent] == [
        ["content", "role"],
        ["content", "role", "tool_calls"],
        ["content", "role", "tool_call_id"],
    ]
    assert b"secret" not in b"".join(message.raw for message in trace.messages)


def test_observations_of_text_only_agents_are_results() -> None:
    trace = trace_of(user("do"), assistant("ls"), user("a.py"), assistant("done"), observation_indexes=[2])
    assert trace.results == {2}
    assert trace_of(user("do"), assistant("", {"a": 1}), tool("x")).results == {2}


def test_a_turn_is_the_history_before_each_assistant_message() -> None:
    trace = trace_of(user("a"), assistant("b"), tool("c"), tool("d"), assistant("e"), user("f"))
    assert [(turn.answer, turn.history, turn.begins_request) for turn in trace.turns()] == [
        (1, (0,), True),
        (4, (0, 1, 2, 3), False),
    ]
    assert [turn.answer for turn in trace.turns(1)] == [1]


def test_an_assistant_message_with_nothing_before_it_counts_but_is_no_request() -> None:
    trace = trace_of(assistant("hello"), user("a"), assistant("b"), assistant("c"))
    assert [turn.answer for turn in trace.turns(2)] == [2]
    assert trace.turns(2)[0].begins_request


def test_a_compaction_begins_a_new_request_with_the_leading_system_messages() -> None:
    trace = trace_of(
        system("s"), user("a"), assistant("b"), user("summary", compaction_summary=True), assistant("c"), assistant("d")
    )
    assert [(turn.history, turn.begins_request) for turn in trace.turns()] == [
        ((0, 1), True),
        ((0, 3), True),
        ((0, 3, 4), False),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "Expecting property name"),
        ("[]", "a conversation must be an object, not list"),
        ('{"id": "a"}', "messages must be a list"),
        (json.dumps(recorded(user("a"), {"content": "b"})), "message 1: a message must be an object with a role"),
        (json.dumps(recorded("a")), "message 0: a message must be an object"),  # type: ignore[arg-type]
        (json.dumps(recorded({"role": "user", "content": 3})), "message 0: content must be a text"),
        (json.dumps(recorded({"role": "user", "content": ["a"]})), "message 0: a content part must be an object"),
        (json.dumps(recorded({"role": "assistant", "tool_calls": [{}]})), "message 0: a tool call must be an object"),
        (json.dumps(recorded({"role": "assistant", "tool_calls": {"a": 1}})), "message 0: tool_calls must be a list"),
        (json.dumps(recorded(user("a"), observation_indexes=[1])), "observation_indexes: 1 is no index"),
        (json.dumps({**recorded(user("a")), "agent": None}), "agent must be a string, not None"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    file = write(tmp_path / "t.jsonl", json.dumps(recorded(user("a"))), line)
    with pytest.raises(TraceError) as caught:
        list(read_traces(file))
    assert str(caught.value).startswith(f"{file}:2: ")
    assert problem in str(caught.value)


def test_a_file_that_is_missing_or_no_zstd(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        list(read_lines(tmp_path / "none.jsonl"))
    file = write(tmp_path / "t.jsonl.zst", json.dumps(recorded(user("a"))))
    with pytest.raises(TraceError, match="not readable as zstd"):
        list(read_lines(file))


def test_half_a_surrogate_pair_is_read_and_sent_as_an_escape() -> None:
    message = trace_of({"role": "tool", "tool_call_id": "a", "content": "cut \ud83d"}).messages[0]
    assert b"\\ud83d" in message.raw
    assert message.content == "cut \ud83d"


def test_the_agent_is_found_without_reading_the_rest() -> None:
    assert agent_of(TraceLine("t", 1, b'{"messages": [], "agent": "x"}')) == "x"
    assert agent_of(TraceLine("t", 1, b"{")) is None


def test_the_agent_is_found_beside_half_a_surrogate_pair() -> None:
    assert agent_of(TraceLine("t", 1, b'{"messages": [{"content": "cut \\ud83d"}], "agent": "x"}')) == "x"
