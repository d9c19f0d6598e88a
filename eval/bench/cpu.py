"""Processor time of another process, in nanoseconds where the system has a clock for it; keeping it on a core."""

from __future__ import annotations

import ctypes
import time

import psutil


def cpu_s(pid: int | None) -> float | None:
    """Processor time that a process and its children have used, in seconds; None without a process.

    Linux keeps a clock for each process (`clock_getcpuclockid`) that counts nanoseconds, where `/proc` shows ticks of
    10 ms. Where there is none, the ticks have to do.
    """
    if pid is None:
        return None
    process = psutil.Process(pid)
    return sum(_cpu_s(one) for one in (process, *process.children(recursive=True)))


def pin(pid: int, core: int) -> None:
    """Keep a process on one core, where the platform can."""
    process = psutil.Process(pid)
    if hasattr(process, "cpu_affinity"):
        cores = process.cpu_affinity() or [0]
        for task in process.threads():
            psutil.Process(task.id).cpu_affinity([cores[core % len(cores)]])


def _cpu_s(process: psutil.Process) -> float:
    clock = ctypes.c_int()
    try:
        failed = ctypes.CDLL(None).clock_getcpuclockid(process.pid, ctypes.byref(clock))
    except (AttributeError, OSError, TypeError):
        failed = -1
    if failed:
        times = process.cpu_times()
        return float(times.user + times.system)
    return time.clock_gettime(clock.value)
