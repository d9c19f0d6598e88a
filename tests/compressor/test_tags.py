from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import OPENAI_CHAT
from sluice.compressor.instructions import words_of
from sluice.compressor.provenance.frames import written_call
from sluice.compressor.tags import less, passages
from tests.compressor.conversations import encode

TAG = re.compile(r"<(one|two)>")
PLAIN = re.compile(r"<(one|two)>(.*?)</\1>", re.DOTALL)
TEXTS = st.lists(st.sampled_from(["<one>", "</one>", "<two>", "</two>", "<", "a", "\n"]), max_size=20).map("".join)


@given(TEXTS)
def test_passages_are_what_the_plain_pattern_finds(text: str) -> None:
    found = [(one.name, one.text, one.start, one.stop) for one in passages(text, TAG)]
    assert found == [(match[1], match[2], *match.span()) for match in PLAIN.finditer(text)]
    assert less(text, TAG) == PLAIN.sub("", text)


def test_one_end_may_serve_for_all_names() -> None:
    (found,) = passages("<one>x</end><two>", TAG, "</end>")
    assert (found.name, found.text) == ("one", "x")


def test_tags_without_an_end_are_looked_for_once() -> None:
    reminders = "<system-reminder>" * 30_000
    assert list(words_of(OPENAI_CHAT.parse(encode({"role": "user", "content": reminders})))) == [reminders]
    assert written_call("<function=a>" * 30_000) is None
    called = written_call("<function=a>" + "<parameter=b>" * 30_000 + "</function>")
    assert called is not None
    assert (called.name, called.arguments) == ("a", "{}")
