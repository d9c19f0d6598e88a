from __future__ import annotations

import asyncio

import pytest

from sluice.eval.cost import PRICES, Cache
from sluice.eval.equal_cost import droppable, equal_probability
from sluice.eval.policies import make_policy
from sluice.eval.replay import Options, Script, play
from tests.eval.builders import assistant, tool, trace_of, user


def scripts(options: Options) -> list[Script]:
    """Ten conversations with results of many lines, one of which is compacted."""
    found = []
    for number in range(10):
        steps = [
            each
            for step in range(6)
            for each in (assistant("", {"a": step}), tool("\n".join(f"{number} {step} {n}" * 3 for n in range(40))))
        ]
        compacted = [user("so far", compaction_summary=True)] if number == 3 else []
        trace = trace_of(user("go"), *steps[:6], *compacted, *steps[6:], assistant("end"), id=f"t{number}")
        found.append(Script.of(trace, options))
    return found


@pytest.mark.parametrize("name", ["random-equal", "whole-equal"])
@pytest.mark.parametrize("cache", list(Cache))
@pytest.mark.parametrize("is_cold", [False, True])
def test_the_probability_equals_the_cost(name: str, cache: Cache, is_cold: bool) -> None:
    options = Options(cache=cache, is_cold=is_cold)
    played = scripts(options)

    def cost(policy_name: str, probability: float | None = None) -> float:
        policy = make_policy(policy_name, equal_probability=probability)
        return sum(asyncio.run(play(script, policy, options)).usage.cost(PRICES["anthropic"]) for script in played)

    untouched = cost("untouched")
    draws = [droppable(script, options, whole=name == "whole-equal") for script in played]
    probability = equal_probability(draws, saving=0.3 * untouched)
    assert 0 < probability < 1
    # The last thing dropped overshoots: one line of 2,400, or one result of 60.
    assert cost(name, probability) / untouched == pytest.approx(0.7, abs=0.002 if name == "random-equal" else 0.05)


def test_more_than_all_cannot_be_saved() -> None:
    draws = [droppable(script, Options(), whole=False) for script in scripts(Options())]
    assert equal_probability(draws, saving=1e12) == 1.0
