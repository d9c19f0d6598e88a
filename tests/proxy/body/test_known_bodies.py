from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.body import Body, KnownBodies, Shape, known_bodies, parse_body
from sluice.proxy.errors import RequestError
from sluice.proxy.wire.wires import CHAT, RESPONSES
from tests.effort import examples

TEXT = st.text(st.characters(), max_size=6)
MESSAGE = st.dictionaries(TEXT, TEXT | st.integers() | st.lists(TEXT, max_size=2), max_size=3)
FIELDS = st.dictionaries(st.sampled_from(["model", "stream", "x", "messages", "y"]), st.just("m") | st.booleans())


def outcome(parse: Callable[..., Body], *arguments: object) -> Body | str:
    try:
        body = parse(*arguments)
    except RequestError as error:
        return f"{type(error).__name__}: {error}"
    return body


def written(before: dict[str, Any], messages: list[Any], after: dict[str, Any], indent: int | None) -> str:
    """A body as some client writes it: a key may stand twice."""
    glue = (",\n" if indent else ", ").join
    fields = [f"{json.dumps(key)}: {json.dumps(value, indent=indent)}" for key, value in before.items()]
    fields.append(f'"messages": {json.dumps(messages, indent=indent)}')
    fields += [f"{json.dumps(key)}: {json.dumps(value, indent=indent)}" for key, value in after.items()]
    return "{" + glue(fields) + "}"


@pytest.fixture(autouse=True)
def from_the_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_bodies, "_MIN_BYTES", 0)
    monkeypatch.setattr(known_bodies, "_NUM_READ_ANEW", 1)


@examples(300)
@given(FIELDS, st.lists(MESSAGE, max_size=8), FIELDS, st.sampled_from([None, 1]), st.data())
def test_a_body_that_goes_on_reads_as_one_that_is_read_whole(
    before: dict[str, Any], messages: list[Any], after: dict[str, Any], indent: int | None, data: st.DataObject
) -> None:
    known = KnownBodies(64 * 2**20)
    before.pop("messages", None)
    stop = 0
    while stop <= len(messages):
        text = written({"model": "m", **before}, messages[:stop], data.draw(st.just(after) | FIELDS), indent)
        if data.draw(st.integers(0, 9)) == 0:  # something is wrong with it, somewhere
            at = data.draw(st.integers(0, len(text)))
            text = text[:at] + data.draw(st.sampled_from(['"', "}", ",", "\\ud800", "\x00"])) + text[at + 1 :]
        raw = text.encode("utf-8", "surrogatepass")
        assert outcome(known.parse, raw, CHAT.shape, b"t") == outcome(parse_body, raw, CHAT.shape)
        stop += data.draw(st.integers(1, 3))


def bodies(num: int, tag: str = "") -> list[bytes]:
    messages = [{"role": "user", "content": f"{tag}{index}"} for index in range(num)]
    return [json.dumps({"model": "m", "messages": messages[:stop], "stream": True}).encode() for stop in range(4, num)]


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the bodies that are read whole."""
    sizes: list[int] = []

    def parse(raw: bytes, shape: Shape) -> Body:
        sizes.append(len(raw))
        return parse_body(raw, shape)

    monkeypatch.setattr(known_bodies, "parse_body", parse)
    return sizes


def test_each_owners_conversation_is_read_whole_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = count_reads(monkeypatch)
    known = KnownBodies(64 * 2**20)
    for owner in (b"a", b"b"):
        for raw in bodies(20):
            body = known.parse(raw, CHAT.shape, owner)
            assert body == parse_body(raw, CHAT.shape)
    assert len(sizes) == 2, "and nothing is shared between owners"


def test_what_is_known_is_the_same_object_again() -> None:
    known = KnownBodies(64 * 2**20)
    first, second = (known.parse(raw, CHAT.shape, b"t") for raw in bodies(20)[-2:])
    assert all(one is other for one, other in zip(first.messages[:-1], second.messages, strict=False))


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownBodies(max_bytes=10_000)
    for tag in "abcdefgh":
        for raw in bodies(20, tag * 20):
            known.parse(raw, CHAT.shape, b"t")
            assert known.num_bytes <= 10_000
    assert known.num_bytes > 5_000
    sizes = count_reads(monkeypatch)
    known.parse(bodies(20, "a" * 20)[-1], CHAT.shape, b"t")
    assert sizes, "the oldest made room"


def test_an_input_that_is_text_is_read_whole() -> None:
    known = KnownBodies(64 * 2**20)
    raw = json.dumps({"model": "m", "input": "words " * 5000}).encode()
    for _ in range(2):
        assert known.parse(raw, RESPONSES.shape, b"t") == parse_body(raw, RESPONSES.shape)
