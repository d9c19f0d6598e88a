"""What a request would have used had it gone out untouched, under the same cache rules. Plain arithmetic.

Starts from what the upstream measured and adds what was dropped: to the tokens read from the cache where the earlier
turns would have put it there, to the others where it is new. So the provider's own luck (evictions, rounding,
breakpoints) applies to both sides, and where nothing was dropped nothing is saved, exactly.

Limits: dropped tokens are counted with our tokenizer, which counts fewer than Claude's does, so that the saving is
understated there; the output is taken to be the same (what the holdout is for); on a turn that rewrites the history,
how much the untouched one would have read is told from the turns before.
"""

from __future__ import annotations

import msgspec

from sluice.proxy.meter.breakpoints import Breakpoints, readable_share
from sluice.proxy.meter.usage import Usage

COLD = "cold"
"""Reason of an epoch at which the provider's cache had expired, for the untouched request, too."""


class Last(msgspec.Struct, frozen=True):
    """A conversation as of its last turn."""

    at_s: float
    """When it was, by the wall clock."""
    num_prompt: int
    """Tokens of its prompt, by the upstream's count."""
    num_dropped: int
    """By how many tokens it was smaller than what the client sent."""
    hit_share: float = 1.0
    """Share of the prompt before it that the upstream read from its cache, on the last warm turn without a rewrite."""
    breakpoints: Breakpoints | None = None
    """Of the request, where its wire has them."""


def untouched(
    usage: Usage,
    *,
    num_dropped: int,
    at_s: float,
    ttl_s: float,
    last: Last | None = None,
    breakpoints: Breakpoints | None = None,
    epoch: str | None = None,
    is_continued: bool = False,
) -> Usage:
    """What the request would have used.

    Args:
        usage: what it used, by the upstream's count.
        num_dropped: tokens that came in less tokens that were forwarded.
        at_s: when it was made, by the wall clock.
        ttl_s: life of the provider's cache, in seconds; what the request's own marks say goes before it.
        last: the turn before it; None where there was none, or where it is not known.
        breakpoints: of the request.
        epoch: why earlier messages were rewritten on this turn; None where they were not.
        is_continued: whether the conversation had turns before, known here or not.
    """
    dropped_before = last.num_dropped if last is not None else num_dropped if is_continued else 0
    if num_dropped == 0 and dropped_before == 0 and epoch is None:
        return usage
    num_prompt = max(0, usage.num_prompt + num_dropped)
    num_read = float(usage.cache_read)
    if epoch is None:
        num_read += dropped_before * _hit_share(usage, last)
    elif epoch != COLD and last is not None and at_s - last.at_s <= _life(last, ttl_s):
        share = last.hit_share
        if last.breakpoints is not None and breakpoints is not None:
            share = min(share, readable_share(last.breakpoints, breakpoints))
        num_read = max(num_read, share * (last.num_prompt + last.num_dropped))
    return _split(usage, num_prompt, min(round(num_read), num_prompt))


def advanced(
    usage: Usage,
    *,
    num_dropped: int,
    at_s: float,
    ttl_s: float,
    last: Last | None = None,
    breakpoints: Breakpoints | None = None,
    epoch: str | None = None,
) -> Last:
    """The conversation as of this turn; arguments as those of `untouched`."""
    hit_share = last.hit_share if last is not None else 1.0
    # A rewrite, or a cache that had expired, says nothing of how well the provider caches.
    if last is not None and epoch is None and at_s - last.at_s <= _life(last, ttl_s):
        hit_share = _hit_share(usage, last)
    return Last(at_s, usage.num_prompt, num_dropped, hit_share, breakpoints)


def _hit_share(usage: Usage, last: Last | None) -> float:
    """Share of the last turn's prompt that this one read; where that is not known, the share of its own."""
    num_before = last.num_prompt if last is not None else usage.num_prompt
    return min(1.0, usage.cache_read / num_before) if num_before > 0 else 0.0


def _life(last: Last, ttl_s: float) -> float:
    return last.breakpoints.ttl_s if last.breakpoints is not None and last.breakpoints.ends else ttl_s


def _split(usage: Usage, num_prompt: int, num_read: int) -> Usage:
    """Spread what is not read over the kinds as the upstream spread it."""
    rest, measured = num_prompt - num_read, usage.num_prompt - usage.cache_read
    if measured > 0:
        minutes = round(rest * usage.cache_write_5m / measured)
        hour = min(round(rest * usage.cache_write_1h / measured), rest - minutes)
    else:
        minutes = hour = 0
    return Usage(
        input_tokens=rest - minutes - hour,
        cache_write_5m=minutes,
        cache_write_1h=hour,
        cache_read=num_read,
        output_tokens=usage.output_tokens,
        reasoning=usage.reasoning,
    )
