"""A kept request laid out for reading: nothing is lost, and nothing is said that was not so."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import OPENAI_CHAT, Pin
from sluice.compressor.ledger import Omitted, Reason, recall_id
from sluice.proxy.dashboard.kept import KeptMessage, KeptRequest
from sluice.proxy.dashboard.layout import lay_out, pin_of
from sluice.proxy.wire import WireName
from tests.compressor.conversations import call, encode, result

MARKER = "[sluice 7f3a: some lines omitted]"


def request(text: str, forwarded: str, *omitted: Omitted) -> KeptRequest:
    messages = [{"role": "user", "content": "fix it"}, call("c1", "Read", file_path="a.py"), result("c1", text)]
    kept = [KeptMessage(encode(message)) for message in messages[:2]]
    kept.append(KeptMessage(encode(messages[2]), encode({**messages[2], "content": forwarded}), omitted))
    return KeptRequest(WireName.CHAT, 0, tuple(kept))


def parts_of(kept: KeptRequest, pins: tuple[Pin, ...] = ()) -> list[dict[str, object]]:
    found = lay_out(kept, OPENAI_CHAT, pins)[2]["texts"][0]["parts"]
    return list(json.loads(json.dumps(found)))


@given(st.data())
def test_the_parts_are_the_original_and_what_was_forwarded(data: st.DataObject) -> None:
    num_lines = data.draw(st.integers(1, 30))
    lines = [f"line {index}" for index in range(num_lines)]
    cuts = sorted(data.draw(st.sets(st.integers(0, num_lines), max_size=8)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    ends = data.draw(st.sampled_from(["", "\n"]))
    added = data.draw(st.sampled_from(["", "[sluice 7f3a: 2 lines of message 1 again, 1-2]\nold line"]))
    out: list[str] = []
    done = 0
    for start, stop in spans:
        out += [*lines[done:start], MARKER]
        done = stop
    out += lines[done:]
    forwarded = "\n".join(out) + ends
    if added:
        forwarded += ("" if ends else "\n") + added
    omitted = [Omitted(0, start, stop, Reason.NOT_NEEDED, 0.25) for start, stop in spans]
    parts = parts_of(request("\n".join(lines) + ends, forwarded, *omitted))
    assert not [part for part in parts if part["type"] == "replaced"]
    originals = [str(part["text"]).rstrip("\n") for part in parts if part["type"] != "added"]
    assert "\n".join(originals) == "\n".join(lines)
    shown = [part["marker"] if part["type"] == "dropped" else part["text"] for part in parts]
    assert "\n".join(str(text).rstrip("\n") for text in shown) == forwarded.rstrip("\n")
    assert [(part["start"], part["stop"], part["score"]) for part in parts if part["type"] == "dropped"] == [
        (start, stop, 0.25) for start, stop in spans
    ]


def test_what_another_version_wrote_is_shown_whole() -> None:
    [part] = parts_of(request("a\nb\nc", "something else", Omitted(0, 1, 2, Reason.REPEATED)))
    assert part == {"type": "replaced", "text": "a\nb\nc", "forwarded": "something else"}


def test_a_pin_names_lines_of_a_tool_result_and_nothing_else() -> None:
    kept = request("a\nb\nc\nd", f"a\n{MARKER}\nd", Omitted(0, 1, 3, Reason.NOT_NEEDED, 0.1))
    identity = OPENAI_CHAT.parse(kept.messages[2].raw).identity
    pin = pin_of(kept, OPENAI_CHAT, 2, 0, 1, 3)
    assert pin == Pin(recall_id(identity, 0), 1, 3)
    for wrong in ((0, 0, 0, 1), (2, 1, 0, 1), (2, 0, 1, 5), (2, 0, 2, 2), (3, 0, 0, 1), (-1, 0, 0, 1), (2, 0, -1, 2)):
        assert pin_of(kept, OPENAI_CHAT, *wrong) is None
    assert [part.get("is_pinned") for part in parts_of(kept, (pin,))] == [None, True, None]
    assert [part.get("is_pinned") for part in parts_of(kept, (Pin(pin.recall_id, 1, 2),))] == [None, False, None]
    assert lay_out(kept, OPENAI_CHAT, (pin,))[2]["texts"][0]["num_pinned"] == 2
    back = pin_of(kept, OPENAI_CHAT, 2, 0, 1, 3, is_set=False)
    assert back is not None
    assert [part.get("is_pinned") for part in parts_of(kept, (pin, back))] == [None, False, None]
