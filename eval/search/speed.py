"""How fast and how large: cold index, start from segments on disk, one changed file, queries, memory.

Times are by the clock, and again by the processor: beside other work the clock says how busy the machine was.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sluice.eval.search.metrics import percentile
from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.store import SegmentStore
from sluice.search.ranking.fast import answer
from sluice.search.ranking.rankers import Rankers, learned_rankers

NUM_REFRESHES = 15
NUM_ROUNDS = 3


def measure_speed(root: Path, queries: Sequence[str]) -> dict[str, float]:
    """Figures for the tree at `root`; one of its files is appended to and put back.

    Raises:
        ValueError: there is no file to append to, or no question.
    """
    rankers = learned_rankers()
    with tempfile.TemporaryDirectory(prefix="sluice-speed-") as folder:
        database = Path(folder) / "segments.db"
        store = SegmentStore(database)
        started, started_cpu = time.perf_counter(), time.process_time()
        index = RepoIndex(root, store)
        view = index.view()
        cold_s, cold_cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
        num_bytes = sum((index.root / entry.path).stat().st_size for entry in view.files)
        refresh = _refreshes(index, view.files[len(view.files) // 2].path if view.files else "")
        query = _queries(index, rankers, queries, max_age_s=60.0)
        scanned = _queries(index, rankers, queries, max_age_s=0.0)
        store.close()
        store = SegmentStore(database)
        started = time.perf_counter()
        RepoIndex(root, store).view()
        warm_s = time.perf_counter() - started
        store.close()
    return {
        "num_files": view.num_files,
        "num_chunks": view.num_chunks,
        "megabytes": round(num_bytes / 1e6, 1),
        "cold_index_s": round(cold_s, 2),
        "cold_files_per_cpu_s": round(view.num_files / max(cold_cpu_s, 1e-9), 1),
        "cold_megabytes_per_cpu_s": round(num_bytes / 1e6 / max(cold_cpu_s, 1e-9), 2),
        "start_from_segments_s": round(warm_s, 2),
        **_spread("refresh_one_file", refresh),
        **_spread("query", query),
        **_spread("query_with_scan", scanned),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }


def peak_memory_mb() -> float:
    """The most memory that this process has held, in MB; 0 where the system does not tell."""
    try:
        rows = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(row.split()[1]) / 1024 for row in rows if row.startswith("VmHWM:")), 0.0)


class _Times:
    """Milliseconds by the clock and by the processor."""

    def __init__(self) -> None:
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []

    @contextmanager
    def taken(self, *, counts: bool = True) -> Iterator[None]:
        """Time what is done inside."""
        started, started_cpu = time.perf_counter(), time.process_time()
        yield
        if counts:
            self.wall_ms.append((time.perf_counter() - started) * 1e3)
            self.cpu_ms.append((time.process_time() - started_cpu) * 1e3)


def _spread(name: str, times: _Times) -> dict[str, float]:
    return {
        f"{name}_{label}_{kind}ms": round(percentile(values, share), 1)
        for kind, values in (("", times.wall_ms), ("cpu_", times.cpu_ms))
        for label, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
    }


def _refreshes(index: RepoIndex, path: str) -> _Times:
    if not path:
        raise ValueError(f"{str(index.root)!r} holds no file that is indexed")
    target = index.root / path
    status, content = target.stat(), target.read_bytes()
    times = _Times()
    try:
        for number in range(NUM_REFRESHES):
            target.write_bytes(content + b"\n# changed %d\n" % number)
            with times.taken():
                index.view()
    finally:
        target.write_bytes(content)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    index.view()
    return times


def _queries(index: RepoIndex, rankers: Rankers, queries: Sequence[str], max_age_s: float) -> _Times:
    if not queries:
        raise ValueError("no questions to measure with")
    times = _Times()
    for number in range(NUM_ROUNDS):
        for query in queries:
            with times.taken(counts=number > 0):  # the first round warms the file cache
                results = answer(index.view(max_age_s), query, rankers, index.read, budget_tokens=1000)
                index.is_current([result.path for result in results])
    return times
