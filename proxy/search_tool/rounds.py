"""What one answer of the upstream comes to for the search tool, and the usage of several. Knows no wire format.

A *round* is one answer. A turn of the client's takes one round where the model does not search, and one more for each
time that it calls nothing but our tool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from sluice.proxy.translation.json_codec import Json, mapping, number

_OUTPUT = ("output_tokens", "completion_tokens")
_ADDED = (*_OUTPUT, "output_tokens_details", "completion_tokens_details", "server_tool_use", "cost")
"""What rounds add to each other. Of their prompts each holds the one before."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of our tool."""

    id: str
    arguments: str
    """JSON text, as the model wrote it: it may be malformed."""


@dataclass(frozen=True, slots=True)
class Round:
    """One answer, whole."""

    parts: tuple[Json, ...]
    """All that the model said, in the form in which a request gives it back: blocks, items, or one message."""
    calls: tuple[Call, ...]
    """Of our tool."""
    num_others: int
    """Calls that the client answers."""
    awaits_results: bool
    """Whether it ended for its calls to be answered: one that was cut or refused is not gone on with."""
    has_text: bool
    """Whether it says something, thoughts aside."""

    @property
    def is_ours_alone(self) -> bool:
        """Whether the answer can be gone on with out of the client's sight."""
        return bool(self.calls) and not self.num_others and self.awaits_results


def usage_of(bodies: Sequence[Json]) -> Json:
    """The usage that the client is told of several rounds' answers."""
    return reduce(gone_on, (mapping(body.get("usage")) for body in bodies), {})


def gone_on(before: Json, last: Json) -> Json:
    """The usage that the client is told after another round: its prompt, and the output of all.

    Agents read the prompt as the size of their context, and compact it by that. The sum would be several times as much.
    """
    if not before or not last:
        return before or last
    told = {**last, **summed(*({name: one[name] for name in _ADDED if name in one} for one in (before, last)))}
    if "total_tokens" in last:
        told["total_tokens"] = number(last["total_tokens"]) + sum(number(before.get(name)) for name in _OUTPUT)
    return told


def summed(one: Json, other: Json) -> Json:
    """The usage of two rounds: counts are added at every depth, lists joined, of anything else the later stands."""
    total = dict(one)
    for key, value in other.items():
        before = total.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            total[key] = summed(before, value)
        elif isinstance(value, list) and isinstance(before, list):
            total[key] = [*before, *value]
        elif _is_number(value) and _is_number(before):
            total[key] = before + value
        elif value is not None or key not in total:
            total[key] = value
    return total


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
