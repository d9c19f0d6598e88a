"""Chooses tokens from logits: penalties, bias, temperature, min-p, top-k, top-p, log-probabilities.

Each token's random number depends on the sequence's seed and the token's position alone, so that neither the batch nor
speculation changes what is drawn. Knows no sequences.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sluice.backend.base import SamplingParams, TokenLogprobs

_NUM_LIKELY = 1024  # the tokens that are looked at first; all are only where these do not suffice


@dataclass(frozen=True, slots=True)
class Row:
    """One token to choose."""

    index: int
    """Row of the logits."""
    params: SamplingParams
    seed: int
    tokens: Sequence[int]
    """Prompt and output before the token, less `draft`."""
    num_prompt_tokens: int
    draft: Sequence[int] = ()
    """Tokens of the draft before the token."""
    allowed: bytes | None = None
    """A byte for each token, 0 where it may not come; None allows all."""

    @property
    def position(self) -> int:
        """Tokens before it."""
        return len(self.tokens) + len(self.draft)


@dataclass(frozen=True, slots=True)
class Sampled:
    """A chosen token."""

    token: int
    logprobs: TokenLogprobs | None = None


def sample(logits: torch.Tensor, rows: Sequence[Row]) -> list[Sampled]:
    """One token for each of `rows`, which may name a row of `logits` (any, vocabulary), float32, several times."""
    identity = len(rows) == logits.shape[0] and all(row.index == index for index, row in enumerate(rows))
    picked = logits if identity else logits[torch.tensor([row.index for row in rows], device=logits.device)]
    adjusted = _adjust(picked, rows)
    tokens = _argmax(adjusted)
    drawn = [index for index, row in enumerate(rows) if row.params.temperature > 0]
    if drawn:
        for index, token in zip(drawn, _draw(adjusted[drawn], [rows[index] for index in drawn]), strict=True):
            tokens[index] = token
    return [
        Sampled(token, None if row.params.num_logprobs is None else _logprobs(values, token, row.params.num_logprobs))
        for token, row, values in zip(tokens, rows, picked, strict=True)
    ]


def uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) of a sequence's token."""
    return random.Random(f"{seed}/{position}").random()  # noqa: S311 - no secret


def _argmax(logits: torch.Tensor) -> list[int]:
    """On CPUs by numpy, whose search is vectorised."""
    found = logits.numpy().argmax(axis=-1) if logits.device.type == "cpu" else logits.argmax(dim=-1)
    tokens: list[int] = found.tolist()
    return tokens


def _adjust(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """Penalties and bias; the logits themselves stay as they are."""
    adjusted = logits
    for index, row in enumerate(rows):
        params = row.params
        if not (
            row.allowed is not None
            or params.logit_bias
            or params.presence_penalty
            or params.frequency_penalty
            or params.repetition_penalty != 1
        ):
            continue
        if adjusted is logits:
            adjusted = logits.clone()
        values = adjusted[index]
        if params.repetition_penalty != 1:
            seen = torch.tensor(sorted({*row.tokens, *row.draft}), device=values.device)
            old = values[seen]
            values[seen] = torch.where(old > 0, old / params.repetition_penalty, old * params.repetition_penalty)
        output = [*row.tokens[row.num_prompt_tokens :], *row.draft]
        if output and (params.presence_penalty or params.frequency_penalty):
            seen, counts = torch.unique(torch.tensor(output, device=values.device), return_counts=True)
            values[seen] -= params.presence_penalty + params.frequency_penalty * counts
        if params.logit_bias:
            biased = torch.tensor(list(params.logit_bias), device=values.device)
            values[biased] += torch.tensor(list(params.logit_bias.values()), device=values.device)
        if row.allowed is not None:
            forbidden = torch.frombuffer(bytearray(row.allowed), dtype=torch.uint8).to(values.device) == 0
            values.masked_fill_(forbidden, float("-inf"))
    return adjusted


def _draw(logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
    """Draw from each row's distribution by the inverse of its cumulative sum."""
    device = logits.device
    numbers = torch.tensor([[uniform(row.seed, row.position)] for row in rows], dtype=torch.float64, device=device)
    scaled = logits / torch.tensor([[row.params.temperature] for row in rows], device=device)
    tokens = torch.empty(len(rows), dtype=torch.int64, device=device)
    # Apart, as the two go through the tokens in another order and would draw others for the same number.
    is_cut = torch.tensor([p.top_p < 1 or p.top_k > 0 or p.min_p > 0 for p in (row.params for row in rows)])
    for chosen, invert in ((is_cut, _invert_cut), (~is_cut, _invert_whole)):
        if chosen.any():
            picked = [row for row, is_chosen in zip(rows, chosen.tolist(), strict=True) if is_chosen]
            chosen = chosen.to(device)
            tokens[chosen] = invert(scaled[chosen], numbers[chosen], picked)
    drawn: list[int] = tokens.tolist()
    return drawn


def _invert_whole(scaled: torch.Tensor, numbers: torch.Tensor, _: Sequence[Row]) -> torch.Tensor:
    return _invert(torch.softmax(scaled, dim=-1), numbers)


def _invert_cut(scaled: torch.Tensor, numbers: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """Cut each row by min-p, top-k and top-p, then draw; tokens in order of their probability."""
    device, num_tokens = scaled.device, scaled.shape[1]
    top_p = torch.tensor([[row.params.top_p] for row in rows], device=device)
    top_k = torch.tensor([[row.params.top_k or num_tokens] for row in rows], device=device)
    min_p = torch.tensor([[row.params.min_p] for row in rows], device=device)
    is_cut_before = (top_k < num_tokens) | (min_p > 0)
    total = scaled.logsumexp(dim=-1, keepdim=True)
    num_likely = min(_NUM_LIKELY, num_tokens)
    while True:
        values, tokens = scaled.topk(num_likely, dim=-1)
        kept = (values - total).exp()
        kept = kept.masked_fill(kept < min_p * kept[:, :1], 0)
        kept = kept.masked_fill(torch.arange(num_likely, device=device) >= top_k, 0)
        # Beyond the likely tokens nothing may be left that would be kept.
        sure = (kept[:, -1:] == 0) | (~is_cut_before & (kept.sum(dim=-1, keepdim=True) >= top_p))
        if num_likely == num_tokens or bool(sure.all()):
            break
        num_likely = num_tokens
    # top-p counts shares of what min-p and top-k have left, which is everything where the two are not used.
    whole = torch.where(is_cut_before, kept.sum(dim=-1, keepdim=True), 1.0)
    # A token stays if those before it do not reach top-p, so that at least one does.
    kept = kept.masked_fill(kept.cumsum(dim=-1) - kept >= top_p * whole, 0)
    return tokens.gather(1, _invert(kept, numbers).unsqueeze(1)).squeeze(1)


def _invert(weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Index where the cumulative sum of `weights` (rows, tokens) passes the number's share of it; not on weight 0."""
    sums = weights.cumsum(dim=-1, dtype=torch.float64)
    found = torch.searchsorted(sums, numbers * sums[:, -1:], right=True).squeeze(1)
    last = weights.shape[1] - 1 - (weights.flip(-1) > 0).to(torch.int8).argmax(dim=-1)
    return torch.minimum(found, last)


def _logprobs(logits: torch.Tensor, token: int, num_top: int) -> TokenLogprobs:
    logprobs = torch.log_softmax(logits, dim=-1)
    values, tokens = logprobs.topk(num_top)
    return TokenLogprobs(float(logprobs[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))
