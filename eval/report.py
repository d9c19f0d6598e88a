"""From the scores of many conversations to the figures that are printed: ratios of sums, with intervals.

Knows no display.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sluice.eval.bootstrap import Ratio, ratio
from sluice.eval.cost import OUTPUT_PRICE, PRICES, Prices
from sluice.eval.http import Agreement
from sluice.eval.metrics import Score
from sluice.eval.policies.untouched import Untouched
from sluice.eval.replay import Options
from sluice.eval.runner import TraceScores


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of times, in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What has a meaning only for a policy that runs as users would run it."""

    num_markers: int
    num_recoveries: int
    num_further_requests: int
    """Of a proxy's own, to its upstream; they are in no other figure."""
    overhead: Percentiles | None
    """That it reports of itself."""
    bypasses: dict[str, int]
    """Turns on which compression was skipped or failed, by reason."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy over a set of conversations, against untouched."""

    policy: str
    num_traces: int
    num_turns: int
    input_cost: Ratio | None
    bill: Ratio | None
    tokens: Ratio | None
    words: Ratio | None
    """Share kept; None where none was needed."""
    lines: Ratio | None
    places: Ratio | None
    peak_tokens: float
    """Of the largest request."""
    num_rewrites: int
    measured: Measured | None
    round_trip: Percentiles | None
    """Of its requests over HTTP; of untouched, straight to the recorder."""
    sources: dict[str, float]
    """Input cost by role, or by the tool whose result it was."""
    turn_costs: list[float]
    """Mean input cost of the first, second, … turn, over the conversations that have one."""
    worst_trace: str | None
    """The conversation with the highest ratio of input costs."""
    worst_cost: float | None


def figures(traces: Sequence[TraceScores], policy: str, *, prices: str, seed: int) -> Figures:
    """Sum one policy's scores up.

    Args:
        traces: all of which were replayed to it and to untouched.
        policy: its name.
        prices: a key of `PRICES`.
        seed: of the bootstrap.
    """
    price = PRICES[prices]
    scores = [trace.scores[policy] for trace in traces]
    base = [trace.scores[Untouched.name] for trace in traces]
    costs, base_costs = [s.usage.cost(price) for s in scores], [s.usage.cost(price) for s in base]

    def kept(counts: Sequence[tuple[int, int]]) -> Ratio | None:
        return ratio([count[0] for count in counts], [count[1] for count in counts], seed=seed)

    each = [(cost / below, t.id) for cost, below, t in zip(costs, base_costs, traces, strict=True) if below]
    worst = max(each, default=None)
    return Figures(
        policy=policy,
        num_traces=len(traces),
        num_turns=sum(s.num_turns for s in scores),
        input_cost=ratio(costs, base_costs, seed=seed),
        bill=ratio([_bill(s, price) for s in scores], [_bill(s, price) for s in base], seed=seed),
        tokens=ratio([s.usage.num_tokens for s in scores], [s.usage.num_tokens for s in base], seed=seed),
        words=kept([s.words for s in scores]),
        lines=kept([s.lines for s in scores]),
        places=kept([s.places for s in scores]),
        peak_tokens=max((s.peak_tokens for s in scores), default=0.0),
        num_rewrites=sum(s.num_rewrites for s in scores),
        measured=_measured(scores, is_untouched=policy == Untouched.name),
        round_trip=_percentiles([time for s in scores for time in s.round_trip_ms]),
        sources=_sources(scores, price),
        turn_costs=_turn_costs(scores, price),
        worst_trace=worst[1] if worst else None,
        worst_cost=worst[0] if worst else None,
    )


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of every policy, over all conversations and by group."""

    rows: list[Figures]
    groups: dict[str, list[Figures]]
    by: str
    prices: str


def report(found: Sequence[TraceScores], names: Sequence[str], *, by: str, prices: str, seed: int) -> Report:
    """The figures of these policies; see `figures` and `grouped`."""

    def rows(traces: Sequence[TraceScores]) -> list[Figures]:
        return [figures(traces, name, prices=prices, seed=seed) for name in names]

    return Report(rows(found), {group: rows(each) for group, each in grouped(found, by).items()}, by, prices)


def as_json(
    result: Report, found: Sequence[TraceScores], options: Options, agreement: Agreement | None
) -> dict[str, object]:
    """All figures, and for each conversation the sums behind them."""
    price = PRICES[result.prices]
    return {
        "options": asdict(options),
        "policies": [asdict(row) for row in result.rows],
        f"by_{result.by}": {group: [asdict(row) for row in rows] for group, rows in result.groups.items()},
        "http_agreement": asdict(agreement) if agreement else None,
        "traces": [
            {
                "id": trace.id,
                "agent": trace.agent,
                "source": trace.source,
                "policies": {
                    name: {
                        "input_cost": score.usage.cost(price),
                        "usage": asdict(score.usage),
                        "output_tokens": score.output_tokens,
                        "num_turns": score.num_turns,
                        "num_rewrites": score.num_rewrites,
                        "words": score.words,
                        "lines": score.lines,
                        "places": score.places,
                    }
                    for name, score in trace.scores.items()
                },
            }
            for trace in found
        ],
    }


def grouped(traces: Sequence[TraceScores], by: str) -> dict[str, list[TraceScores]]:
    """The conversations by their `agent` or `source`, largest group first."""
    groups: dict[str, list[TraceScores]] = {}
    for trace in traces:
        groups.setdefault(trace.agent if by == "agent" else trace.source, []).append(trace)
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def _bill(score: Score, prices: Prices) -> float:
    return score.usage.cost(prices) + OUTPUT_PRICE * score.output_tokens


def _sources(scores: Sequence[Score], prices: Prices) -> dict[str, float]:
    sums: Counter[str] = Counter()
    for score in scores:
        for source, usage in score.sources.items():
            sums[source] += usage.cost(prices)  # type: ignore[assignment]  # a counter of floats
    return dict(sums.most_common())


def _turn_costs(scores: Sequence[Score], prices: Prices) -> list[float]:
    longest = max((len(score.turn_usage) for score in scores), default=0)
    columns = ([s.turn_usage[turn].cost(prices) for s in scores if turn < len(s.turn_usage)] for turn in range(longest))
    return [sum(column) / len(column) for column in columns]


def _measured(scores: Sequence[Score], *, is_untouched: bool) -> Measured | None:
    overhead = _percentiles([time for score in scores for time in score.overhead_ms])
    # One that failed every request has no times, and must not pass for a frame that changes nothing.
    has_run = overhead is not None or any(score.round_trip_ms or score.bypasses for score in scores)
    if is_untouched or not has_run:
        return None
    return Measured(
        num_markers=sum(s.num_markers for s in scores),
        num_recoveries=sum(s.num_recoveries for s in scores),
        num_further_requests=sum(s.num_further_requests for s in scores),
        overhead=overhead,
        bypasses=dict(Counter(reason for score in scores for reason in score.bypasses)),
    )


def _percentiles(times: Sequence[float]) -> Percentiles | None:
    return Percentiles(*(float(each) for each in np.quantile(times, [0.5, 0.95, 0.99]))) if times else None
