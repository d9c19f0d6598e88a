"""Chooses the next token from the logits. Knows one distribution at a time, no requests."""

from __future__ import annotations

import torch

from sluice.backend.base import SamplingParams


def sample(logits: torch.Tensor, params: SamplingParams, generator: torch.Generator | None) -> int:
    """One token id from `logits` of shape (vocabulary,), any float dtype."""
    if params.temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.float() / params.temperature, dim=-1)
    if params.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        # A token stays if those before it do not reach top_p, so that at least one does.
        ordered[ordered.cumsum(0) - ordered >= params.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter_(0, order, ordered)
    return int(torch.multinomial(probabilities, 1, generator=generator))
