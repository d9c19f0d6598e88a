"""Which of the windows that wait are scored together, and which had better not wait. Plain functions of numbers.

A batch is bounded by its tokens, so that whoever comes next waits for a batch of a known duration and no longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

_MAX_PADDING = 0.125
"""Most padding that a group of windows computed as one rectangle carries, as a share of its own tokens."""
_HALF_LIFE_S = 1.0
"""In so many seconds without a batch, half of what the last ones told is forgotten."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A window that waits."""

    num_tokens: int
    expires_at_s: float
    """When nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the windows that wait; who is in neither goes on waiting."""

    batch: tuple[int, ...]
    """Those to be scored now, the shortest first."""
    late: tuple[int, ...]
    """Those that cannot be served in time any more."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a batch takes, as measured: a fixed part, and one that grows with its tokens."""

    fixed_s: float
    per_token_s: float

    def seconds(self, num_tokens: float) -> float:
        """How long so many tokens take."""
        return self.fixed_s + self.per_token_s * num_tokens

    def tokens_within(self, seconds: float) -> int:
        """How many tokens are done in so many seconds; 0 where not even the fixed part is."""
        return max(0, int((seconds - self.fixed_s) / self.per_token_s)) if self.per_token_s > 0 else 0

    def tokens_at_once(self, seconds: float) -> int:
        """How many tokens make a batch that takes so many seconds.

        Or, where that is more, twice the fixed part: if less was computed at once, most of the time would be spent on
        what each batch costs anyhow, and the busier the machine, the less of it would be left.
        """
        return self.tokens_within(max(seconds, 2 * self.fixed_s))

    def adjusted(self, num_tokens: int, took_s: float, weight: float = 0.1) -> Pace:
        """The pace once another batch has been seen; `weight` is what that counts for."""
        factor = 1 + weight * (took_s / max(self.seconds(num_tokens), 1e-9) - 1)
        return Pace(self.fixed_s * factor, self.per_token_s * factor)

    def recovered(self, start: Pace, idle_s: float) -> Pace:
        """The pace after so many seconds without a batch: ever more that of the start.

        Whoever is not begun because others were slow would otherwise never be begun again.
        """
        kept = 0.5 ** (max(0.0, idle_s) / _HALF_LIFE_S)
        return Pace(
            start.fixed_s + kept * (self.fixed_s - start.fixed_s),
            start.per_token_s + kept * (self.per_token_s - start.per_token_s),
        )


def fitted(small: tuple[int, float], large: tuple[int, float]) -> Pace:
    """The pace by two batches, each given as tokens and seconds; the first has fewer tokens."""
    per_token_s = max((large[1] - small[1]) / max(large[0] - small[0], 1), 0.1 * large[1] / max(large[0], 1))
    return Pace(max(0.0, small[1] - per_token_s * small[0]), per_token_s)


def plan(waiting: Sequence[Waiting], *, now_s: float, pace: Pace, max_tokens: int) -> Plan:
    """Choose the next batch: those who expire first and whom it will have served by then, as many as fit.

    Where waiting for the first of them would halve the tokens done in a second, as they leave time for few others, they
    are given up: who serves the most urgent at any price serves, under too much load, nobody in time.

    Args:
        waiting: in the order in which they came.
        now_s: on the clock of `Waiting.expires_at_s`.
        pace: of the machine.
        max_tokens: bound on the batch's tokens; a window that is larger goes alone.
    """
    order = sorted(range(len(waiting)), key=lambda index: waiting[index].expires_at_s)
    sums = [0, *accumulate(waiting[index].num_tokens for index in order)]
    runs: list[tuple[float, int, int]] = []
    stop = 0
    for first, index in enumerate(order):
        budget = pace.tokens_within(waiting[index].expires_at_s - now_s)
        stop = max(stop, first)
        while stop < len(order) and sums[stop + 1] - sums[first] <= min(budget, max_tokens):
            stop += 1
        end = stop if stop > first else first + (waiting[index].num_tokens <= budget)
        if end > first:
            num_tokens = sums[end] - sums[first]
            runs.append((num_tokens / pace.seconds(num_tokens), first, end))
    most_per_s = max((per_s for per_s, _, _ in runs), default=0.0)
    first, end = next(((first, end) for per_s, first, end in runs if 2 * per_s >= most_per_s), (0, 0))
    batch = order[first:end]
    ends_at_s = now_s + pace.seconds(sums[end] - sums[first]) if batch else now_s
    late = [
        index
        for index in {*order} - {*batch}
        if pace.tokens_within(waiting[index].expires_at_s - ends_at_s) < waiting[index].num_tokens
    ]
    batch.sort(key=lambda index: waiting[index].num_tokens)
    return Plan(tuple(batch), tuple(late))


def num_in_time(num_tokens: Sequence[int], *, num_ahead: int, pace: Pace, within_s: float) -> int:
    """How many of a request's windows, from the first on, can be expected to be scored in time.

    What cannot is not begun: it would cost the others their time, and its own request the wait.

    Args:
        num_tokens: of each window.
        num_ahead: tokens that are waiting or being scored.
        pace: of the machine.
        within_s: how long the request waits.
    """
    left = pace.tokens_within(within_s) - num_ahead
    for index, num in enumerate(num_tokens):
        left -= num
        if left < 0:
            return index
    return len(num_tokens)


def rectangles(num_tokens: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Group windows, by index, so that little is padded where each group is filled to its longest.

    Args:
        num_tokens: of each window.
        max_tokens: bound on a group's tokens with their padding; a window that is larger goes alone.
    """
    groups: list[list[int]] = []
    total = 0
    for index in sorted(range(len(num_tokens)), key=lambda index: num_tokens[index]):
        total += num_tokens[index]
        num_padded = num_tokens[index] * (len(groups[-1]) + 1) if groups else 0
        if not groups or num_padded > min(max_tokens, (1 + _MAX_PADDING) * total):
            groups.append([])
            total = num_tokens[index]
        groups[-1].append(index)
    return groups
