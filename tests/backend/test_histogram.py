from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.base import EngineStats
from sluice.backend.engine_metrics import render_metrics
from sluice.backend.histogram import BOUNDS_S, Histogram


@given(st.lists(st.floats(0, 100)))
def test_each_bucket_tells_how_many_lie_at_or_below_its_bound(durations_s: list[float]) -> None:
    stats = EngineStats(ttft=Histogram())
    for duration_s in durations_s:
        stats.ttft.observe(duration_s)
    lines = dict(line.rsplit(" ", 1) for line in render_metrics(stats).splitlines() if not line.startswith("#"))
    for bound in BOUNDS_S:
        at_most = sum(duration_s <= bound for duration_s in durations_s)
        assert int(lines[f'sluice_engine_ttft_seconds_bucket{{le="{bound}"}}']) == at_most
    assert int(lines["sluice_engine_ttft_seconds_count"]) == len(durations_s)


def test_no_name_comes_twice() -> None:
    names = [line.split()[2] for line in render_metrics(EngineStats()).splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
