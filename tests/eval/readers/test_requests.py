"""Requests that repeat what was before are one conversation, whatever clients change from one to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sluice.eval.readers import read_conversations
from tests.eval.readers.samples import BLOCKS, CHAT, Json, lines, read, told

CACHED = {"cache_control": {"type": "ephemeral"}}
DONE = {"role": "assistant", "content": "done"}
THANKS = {"role": "user", "content": "thanks"}


def billed(number: int, messages: list[Json]) -> Json:
    line = {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1; cch={number:05};"}
    return {"system": [line, {"type": "text", "text": "be good"}], "messages": messages}


def in_parts(message: Json, **more: Json) -> Json:
    return {**message, "content": [{"type": "text", "text": message["content"], **more}]}


def recorded(time_s: float, messages: list[Json]) -> Json:
    head = {"format": "sluice-record-1", "time": time_s, "wire": "chat", "status": 200, "usage": None}
    return {**head, "request": {"messages": messages}}


def test_a_billing_line_that_changes_with_each_request(tmp_path: Path) -> None:
    requests = [billed(number, BLOCKS[:length]) for number, length in enumerate((1, 3))]
    (trace,) = read(lines(tmp_path / "t.jsonl", *requests))
    assert len(trace.messages) == 5
    assert trace.messages[0].content.endswith("cch=00001;\nbe good")


def test_the_same_line_through_a_translation_to_chat(tmp_path: Path) -> None:
    def request(number: int, messages: list[Json]) -> Json:
        return {"messages": [{"role": "system", "content": billed(number, [])["system"]}, *messages]}

    (trace,) = read(lines(tmp_path / "t.jsonl", request(1, CHAT[1:2]), request(2, CHAT[1:])))
    assert len(trace.messages) == len(CHAT)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda message: in_parts(message, **CACHED), in_parts),
        (lambda message: in_parts(message, **CACHED), lambda message: message),
        (lambda message: {**message, **CACHED}, lambda message: message),
    ],
)
def test_a_mark_that_moves_on_with_the_newest_message(tmp_path: Path, before: Any, after: Any) -> None:
    first = {"messages": [CHAT[0], before(CHAT[1])]}
    second = {"messages": [CHAT[0], after(CHAT[1]), *CHAT[2:3], before(CHAT[3])]}
    third = {"messages": [CHAT[0], after(CHAT[1]), *CHAT[2:3], after(CHAT[3]), DONE, before(THANKS)]}
    (trace,) = read(lines(tmp_path / "t.jsonl", first, second, third))
    assert len(trace.messages) == 6


def test_what_differs_in_more_is_another_conversation(tmp_path: Path) -> None:
    requests = [{"messages": [{"role": "user", "content": text}]} for text in ("a", "b", "x-anthropic-billing-header:")]
    assert len(read(lines(tmp_path / "t.jsonl", *requests))) == 3


def test_a_conversation_in_the_files_of_several_processes(tmp_path: Path) -> None:
    """Two workers took turns, and a restart began a third file."""
    grown = [CHAT[:2], CHAT, [*CHAT, DONE, THANKS], [*CHAT, DONE, THANKS, DONE, THANKS]]
    other = [{"role": "user", "content": "other"}]
    folder = tmp_path / "record"
    folder.mkdir()
    one = lines(folder / "1.jsonl", recorded(2.0, grown[1]), recorded(3.0, other))
    two = lines(folder / "2.jsonl", recorded(1.0, grown[0]), recorded(4.0, grown[2]))
    three = lines(folder / "3.jsonl", recorded(5.0, grown[3]))
    for paths in ([folder], [one, two, three], [three, one, two]):
        found = list(read_conversations(*paths))
        assert [(line.path, line.number) for line in found] == [(str(two), 1), (str(one), 2)]
    assert [len(trace.messages) for trace in read(folder)] == [8, 1]
    assert told(read(folder)[1]) == [("user", "other")]
