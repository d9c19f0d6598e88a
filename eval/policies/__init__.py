"""The policies that can be compared, by name.

`untouched`; `off`, `safe`, `balanced`, `aggressive` (the compressor, in process); `mask-N`; `random-P`, `whole-P` (P a
probability, or `equal`: at equal cost with ours); `head-K`, `tail-K`, `head-tail-K`; `oracle`, `oracle-tight`.
"""

from __future__ import annotations

import re

from sluice.compressor import Mode
from sluice.eval.errors import PolicyError
from sluice.eval.policies.arrival import HeadTail, Oracle, RandomLines, RandomResults
from sluice.eval.policies.base import Conversation, Forwarded, Hindsight, Policy, Request
from sluice.eval.policies.mask import Mask
from sluice.eval.policies.ours import Ours
from sluice.eval.policies.untouched import Untouched

FRAMES = ("mask-10", "random-equal", "whole-equal", "random-0.25", "head-tail-20", "oracle", "oracle-tight")
"""The frames that stand beside ours unless others are asked for."""
EQUAL = "equal"
KNOWN = (
    f"untouched, {', '.join(Mode)}, mask-N, random-P, random-equal, whole-P, whole-equal, head-K, tail-K, "
    "head-tail-K, oracle, oracle-tight"
)

_NUMBERED = re.compile(r"(mask|head-tail|head|tail)-(\d+)")
_PROBABLE = re.compile(r"(random|whole)-(equal|[01]?\.\d+|[01])")


def is_equal_cost(name: str) -> bool:
    """Whether a frame's probability has to be searched first."""
    return name in ("random-equal", "whole-equal")


def make_policy(name: str, *, equal_probability: float | None = None, provider: str = "anthropic") -> Policy:
    """The policy of that name.

    Args:
        name: see the module's docstring.
        equal_probability: what the search for equal cost found, for the frames that need it.
        provider: whose cache ours is told to expect.

    Raises:
        PolicyError: there is none of that name, or its probability is above 1.
    """
    if name == Untouched.name:
        return Untouched()
    if name in list(Mode):
        return Ours(Mode(name), provider, name)
    if name in ("oracle", "oracle-tight"):
        return Oracle(is_tight=name == "oracle-tight", name=name)
    if match := _NUMBERED.fullmatch(name):
        kind, number = match[1], int(match[2])
        if kind == "mask":
            return Mask(number, name)
        return HeadTail(number if "head" in kind else 0, number if "tail" in kind else 0, name)
    if match := _PROBABLE.fullmatch(name):
        probability = equal_probability if match[2] == EQUAL else float(match[2])
        if probability is None:
            raise PolicyError(f"policy {name!r} needs one of ours beside it, whose cost it is to equal")
        if probability > 1:
            raise PolicyError(f"policy {name!r}: a probability is at most 1")
        return RandomLines(probability, name) if match[1] == "random" else RandomResults(probability, name)
    raise PolicyError(f"no policy is named {name!r}; known: {KNOWN}")


__all__ = [
    "FRAMES",
    "KNOWN",
    "Conversation",
    "Forwarded",
    "Hindsight",
    "Policy",
    "Request",
    "is_equal_cost",
    "make_policy",
]
