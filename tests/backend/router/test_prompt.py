from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.router import read_prompt
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
