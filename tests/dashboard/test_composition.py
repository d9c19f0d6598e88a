from __future__ import annotations

import json
from typing import Any

from sluice.compressor import OPENAI_CHAT
from sluice.proxy.meter.composition import OTHER, Arrived, Share, ToolNames, counters_of, shares_of
from tests.compressor.conversations import call, encode, result


def arrived(*messages: dict[str, Any], forwarded: dict[int, str]) -> Arrived:
    went = [{**message, "content": forwarded.get(index, message["content"])} for index, message in enumerate(messages)]
    return Arrived(OPENAI_CHAT, [encode(message) for message in messages], [encode(message) for message in went])


def test_each_text_counts_for_its_tool_its_kind_and_its_file() -> None:
    messages = ({"role": "user", "content": "fix it"}, call("c1", "Read", file_path="a.py"), result("c1", "x" * 400))
    found = list(shares_of(arrived(*messages, forwarded={2: "x" * 100})))
    assert found == [
        Share("user", "", None, 6, 6),
        Share("assistant", "", None, 25, 25),
        Share("read", "Read", "a.py", 400, 100),
    ]
    assert counters_of(found[2:], ToolNames()) == {
        "kind.read.in": 100.0,
        "kind.read.out": 25.0,
        "tool.Read.in": 100.0,
        "tool.Read.out": 25.0,
    }


def test_a_message_of_another_form_counts_whole() -> None:
    raw = json.dumps({"odd": 1}).encode()
    assert list(shares_of(Arrived(OPENAI_CHAT, [raw], [raw]))) == [Share(OTHER, "", None, len(raw), len(raw))]


def test_a_client_can_name_any_number_of_tools() -> None:
    names = ToolNames(2)
    assert [names.of(tool) for tool in ("a", "b\n", "c", "a", "x" * 100)] == ["a", "b?", OTHER, "a", OTHER]
