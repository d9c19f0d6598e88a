from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.translation.errors import AnswerTooLargeError
from sluice.proxy.translation.sse import Event, EventParser
from tests.effort import examples

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
EVENT = st.tuples(LINE.map(str.strip), st.lists(LINE, min_size=1, max_size=3))


@given(st.lists(EVENT, max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
@examples(150)
def test_events_are_the_same_however_their_bytes_are_split(
    events: list[tuple[str, list[str]]], end: str, data: st.DataObject
) -> None:
    lines: list[str] = []
    for name, texts in events:
        lines += [": a comment", f"event: {name}", *(f"data: {text}" for text in texts), ""]
    stream = "".join(line + end for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser, found = EventParser(), []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:stop])
    found += parser.end()
    assert found == [Event(name, "\n".join(texts).encode()) for name, texts in events]


def test_an_event_is_there_as_soon_as_its_last_byte_is() -> None:
    parser = EventParser()
    assert parser.feed(b"data: 1\r\n\r") == [Event("", b"1")]
    assert parser.feed(b"\ndata: 2\n\n") == [Event("", b"2")]


def test_an_event_without_its_empty_line_is_there_at_the_end() -> None:
    parser = EventParser()
    assert parser.feed(b"\xef\xbb\xbfdata:1") == []
    assert parser.end() == [Event("", b"1")]


def test_an_event_that_never_ends_is_given_up() -> None:
    parser = EventParser(max_event_bytes=100)
    for _ in range(5):
        parser.feed(b"data: 0123456789\n")
    with pytest.raises(AnswerTooLargeError):
        parser.feed(b"data: 0123456789\n")


def test_comments_are_told_with_the_bytes_that_end_them() -> None:
    parser = EventParser()
    assert parser.feed(b": one\n:two\n\ndata: 1\n\n:thr") == [Event("", b"1")]
    assert parser.comments == b": one\n\n: two\n\n"
    assert parser.feed(b"ee\n") == []
    assert parser.comments == b": three\n\n"
    parser.feed(b"data: 2\n\n")
    assert parser.comments == b""
