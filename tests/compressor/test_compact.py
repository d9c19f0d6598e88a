from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import OPENAI_CHAT, Message
from sluice.compressor.compact import Compacted, compact_messages, compact_text
from sluice.compressor.scoring import Scorer, load_default
from tests.compressor.conversations import call, encode, file_lines, result, turns
from tests.effort import examples

NAMES = [
    first + last for last in ("", "_id", "_kind", "_time") for first in ("invoice", "order", "tenant", "region", "user")
]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return load_default()


def assert_lines_are_accounted_for(text: str, done: Compacted) -> None:
    """Each line is either kept, verbatim and in order, or named as dropped."""
    lines = text.removesuffix("\n").split("\n")
    spans = sorted([*done.kept, *done.compacted])
    assert [number for first, last in spans for number in range(first, last + 1)] == list(range(1, len(lines) + 1))
    kept = [lines[number - 1] for first, last in done.kept for number in range(first, last + 1)]
    shown = done.text.removesuffix("\n").split("\n")
    assert [line for line in shown if not line.startswith("[sluice ")] == kept


def test_what_a_text_repeats_goes_and_nothing_else() -> None:
    text = "\n".join([*file_lines(200), "between", *file_lines(200)])
    done = compact_text(text)
    assert_lines_are_accounted_for(text, done)
    assert done.text.startswith("\n".join([*file_lines(200), "between"]))
    assert sum(last - first + 1 for first, last in done.compacted) > 180
    assert compact_text("\n".join(file_lines(200))).text == "\n".join(file_lines(200))


def test_without_markers_the_lines_are_simply_not_there() -> None:
    text = "\n".join([*file_lines(100), *file_lines(100)]) + "\n"
    done = compact_text(text, include_markers=False)
    assert "[sluice" not in done.text
    assert set(done.text.split("\n")) == {*file_lines(100), ""}
    assert "[sluice" in compact_text(text).text


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
def test_a_ratio_is_kept_to(scorer: Scorer, ratio: float) -> None:
    text = "\n".join(f"def function_{n}(value):\n    return other_{n * 3 % 17}(value, {n})\n" for n in range(300))
    done = compact_text(text, ratio=ratio, scorer=scorer)
    assert_lines_are_accounted_for(text, done)
    assert (ratio - 0.25) * len(text) < len(done.text) < (ratio + 0.05) * len(text)


def test_what_bears_on_the_query_stays(scorer: Scorer) -> None:
    """Of many functions that are all alike, the one that the query names is kept whole."""
    texts = [f"def handle_{name}(event):\n    {name} = event.{name}\n    return convert({name})\n" for name in NAMES]
    for name in ("invoice", "tenant"):
        done = compact_text("\n".join(texts), query=f"how is the {name} of an event handled?", ratio=0.3, scorer=scorer)
        assert texts[NAMES.index(name)] in done.text


def test_what_is_marked_to_be_kept_is_kept(scorer: Scorer) -> None:
    lines = file_lines(300)
    text = "\n".join([*lines[:100], "<keepContext>", *lines[100:250], "</keepContext>", *lines[250:]])
    done = compact_text(text, ratio=0.1, scorer=scorer)
    assert "\n".join(["<keepContext>", *lines[100:250], "</keepContext>"]) in done.text
    assert len(done.text) < 0.7 * len(text)


def test_messages_lose_only_tool_output_and_none_of_the_newest(scorer: Scorer) -> None:
    said = {"role": "user", "content": "\n".join(file_lines(60))}
    chat = [said, call("c1", "bash", command="cat a"), result("c1", "\n".join(file_lines(60, "x"))), said]
    chat += [call("c2", "bash", command="cat a"), result("c2", "\n".join(file_lines(60, "x")))]
    messages = [OPENAI_CHAT.parse(encode(message)) for message in chat]
    assert [list(found) for found in compact_messages(messages, ratio=0.1, scorer=scorer)] == [[], [], [0], [], [], []]
    assert [list(found) for found in compact_messages(messages, preserve_recent=0)] == [[], [], [], [], [], [0]]


@examples(30)
@given(st.text(st.sampled_from("ab\n 1"), max_size=400), st.sampled_from([None, 0.3]), st.booleans())
def test_no_line_of_any_text_is_lost_or_changed(
    scorer: Scorer, text: str, ratio: float | None, with_scorer: bool
) -> None:
    assert_lines_are_accounted_for(text, compact_text(text, ratio=ratio, scorer=scorer if with_scorer else None))


@examples(10)
@given(turns())
def test_no_line_of_any_message_is_lost_or_changed(scorer: Scorer, chat: list[dict[str, object]]) -> None:
    messages: list[Message] = [OPENAI_CHAT.parse(encode(message)) for message in chat]
    for message, found in zip(messages, compact_messages(messages, ratio=0.4, scorer=scorer), strict=True):
        for index, done in found.items():
            assert_lines_are_accounted_for(message.texts[index].text, done)
