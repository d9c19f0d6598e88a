"""How fast and how large: cold index, start from segments on disk, one changed file, queries, memory."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sluice.eval.search.metrics import percentile
from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.store import SegmentStore
from sluice.search.ranking.fast import answer
from sluice.search.ranking.rankers import Rankers, learned_rankers

NUM_REFRESHES = 7
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
        refresh_ms = _refreshes(index, view.files[len(view.files) // 2].path if view.files else "")
        query_ms = _queries(index, rankers, queries, max_age_s=60.0)
        scanned_ms = _queries(index, rankers, queries, max_age_s=0.0)
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
        "refresh_one_file_p50_ms": round(percentile(refresh_ms, 0.5), 1),
        "refresh_one_file_max_ms": round(max(refresh_ms), 1),
        "query_p50_ms": round(percentile(query_ms, 0.5), 1),
        "query_p95_ms": round(percentile(query_ms, 0.95), 1),
        "query_with_scan_p50_ms": round(percentile(scanned_ms, 0.5), 1),
        "query_with_scan_p95_ms": round(percentile(scanned_ms, 0.95), 1),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }


def peak_memory_mb() -> float:
    """The most memory that this process has held, in MB; 0 where the system does not tell."""
    try:
        rows = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(row.split()[1]) / 1024 for row in rows if row.startswith("VmHWM:")), 0.0)


def _refreshes(index: RepoIndex, path: str) -> list[float]:
    if not path:
        raise ValueError(f"{str(index.root)!r} holds no file that is indexed")
    target = index.root / path
    status, content = target.stat(), target.read_bytes()
    times: list[float] = []
    try:
        for number in range(NUM_REFRESHES):
            target.write_bytes(content + b"\n# changed %d\n" % number)
            started = time.perf_counter()
            index.view()
            times.append((time.perf_counter() - started) * 1e3)
    finally:
        target.write_bytes(content)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    index.view()
    return times


def _queries(index: RepoIndex, rankers: Rankers, queries: Sequence[str], max_age_s: float) -> list[float]:
    if not queries:
        raise ValueError("no questions to measure with")
    times: list[float] = []
    for number in range(NUM_ROUNDS):
        for query in queries:
            started = time.perf_counter()
            results = answer(index.view(max_age_s), query, rankers, index.read, budget_tokens=1000)
            index.is_current([result.path for result in results])
            if number > 0:  # the first round warms the file cache
                times.append((time.perf_counter() - started) * 1e3)
    return times
