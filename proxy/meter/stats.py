"""What the meter knows, for people and dashboards: sums by arm, day, model, key and mode. Plain functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta

import msgspec

from sluice.proxy.meter.holdout import Comparison, Spent, compare
from sluice.proxy.meter.store import Cell, Conversation, Counters, add_to
from sluice.proxy.meter.turn import Arm, bucket_ms
from sluice.proxy.meter.usage import Usage


class Sums(msgspec.Struct, frozen=True):
    """What a group of turns comes to."""

    num_turns: int
    num_errors: int
    tokens_in: int
    """Tokens of the messages that came in, by our tokenizer."""
    tokens_out: int
    """Tokens of the messages forwarded."""
    usage: Usage
    """By the upstreams' count."""
    cost: float
    """In dollars, of what has a price."""
    cost_untouched: float
    """What the same turns would have cost untouched."""
    saved: float
    """The difference; below 0 where it was dearer."""
    cache_read_share: float
    """Share of all input that was read from the providers' caches."""
    num_unmetered: int
    """Turns whose upstream gave no usage: they are in no cost."""
    num_unpriced: int
    """Turns whose model has no price: their tokens are counted, they are in no cost."""


class Group(msgspec.Struct, frozen=True):
    """The sums under one name."""

    name: str
    sums: Sums


class Percentiles(msgspec.Struct, frozen=True):
    """Of the time that was ours, in milliseconds, good to a fifth; None where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


class Composed(msgspec.Struct, frozen=True):
    """What of the texts that arrived comes from one source, in tokens estimated from their characters."""

    name: str
    tokens_in: int
    """As the clients sent them."""
    tokens_out: int
    """As they were first forwarded."""


class Answers(msgspec.Struct, frozen=True):
    """What the prompt cache did."""

    num_hits: int
    num_shared: int
    saved: float
    """What the upstreams would have charged for these answers, in dollars."""


class Stats(msgspec.Struct, frozen=True):
    """Everything at a glance."""

    since: str
    until: str
    scope: str
    """`all workers`, or `this process` where there is no shared store or it does not answer."""
    totals: Sums
    arms: dict[str, Sums]
    """By `treated`, `holdout`, `off`."""
    holdout: Comparison
    """The saving as a measured difference, over the recent conversations."""
    by_day: list[Group]
    by_model: list[Group]
    by_key: list[Group]
    by_mode: list[Group]
    overhead_ms: Percentiles
    overhead_histogram: list[tuple[float, int]]
    """Upper end of each bucket in milliseconds, and how many turns lie in it; ascending, empty ones left out."""
    by_kind: list[Composed]
    """New texts by what they are: a tool result's kind, else their author; the largest first."""
    by_tool: list[Composed]
    """New tool results by the tool that gave them; the largest first."""
    epochs: dict[str, int]
    """Rewrites by reason."""
    bypasses: dict[str, int]
    """Turns whose compression was skipped or failed, by reason."""
    answers: Answers
    num_retries: int


def days_until(last: date, num_days: int) -> list[str]:
    """The names of so many days, in order, the last one included."""
    return [(last - timedelta(days=back)).isoformat() for back in reversed(range(num_days))]


def stats_of(cells: Mapping[Cell, Counters], comparison: Comparison, *, since: str, until: str, scope: str) -> Stats:
    """Sum counters up."""
    total = _added(cells.values())
    return Stats(
        since=since,
        until=until,
        scope=scope,
        totals=_sums(total),
        arms={arm.value: _sums(_added(sums for cell, sums in cells.items() if cell.arm == arm.value)) for arm in Arm},
        holdout=comparison,
        by_day=_groups(cells, lambda cell: cell.day),
        by_model=_groups(cells, lambda cell: cell.model),
        by_key=_groups(cells, lambda cell: cell.key),
        by_mode=_groups(cells, lambda cell: cell.mode),
        overhead_ms=_percentiles(total),
        overhead_histogram=[(round(bucket_ms(index), 3), num) for index, num in _buckets(total)],
        by_kind=_composed(total, "kind."),
        by_tool=_composed(total, "tool."),
        epochs=_counts(total, "epoch."),
        bypasses=_counts(total, "bypass."),
        answers=Answers(
            int(total.get("answer.hit", 0)), int(total.get("answer.shared", 0)), total.get("cost_answered", 0.0)
        ),
        num_retries=int(total.get("retries", 0)),
    )


def compare_by(
    conversations: Iterable[Conversation], name_of: Callable[[Conversation], str], max_groups: int
) -> dict[str, Comparison]:
    """Compare the arms within groups of conversations: the dearest groups, in which both arms hold something.

    Args:
        conversations: recent ones.
        name_of: names the group of one.
        max_groups: so many at the most.
    """
    groups: dict[str, list[Conversation]] = defaultdict(list)
    for conversation in conversations:
        groups[name_of(conversation)].append(conversation)
    cost = {name: sum(one.sums.get("cost", 0.0) for one in group) for name, group in groups.items()}
    dearest = sorted(groups, key=lambda name: (-cost[name], name))[:max_groups]
    found = {name: compare_conversations(groups[name]) for name in dearest}
    return {name: comparison for name, comparison in found.items() if comparison.per_turn is not None}


def compare_conversations(conversations: Iterable[Conversation]) -> Comparison:
    """Compare the arms over conversations whose turns have a price."""
    arms: dict[str, list[Spent]] = defaultdict(list)
    for conversation in conversations:
        if conversation.sums.get("priced", 0) > 0:
            turns, cost = int(conversation.sums.get("turns", 0)), conversation.sums.get("cost", 0.0)
            arms[conversation.about.arm].append(Spent(turns, cost))
    return compare(arms[Arm.TREATED], arms[Arm.HOLDOUT])


def _added(many: Iterable[Mapping[str, float]]) -> Counters:
    total: Counters = {}
    for sums in many:
        add_to(total, sums)
    return total


def _groups(cells: Mapping[Cell, Counters], name_of: Callable[[Cell], str]) -> list[Group]:
    groups: dict[str, Counters] = {}
    for cell, sums in cells.items():
        add_to(groups.setdefault(name_of(cell), {}), sums)
    return [Group(name, _sums(groups[name])) for name in sorted(groups)]


def _sums(counters: Mapping[str, float]) -> Sums:
    def count(name: str) -> int:
        return int(counters.get(name, 0))

    usage = Usage(*(count(f"usage.{name}") for name in Usage.__struct_fields__))
    cost, cost_untouched = counters.get("cost", 0.0), counters.get("cost_untouched", 0.0)
    return Sums(
        num_turns=count("turns"),
        num_errors=count("errors"),
        tokens_in=count("tokens_in"),
        tokens_out=count("tokens_out"),
        usage=usage,
        cost=cost,
        cost_untouched=cost_untouched,
        saved=cost_untouched - cost,
        cache_read_share=usage.cache_read / usage.num_prompt if usage.num_prompt else 0.0,
        num_unmetered=count("unmetered"),
        num_unpriced=count("unpriced"),
    )


def _counts(counters: Mapping[str, float], prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): int(value) for name, value in sorted(counters.items()) if name.startswith(prefix)
    }


def _composed(counters: Mapping[str, float], prefix: str) -> list[Composed]:
    sides: dict[str, dict[str, int]] = defaultdict(dict)
    for name, value in _counts(counters, prefix).items():
        source, _, side = name.rpartition(".")
        sides[source][side] = value
    found = [Composed(name, side.get("in", 0), side.get("out", 0)) for name, side in sides.items()]
    return sorted(found, key=lambda one: (-one.tokens_in, one.name))


def _buckets(counters: Mapping[str, float]) -> list[tuple[int, int]]:
    return sorted((int(name), num) for name, num in _counts(counters, "overhead.").items())


def _percentiles(counters: Mapping[str, float]) -> Percentiles:
    buckets = _buckets(counters)
    total = sum(num for _, num in buckets)

    def at(share: float) -> float | None:
        num_below = 0
        for index, num in buckets:
            num_below += num
            if num_below >= share * total:
                return round(bucket_ms(index), 3)
        return None

    return Percentiles(at(0.50), at(0.95), at(0.99))
