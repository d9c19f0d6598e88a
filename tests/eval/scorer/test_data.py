from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from sluice.compressor.scoring.features import FEATURES
from sluice.eval.data import Trace, TraceLine, parse_trace, read_traces
from sluice.eval.scorer.crossval import parted
from sluice.eval.scorer.data import Sampling, Source, balanced, concatenate, examples
from sluice.eval.traces import AGENTS, trace_file

ALL = Sampling(arrival_share=1.0, epoch_share=1.0)


def trace_of(messages: list[dict[str, Any]]) -> Trace:
    line = json.dumps({"id": "t", "source": "s", "agent": "a", "messages": messages}).encode()
    return parse_trace(TraceLine("traces.jsonl", 1, line))


def bash(call_id: str, command: str) -> dict[str, Any]:
    function = {"name": "Bash", "arguments": json.dumps({"command": command})}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def result(call_id: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


START = {"role": "user", "content": "go"}
SHOWN = "first line of output\nhas the name needed_later here\nlast line of output"


def test_a_name_that_is_needed_later_is_credited_to_its_line() -> None:
    found = examples(trace_of([START, bash("1", "a"), result("1", SHOWN), bash("2", "grep needed_later")]), ALL, 0)
    assert found.num_words.tolist() == [0, 1, 0]
    assert found.num_lines.tolist() == [0, 0, 0]
    assert found.has_word_fact.tolist() == [False, True, False]
    assert found.features.shape == (3, len(FEATURES))


def test_a_line_that_is_quoted_later_is_credited() -> None:
    quote = bash("2", "first line of output")
    found = examples(trace_of([START, bash("1", "a"), result("1", SHOWN), quote]), ALL, 0)
    assert found.num_lines.tolist() == [1, 0, 0]


@pytest.mark.parametrize("between", [[], [{"type": "image_url", "image_url": {"url": "data:,"}}]])
def test_facts_of_a_result_in_several_parts_are_credited_to_their_own_lines(between: list[dict[str, Any]]) -> None:
    head, tail = "one more line of output\nand still another one", SHOWN
    parts = [{"type": "text", "text": head}, *between, {"type": "text", "text": tail}]
    message = {"role": "tool", "tool_call_id": "1", "content": parts}
    first = examples(trace_of([START, bash("1", "a"), message, bash("2", "and still another one")]), ALL, 0)
    assert first.num_lines.tolist() == [0, 1, 0, 0, 0]
    last = examples(trace_of([START, bash("1", "a"), message, bash("2", "grep needed_later")]), ALL, 0)
    assert last.num_words.tolist() == [0, 0, 0, 1, 0]


def test_what_is_shown_again_before_the_need_is_credited_to_nobody_at_arrival() -> None:
    again = [bash("1", "a"), result("1", SHOWN), bash("2", "b"), result("2", SHOWN), bash("3", "grep needed_later")]
    assert not examples(trace_of([START, *again]), ALL, 0).num_words.any()


def test_at_an_epoch_the_newest_line_that_shows_a_fact_is_credited() -> None:
    filler = [
        message
        for number in range(4, 12)
        for message in (bash(str(number), "b"), result(str(number), f"nothing at all {number}"))
    ]
    two = [bash("1", "a"), result("1", SHOWN), bash("2", "b"), result("2", SHOWN)]
    messages = [START, *two, *filler, {"role": "user", "content": "more"}, bash("99", "grep needed_later")]
    found = examples(trace_of(messages), ALL, 0)
    is_epoch = found.features[:, FEATURES.index("is_epoch")] > 0
    assert found.num_words[~is_epoch].sum() == 0
    assert found.num_words[is_epoch][:6].tolist() == [0, 0, 0, 0, 1, 0]
    assert found.features[is_epoch][:, FEATURES.index("is_turn_of_user")].any()


@pytest.mark.parametrize("agent", AGENTS)
def test_needed_facts_lie_on_lines_that_carry_one(agent: str) -> None:
    for trace in read_traces(trace_file(agent)):
        found = examples(trace, ALL, 0)
        assert found.num_words.sum() + found.num_lines.sum() > 0
        assert not (found.num_lines[~found.is_line_fact] > 0).any()
        assert np.isfinite(found.features).all()


def test_a_seed_gives_the_same_sample_and_the_sample_weighs_as_much() -> None:
    (trace,) = read_traces(trace_file("claude-code"))
    everything = examples(trace, ALL, 0)
    some, same = (examples(trace, Sampling(arrival_share=0.5, epoch_share=0.5), 3) for _ in range(2))
    assert np.array_equal(some.features, same.features)
    assert len(some.weights) < len(everything.weights)
    assert some.weights.sum() == pytest.approx(len(everything.weights), rel=0.25)


def test_what_is_held_out_weighs_what_it_is_and_the_rest_what_it_is_trained_with() -> None:
    (trace,) = read_traces(trace_file("opencode"))
    one = examples(trace, ALL, 0)
    several = concatenate([one] * 4)
    sources = [Source(agent, name, size) for name in "xy" for agent, size in (("big", several), ("small", one))]
    held, rest = parted(sources, "x", by="repository")
    assert held.weights.tolist() == concatenate([several, one]).weights.tolist()
    assert rest.weights.tolist() == concatenate([one.examples for one in balanced(sources[2:])]).weights.tolist()
    assert rest.weights.tolist() != held.weights.tolist()


def test_agents_with_many_lines_weigh_less_a_line() -> None:
    (trace,) = read_traces(trace_file("claude-code"))
    one = examples(trace, ALL, 0)
    sources = balanced([Source("big", "r", concatenate([one] * 4)), Source("small", "r", one)])
    big, small = (source.examples.weights.sum() for source in sources)
    assert big / small == pytest.approx(2.0, rel=1e-4)
