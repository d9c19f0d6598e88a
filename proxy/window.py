"""How far a request has to shrink that a model refused as too long, and what models say that they take. No sockets.

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
    """What the models of upstreams say that they take: so that a request need not be refused first.

    Shared by all who ask: kept is what a model named, nothing that follows from the request that it refused. How its
    tokens compare with estimates, and how far to go where it names nothing, is that request's own affair.
    """

    def __init__(self) -> None:
        self._limits: LRU[tuple[str, str], int] = LRU(_MAX_MODELS)

    def named(self, upstream: str, model: str, limit: int) -> None:
        """Note how many tokens a model says that it takes in all."""
        self._limits.put((upstream, model), limit)

    def bound(self, upstream: str, model: str, num_beside: float) -> int | None:
        """The most that the messages of a request may hold, in estimated tokens; None where no bound is known to help.

        An answer's reserve is left out, as some models do not count it: what they would take must not be rewritten.
        Those who do count it say so again.

        Args:
            upstream: that serves the model.
            model: by the client's name.
            num_beside: tools and system prompt, in estimated tokens.
        """
        limit = self._limits.get((upstream, model))
        return int(limit - num_beside) if limit is not None and limit - num_beside >= 1 else None
