from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import Compressor
from sluice.compressor.profiles import Profile
from sluice.eval.data import Trace
from sluice.eval.errors import PolicyError
from sluice.eval.metrics import Score
from sluice.eval.policies import FRAMES, Hindsight, Policy, Request, make_policy
from sluice.eval.policies.content import PLACEHOLDER
from sluice.eval.replay import Options, Script, client_messages, play
from tests.effort import examples
from tests.eval.builders import assistant, tool, trace_of, user
from tests.eval.strategies import traces


def score_of(trace: Trace, policy: Policy, options: Options | None = None) -> Score:
    options = options or Options()
    return asyncio.run(play(Script.of(trace, options), policy, options))


def forwarded(trace: Trace, policy: Policy, *, seed: int = 0) -> list[list[bytes]]:
    """What a policy makes of each turn."""
    options = Options(seed=seed)
    script = Script.of(trace, options)

    async def run() -> list[list[bytes]]:
        conversation = policy.open(Hindsight(trace, script.facts, seed))
        return [
            list((await conversation.forward(Request(t.history, client_messages(trace, t, options.cache), 0))).messages)
            for t in script.turns
        ]

    return asyncio.run(run())


def results_of(messages: list[bytes]) -> list[str]:
    return [message["content"] for message in map(json.loads, messages) if message["role"] == "tool"]


LONG = "\n".join(f"line {number}" for number in range(10))


def conversation(*results: str) -> Trace:
    steps = [each for text in results for each in (assistant("", {"a": 1}), tool(text))]
    return trace_of(user("go"), *steps, assistant("end"))


def test_mask_keeps_the_last_results() -> None:
    masked = forwarded(conversation("a", "b", "c"), make_policy("mask-2"))
    assert [results_of(messages) for messages in masked] == [[], ["a"], ["a", "b"], [PLACEHOLDER, "b", "c"]]


def test_mask_knows_the_observations_of_text_only_agents() -> None:
    trace = trace_of(user("go"), assistant("ls"), user("a.py"), assistant("end"), observation_indexes=[2])
    last = [json.loads(raw)["content"] for raw in forwarded(trace, make_policy("mask-0"))[-1]]
    assert last == ["go", "ls", PLACEHOLDER]


@pytest.mark.parametrize(
    ("name", "kept"),
    [("head-2", [0, 1]), ("tail-2", [8, 9]), ("head-tail-2", [0, 1, 8, 9]), ("head-tail-5", list(range(10)))],
)
def test_head_and_tail(name: str, kept: list[int]) -> None:
    (text,) = results_of(forwarded(conversation(LONG), make_policy(name))[-1])
    assert text.split("\n") == [f"line {number}" for number in kept]


def test_random_leaves_short_results_alone() -> None:
    short = "\n".join(f"line {number}" for number in range(7))
    assert results_of(forwarded(conversation(short, LONG), make_policy("random-1"))[-1]) == [short, ""]
    assert results_of(forwarded(conversation(short, LONG), make_policy("whole-1"))[-1]) == [short, PLACEHOLDER]
    assert results_of(forwarded(conversation(LONG), make_policy("random-0"))[-1]) == [LONG]


def test_of_two_results_that_are_alike_each_has_its_own_draws() -> None:
    messages = [user("go"), assistant("ls"), user(LONG), assistant("ls"), user(LONG), assistant("end")]
    last = forwarded(trace_of(*messages, observation_indexes=[2, 4]), make_policy("random-0.5"))[-1]
    first, _, second = (json.loads(raw)["content"] for raw in last[2:])
    assert first != second


@examples(100)
@given(trace=traces(), probability=st.floats(0, 1), seed=st.integers(0, 5), name=st.sampled_from(["random", "whole"]))
def test_random_is_deterministic_and_keeps_its_prefix(trace: Trace, probability: float, seed: int, name: str) -> None:
    policy = make_policy(f"{name}-equal", equal_probability=probability)
    turns = forwarded(trace, policy, seed=seed)
    assert turns == forwarded(trace, policy, seed=seed)
    assert score_of(trace, policy, Options(seed=seed)).num_rewrites == 0


@examples(100)
@given(trace=traces(), low=st.floats(0, 1), high=st.floats(0, 1))
def test_random_drops_more_of_the_same_lines_as_the_probability_rises(trace: Trace, low: float, high: float) -> None:
    low, high = sorted((low, high))
    fewer, more = (make_policy("random-equal", equal_probability=probability) for probability in (low, high))
    for before, after in zip(forwarded(trace, fewer)[-1], forwarded(trace, more)[-1], strict=True):
        lines = iter(json.loads(before)["content"].split("\n"))
        after_text = json.loads(after)["content"]
        assert not after_text or all(line in lines for line in after_text.split("\n"))  # in order


@examples(100)
@given(trace=traces())
def test_untouched_costs_what_it_costs_and_keeps_all(trace: Trace) -> None:
    score = score_of(trace, make_policy("untouched"))
    for kept, needed in (score.words, score.lines, score.places):
        assert kept == needed
    assert score.num_rewrites == 0


@examples(100)
@given(trace=traces(), name=st.sampled_from(["oracle", "oracle-tight"]))
def test_the_oracles_keep_all_words_and_lines_and_the_prefix(trace: Trace, name: str) -> None:
    score, untouched = score_of(trace, make_policy(name)), score_of(trace, make_policy("untouched"))
    assert score.words == untouched.words
    assert score.lines == untouched.lines
    assert score.num_rewrites == 0
    assert score.usage.num_tokens <= untouched.usage.num_tokens


def test_the_oracle_keeps_every_copy_of_a_fact_and_its_tight_form_one() -> None:
    trace = trace_of(user("go"), tool("x\nmy_name 1\ny"), tool("my_name 2\nz"), assistant("my_name"))
    assert results_of(forwarded(trace, make_policy("oracle"))[-1]) == ["my_name 1", "my_name 2"]
    assert results_of(forwarded(trace, make_policy("oracle-tight"))[-1]) == ["my_name 1", ""]


@examples(100)
@given(trace=traces())
def test_ours_never_rewrites_and_off_is_untouched(trace: Trace) -> None:
    assert score_of(trace, make_policy("safe")).num_rewrites == 0
    assert score_of(trace, make_policy("off")).digests == score_of(trace, make_policy("untouched")).digests


def test_every_frame_can_be_made() -> None:
    assert [make_policy(name, equal_probability=0.1).name for name in FRAMES] == list(FRAMES)


@pytest.mark.parametrize("name", ["mask", "mask-x", "random-1.5", "random-2", "nonsense", "head-", "safe2"])
def test_unknown_policies_are_named(name: str) -> None:
    with pytest.raises(PolicyError, match=f"polic.*'{name}'"):
        make_policy(name)


def test_equal_cost_needs_ours() -> None:
    with pytest.raises(PolicyError, match="needs one of ours"):
        make_policy("random-equal")


def test_pauses_move_the_clock_of_what_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks: list[Callable[[], float]] = []

    class Watched(Compressor):
        def __init__(self, *arguments: Any, profile: Profile, clock: Callable[[], float], **more: Any) -> None:
            clocks.append(clock)
            assert profile.name == "anthropic-1h"
            super().__init__(*arguments, profile=profile, clock=clock, **more)

    monkeypatch.setattr("sluice.eval.policies.ours.Compressor", Watched)
    trace = trace_of(*[user("a"), assistant("b")] * 20)
    options = Options(is_cold=True, prices="anthropic-1h")
    began = time.time()
    score_of(trace, make_policy("safe", provider="anthropic-1h"), options)
    num_cold = sum(Script.of(trace, options).cold)
    assert num_cold > 0
    assert clocks[0]() - began == pytest.approx(num_cold * 3601, abs=60)
