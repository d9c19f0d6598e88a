"""From what was taken to figures: a row for each workload and system, and the bars that the proxy is held to."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sluice.eval.bench.load import Taken

DIRECT, FLOOR, PLAIN = "direct", "bare relay", "FastAPI + httpx"
OFF, SAFE = "sluice off", "sluice safe"


@dataclass(frozen=True, slots=True)
class Row:
    """What one system needed for one workload: medians over the rounds, and over all requests of all rounds."""

    workload: str
    system: str
    cpu_ms: float | None
    """Processor time a request; None where the process is not ours."""
    cpu_ratio: float | None
    """The same, over that of the plain pass-through."""
    added_ms_p50: float
    """Time to the first byte of the answer, over that of a direct connection."""
    added_ms_p95: float
    requests_per_s: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure beside what it may be at the most."""

    says: str
    found: float
    most: float
    floor: float | None = None
    """What a relay that reads nothing comes to; None where there is no such figure."""

    @property
    def is_met(self) -> bool:
        """Whether it holds."""
        return self.found <= self.most


def rows_of(taken: Mapping[str, Mapping[str, Sequence[Taken]]]) -> list[Row]:
    """Make the rows.

    Args:
        taken: by system, by workload, one for each round.
    """
    rows: list[Row] = []
    for workload in taken[DIRECT]:
        direct, plain = _first_ms(taken[DIRECT][workload]), _cpu_ms(taken[PLAIN][workload])
        for system, of in taken.items():
            cpu, first = _cpu_ms(of[workload]), _first_ms(of[workload])
            rows.append(
                Row(
                    workload,
                    system,
                    cpu,
                    cpu / plain if cpu is not None and plain else None,
                    first[0] - direct[0],
                    first[1] - direct[1],
                    statistics.median(one.num_requests / one.wall_s for one in of[workload]),
                )
            )
    return rows


def bars_of(rows: Sequence[Row]) -> list[Bar]:
    """The bars for which there are figures."""
    by = {(row.workload, row.system): row for row in rows}
    bars: list[Bar] = []

    def ratio(workload: str, system: str, most: float) -> None:
        row, floor = by.get((workload, system)), by.get((workload, FLOOR))
        if row is not None and row.cpu_ratio is not None:
            says = f"CPU over {PLAIN}'s, {system}, {workload}"
            bars.append(Bar(says, row.cpu_ratio, most, floor.cpu_ratio if floor is not None else None))

    for workload in ("2 kB, 1 client", "2 kB, 1 client, event every 1 ms"):
        ratio(workload, OFF, 0.25)
    for workload in ("20 kB, 16 clients", "20 kB, 64 clients, event every 10 ms"):
        ratio(workload, OFF, 0.25)
    for workload in ("turn at 300 messages", "turn at 300 messages, event every 1 ms"):
        ratio(workload, SAFE, 0.5)
    for workload, system, most in (("2 kB, 1 client", OFF, (2.0,)), ("turn at 300 messages", SAFE, (5.0, 15.0))):
        row, floor = by.get((workload, system)), by.get((workload, FLOOR))
        if row is None or floor is None:
            continue
        found = ((row.added_ms_p50, floor.added_ms_p50), (row.added_ms_p95, floor.added_ms_p95))
        for name, limit, (ms, floor_ms) in zip(("median", "95th percentile"), most, found, strict=False):
            bars.append(Bar(f"added to the first byte, ms, {name}, {system}, {workload}", ms, limit, floor_ms))
    for system, beyond in ((FLOOR, "reading and writing its bytes"), (OFF, "what it costs in off")):
        costs = [_beyond_ms(by, f"turn at {num} messages", system) for num in (100, 1_000)]
        if costs[0] is not None and costs[1] is not None and costs[0] > 0:
            bars.append(
                Bar(f"CPU of a turn in safe, at 1,000 messages over 100, beyond {beyond}", costs[1] / costs[0], 1.5)
            )
    return bars


def _beyond_ms(by: Mapping[tuple[str, str], Row], workload: str, other: str) -> float | None:
    """Processor time of a turn in `safe`, less that of the same turn through something else."""
    ours, theirs = by.get((workload, SAFE)), by.get((workload, other))
    if ours is None or theirs is None or ours.cpu_ms is None or theirs.cpu_ms is None:
        return None
    return ours.cpu_ms - theirs.cpu_ms


def _cpu_ms(taken: Sequence[Taken]) -> float | None:
    found = [one.cpu_ms for one in taken if one.cpu_ms is not None]
    return statistics.median(found) if found else None


def _first_ms(taken: Sequence[Taken]) -> tuple[float, float]:
    """Median and 95th percentile of the time to the first byte, over all rounds, in milliseconds."""
    times = sorted(time for one in taken for time in one.first_ms)
    return statistics.median(times), times[min(len(times) - 1, int(0.95 * len(times)))]
