"""How far a request has to shrink that a model refused as too long, and which models said so. Plain arithmetic.

The compressor reckons in estimated tokens (characters / 4); what a model counts is learnt from what it refuses.
"""

from __future__ import annotations

from sluice.compressor.lru import LRU

_HEADROOM = 0.95
"""How much of the window is used: the model's own count is not known to the token."""
_BLIND_SHARE = 0.7
"""What is kept of a request where the model does not say how much it takes."""
_MAX_MODELS = 256


def messages_bound(num_estimated: float, num_counted: int | None, num_beside: float, limit: int) -> int:
    """The most that the messages may hold, in estimated tokens, to fit a model that refused them.

    Args:
        num_estimated: of the messages as they were refused, by estimate.
        num_counted: of the same messages by the model's tokenizer, where that is known.
        num_beside: tools, system prompt and the answer's reserve, in tokens.
        limit: tokens that the model takes in all; 0 where it does not say.
    """
    if _HEADROOM * limit <= num_beside:
        return int(_BLIND_SHARE * num_estimated)
    per_estimated = max(1.0, num_counted / num_estimated) if num_counted and num_estimated else 1.0
    fits = (_HEADROOM * limit - num_beside) / per_estimated
    # It was refused, whatever the figures say.
    return int(min(fits, _HEADROOM * num_estimated))


class Windows:
    """What the models of upstreams were seen to take: so that a request need not be refused first."""

    def __init__(self) -> None:
        self._bounds: LRU[tuple[str, str], int] = LRU(_MAX_MODELS)

    def refused(self, upstream: str, model: str, bound: int) -> None:
        """Note that a model takes no more messages than this, in estimated tokens."""
        self._bounds.put((upstream, model), bound)

    def bound(self, upstream: str, model: str) -> int | None:
        """The most that this model's messages may hold; None where it never refused any."""
        return self._bounds.get((upstream, model))
