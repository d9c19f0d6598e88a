from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from sluice.backend.base import SamplingParams
from sluice.backend.embedded.sampler import Row, sample, uniform

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, -8.0]])
NUM_DRAWS = 4000


def draw(logits: torch.Tensor = LOGITS, num_draws: int = NUM_DRAWS, **params: Any) -> Counter[int]:
    """Tokens drawn from one row with as many seeds."""
    settings = SamplingParams(**params)
    rows = [Row(0, settings, seed, [], 0) for seed in range(num_draws)]
    return Counter(item.token for item in sample(logits, rows))


def shares(logits: torch.Tensor, kept: list[int]) -> dict[int, float]:
    weights = {token: math.exp(float(logits[0, token])) for token in kept}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 2}, [0, 1]),
        ({"top_p": 0.85}, [0, 1]),
        ({"top_p": 0.01}, [0]),
        ({"min_p": 0.1}, [0, 1, 2]),
        ({"min_p": 0.1, "top_k": 4, "top_p": 0.7}, [0, 1]),
    ],
)
def test_draws_follow_the_distribution_that_is_left(params: dict[str, Any], kept: list[int]) -> None:
    counts = draw(**params)
    assert set(counts) <= set(kept)
    for token, share in shares(LOGITS, kept).items():
        assert counts[token] / NUM_DRAWS == pytest.approx(share, abs=0.03)


def test_temperature_sharpens() -> None:
    counts = draw(temperature=0.5)
    expected = shares(LOGITS / 0.5, [0, 1, 2, 3, 4])
    assert counts[0] / NUM_DRAWS == pytest.approx(expected[0], abs=0.03)
    assert set(draw(temperature=0)) == {0}


def test_a_wide_distribution_is_cut_beyond_the_likely_tokens() -> None:
    flat = torch.zeros(1, 5000)
    flat[0, :4000] = 1.0
    assert max(draw(flat, 300, top_k=3000)) > 1024
    assert max(draw(flat, 300, top_p=0.5)) < 4000


def test_tokens_without_weight_are_never_drawn() -> None:
    logits = torch.tensor([[0.0, float("-inf"), 0.0, float("-inf")]])
    assert set(draw(logits)) == {0, 2}


def pick(tokens: list[int], num_prompt_tokens: int, **params: Any) -> int:
    row = Row(0, SamplingParams(temperature=0, **params), 0, tokens, num_prompt_tokens)
    return sample(LOGITS, [row])[0].token


def test_penalties_and_bias_move_the_choice() -> None:
    assert pick([0], 1, presence_penalty=1.5) == 0, "the prompt is not the output"
    assert pick([0, 0], 1, presence_penalty=1.5) == 1
    assert pick([4, 0, 0], 1, frequency_penalty=0.4) == 0
    assert pick([4, 0, 0, 0], 1, frequency_penalty=0.4) == 1
    assert pick([0], 1, repetition_penalty=3.0) == 1
    assert pick([4], 1, logit_bias={3: 5.0, 4: -1.0}) == 3
    assert LOGITS[0].tolist() == [2.0, 1.0, 0.0, -1.0, -8.0]


def test_a_draft_counts_as_output() -> None:
    params = SamplingParams(temperature=0, presence_penalty=1.5)
    assert sample(LOGITS, [Row(0, params, 0, [3], 1, (0,))])[0].token == 1


def test_logprobs_are_the_models_own() -> None:
    params = SamplingParams(temperature=0, num_logprobs=2, logit_bias={3: 50.0})
    (item,) = sample(LOGITS, [Row(0, params, 0, [3], 1)])
    expected = torch.log_softmax(LOGITS[0], dim=0)
    assert item.token == 3
    assert item.logprobs is not None
    assert item.logprobs.logprob == pytest.approx(float(expected[3]))
    assert [token for token, _ in item.logprobs.top] == [0, 1]
    assert item.logprobs.top[1][1] == pytest.approx(float(expected[1]))


def test_a_draw_depends_on_its_seed_and_position_and_not_on_its_neighbours() -> None:
    logits = torch.randn(6, 200, generator=torch.Generator().manual_seed(0))
    rows = [Row(index, SamplingParams(top_p=0.9 if index % 2 else 1.0), 7, [1] * index, 0) for index in range(6)]
    together = [item.token for item in sample(logits, rows)]
    alone = [
        sample(logits[index : index + 1], [Row(0, r.params, 7, r.tokens, 0)])[0].token for index, r in enumerate(rows)
    ]
    assert together == alone
    assert uniform(1, 2) == uniform(1, 2) != uniform(2, 1)
