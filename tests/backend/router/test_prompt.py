from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.router import Prompt, read_prompt
from tests.effort import examples

MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]), "content": st.text()}), max_size=8
)


def body(messages: list[dict[str, str]], **more: object) -> bytes:
    return json.dumps({"model": "m", "messages": messages, **more}).encode()


@examples(100)
@given(MESSAGES, MESSAGES)
def test_a_longer_conversation_begins_with_the_hashes_of_the_shorter(
    first: list[dict[str, str]], more: list[dict[str, str]]
) -> None:
    short, long = read_prompt(body(first)), read_prompt(body(first + more))
    assert short is not None
    assert long is not None
    assert long.hashes[: len(short.hashes)] == short.hashes
    assert long.ends[: len(short.ends)] == short.ends
    assert list(long.ends) == sorted(set(long.ends))


def test_model_tools_and_system_are_part_of_the_prefix() -> None:
    messages = [{"role": "user", "content": "hi"}]
    prompts = [
        read_prompt(body(messages)),
        read_prompt(body(messages, tools=[{"type": "function"}])),
        read_prompt(body(messages, system="be brief")),
        read_prompt(body(messages, model="other")),
    ]
    assert len({prompt.hashes[-1] for prompt in prompts if prompt}) == 4


def test_sampling_does_not_change_the_prefix() -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert read_prompt(body(messages, temperature=0, stream=True)) == read_prompt(body(messages))


def test_plain_prompts_and_responses_input_are_read() -> None:
    text = "x" * 10_000
    plain = read_prompt(json.dumps({"model": "m", "prompt": text}).encode())
    longer = read_prompt(json.dumps({"model": "m", "prompt": text + text}).encode())
    assert plain is not None
    assert longer is not None
    assert longer.hashes[:3] == plain.hashes[:3]
    assert read_prompt(b'{"model": "m", "input": [{"role": "user", "content": "a"}]}') is not None


def test_what_has_no_prompt_has_none() -> None:
    for raw in (b"", b"[]", b"{", b"\xff", b'{"model": "m"}'):
        assert read_prompt(raw) is None


HALF = rb"cut \ud83d"
"""What a program in JavaScript makes of half an emoji."""


@pytest.mark.parametrize("key", ["messages", "input", "prompt"])
def test_halves_of_surrogate_pairs_cost_no_prefix(key: str) -> None:
    def turn(*texts: bytes) -> Prompt | None:
        items = b", ".join(b'{"role": "user", "content": "%s"}' % text for text in texts)
        history = b'"%s"' % b"".join(text.ljust(4096) for text in texts) if key == "prompt" else b"[%s]" % items
        return read_prompt(b'{"model": "m", "%s": %s}' % (key.encode(), history))

    short, long, other = turn(b"hi", HALF), turn(b"hi", HALF, b"go on"), turn(b"hi", HALF + b"!")
    assert short is not None
    assert long is not None
    assert other is not None
    num_whole = len(short.hashes) - (key == "prompt")  # the last piece of a text is not whole
    assert num_whole > 1
    assert long.hashes[:num_whole] == short.hashes[:num_whole]
    assert other.hashes[-1] != short.hashes[-1]


def test_what_is_nested_too_deeply_has_no_prompt() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    for raw in (
        b'{"messages": %s}' % deep,
        b'{"messages": [{"role": %s}]}' % deep,
        b'{"x": "\\ud83d", "y": %s}' % deep,
    ):
        assert read_prompt(raw) is None


def test_a_conversation_keeps_its_name_and_shares_none() -> None:
    system = [{"role": "system", "content": "be brief"}, {"role": "developer", "content": "and kind"}]
    names = []
    for first in ("hi", "ho"):
        turns = [*system, {"role": "user", "content": first}, {"role": "assistant", "content": "yes?"}]
        found = [read_prompt(body(turns[:end])) for end in (3, 4)]
        names += [prompt.key for prompt in found if prompt]
    assert names[0] == names[1] != names[2] == names[3]
    alone = read_prompt(body(system))
    assert alone is not None
    assert alone.key == alone.hashes[-1]
    odd = read_prompt(b'{"input": [1, {"role": 7}]}')
    assert odd is not None
    assert odd.num_shared == 1
