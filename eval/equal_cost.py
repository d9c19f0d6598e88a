"""Finds the probability at which a frame that drops at random costs as much as ours.

A frame that decides at arrival never rewrites, so a dropped character saves what its message is billed at over all
turns, whatever else is dropped. Costs are thus sums over what was drawn below the probability, and the probability
that equals a given cost is read off the sorted draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice.eval.cost import PRICES, meter
from sluice.eval.message import CHARS_PER_TOKEN
from sluice.eval.metrics import Reader, num_shared
from sluice.eval.policies.arrival import line_draws, result_draw
from sluice.eval.policies.content import PLACEHOLDER
from sluice.eval.replay import Options, Script, client_messages


@dataclass(frozen=True, slots=True)
class Draws:
    """What could be dropped from one conversation, in no order."""

    numbers: NDArray[np.float64]
    """(n,) in [0, 1]: dropped where the probability is above it."""
    savings: NDArray[np.float64]
    """(n,) input cost that dropping it saves."""


def droppable(script: Script, options: Options, *, whole: bool) -> Draws:
    """What `random-P` (lines) or `whole-P` (whole results) could drop from one conversation, and what that saves."""
    numbers: list[float] = []
    savings: list[float] = []
    for index, price in _prices(script, options):
        lines = script.trace.messages[index].content.split("\n")
        if whole:
            numbers.append(result_draw(script.trace, index, len(lines), seed=options.seed))
            savings.append((sum(map(len, lines)) + len(lines) - 1 - len(PLACEHOLDER)) / CHARS_PER_TOKEN * price)
        else:
            numbers += line_draws(script.trace, index, len(lines), seed=options.seed)
            savings += [(len(line) + 1) / CHARS_PER_TOKEN * price for line in lines]
    return Draws(np.asarray(numbers, dtype=np.float64), np.asarray(savings, dtype=np.float64))


def equal_probability(draws: Sequence[Draws], *, saving: float) -> float:
    """The probability at which dropping saves `saving` over all conversations; 1 where it never saves as much."""
    numbers = np.concatenate([each.numbers for each in draws])
    savings = np.concatenate([each.savings for each in draws])
    order = np.argsort(numbers, kind="stable")
    num_dropped = int(np.searchsorted(np.cumsum(savings[order]), saving))
    return float(numbers[order[num_dropped]]) if num_dropped < len(order) else 1.0


def _prices(script: Script, options: Options) -> Iterator[tuple[int, float]]:
    """For each tool result what one of its tokens costs over all turns: a sum of reads and writes."""
    prices = PRICES[options.prices]
    read, bill = Reader(script.trace), meter(options.cache).bill
    spent = dict.fromkeys(sorted(script.trace.results), 0.0)
    before: list[bytes] = []
    for turn, is_cold in zip(script.turns, script.cold, strict=True):
        messages = [read(raw) for raw in client_messages(script.trace, turn, options.cache)]
        identities = [message.identity for message in messages]
        usage = bill(messages, num_shared=num_shared(before, identities), is_cold=is_cold)
        before, end = identities, 0.0
        for index, message in zip(turn.history, messages, strict=True):
            middle = end + message.num_tokens / 2
            end += message.num_tokens
            if index in spent:
                is_read, is_cached = middle < usage.read, middle < usage.read + usage.write
                spent[index] += prices.read if is_read else prices.write if is_cached else 1.0
    yield from spent.items()
