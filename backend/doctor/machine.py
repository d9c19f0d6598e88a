"""What this machine has: GPUs with memory and driver, memory, disk, and an installed vLLM. Reads, changes nothing."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sluice.backend.errors import VllmInstallError
from sluice.backend.settings import default_cache_dir
from sluice.backend.vllm.environment import find_environment

_QUERY = ("name", "memory.total", "memory.free", "driver_version", "compute_cap")
_TIMEOUT_S = 20.0
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""What a container may take of the machine's memory."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    name: str
    memory_bytes: int
    free_bytes: int
    driver: str
    compute_capability: float
    """8.9 and above compute in fp8; below 8.0 there is no bfloat16."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is."""

    gpus: tuple[Gpu, ...]
    num_cores: int
    memory_bytes: float
    """Of the machine, or of the container that we are in."""
    disk_free_bytes: int
    """Where weights and vLLM are kept."""
    vllm: str | None
    """The installed vLLM's program; None: it is not installed."""
    is_cpu_build: bool = False


def inspect_machine(env_dir: Path | None = None) -> Machine:
    """Look at this machine."""
    try:
        found = find_environment(env_dir)
    except VllmInstallError:
        found = None
    return Machine(
        gpus=tuple(read_gpus(_ask_nvidia())),
        num_cores=_num_cores(),
        memory_bytes=min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), read_limit(_MEMORY_LIMIT)),
        disk_free_bytes=shutil.disk_usage(_existing(default_cache_dir())).free,
        vllm=str(found.program) if found else None,
        is_cpu_build=found.is_cpu if found else False,
    )


def read_gpus(table: str) -> list[Gpu]:
    """Read `nvidia-smi --format=csv,noheader,nounits` (memory in MiB); lines that say less are skipped."""
    gpus = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        try:
            name, total, free, driver, capability = cells
            gpus.append(Gpu(name, int(total) * 2**20, int(free) * 2**20, driver, float(capability)))
        except ValueError:
            continue
    return gpus


def read_limit(file: Path) -> float:
    """A control group's limit in bytes; infinite where there is none, or no such file."""
    try:
        text = file.read_text("ascii").strip()
    except OSError:
        return math.inf
    return int(text) if text.isdigit() else math.inf


def _num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ask_nvidia() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
