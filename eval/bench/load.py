"""Sends a workload to one server and takes the times: to the first byte of an answer, and of the whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
import psutil

from sluice.eval.bench.stage import PACE_HEADER
from sluice.eval.bench.workload import Workload
from sluice.eval.errors import ReplayError

TIMEOUT_S = 120.0


@dataclass(slots=True)
class Taken:
    """What one server needed for one workload."""

    first_ms: list[float] = field(default_factory=list)
    """Time to the first byte of each answer's body, in milliseconds."""
    cpu_ms: float | None = None
    """Processor time of the server a request, in milliseconds; None where the process is not ours."""
    wall_s: float = 0.0
    num_requests: int = 0


async def send_all(url: str, workload: Workload, headers: Mapping[str, str], pid: int | None) -> Taken:
    """Send a workload.

    Args:
        url: origin of the server.
        workload: what to send.
        headers: of each request.
        pid: the server's process, whose processor time is taken; its children count.

    Raises:
        ReplayError: an answer was not whole.
    """
    taken = Taken()
    all_headers = {**headers, "content-type": "application/json", PACE_HEADER.decode(): f"{workload.pace_ms:g}"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

        async def send(data: bytes) -> float:
            begun_s = time.perf_counter()
            async with session.post(f"{url}/v1/chat/completions", data=data, headers=all_headers) as answer:
                first = await answer.content.readany()
                first_ms = (time.perf_counter() - begun_s) * 1000
                rest = await answer.read()
                if answer.status != 200 or not (first + rest).endswith(b"data: [DONE]\n\n"):
                    raise ReplayError(f"{url} gave no whole answer: status {answer.status}, {(first + rest)[:200]!r}")
                return first_ms

        warm, measured = workload.bodies[: workload.num_warm], list(workload.bodies[workload.num_warm :])
        await asyncio.gather(*(send(data) for data in warm))
        before_s, begun_s = cpu_s(pid), time.perf_counter()
        measured.reverse()

        async def client() -> None:
            while measured:
                taken.first_ms.append(await send(measured.pop()))

        taken.num_requests = len(measured)
        await asyncio.gather(*(client() for _ in range(workload.num_clients)))
        taken.wall_s = time.perf_counter() - begun_s
        after_s = cpu_s(pid)
        if before_s is not None and after_s is not None:
            taken.cpu_ms = (after_s - before_s) * 1000 / taken.num_requests
    return taken


def cpu_s(pid: int | None) -> float | None:
    """Processor time that a process and its children have used, in seconds."""
    if pid is None:
        return None
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def pin(pid: int, core: int) -> None:
    """Keep a process on one core, where the platform can."""
    process = psutil.Process(pid)
    if hasattr(process, "cpu_affinity"):
        cores = process.cpu_affinity() or [0]
        process.cpu_affinity([cores[core % len(cores)]])
