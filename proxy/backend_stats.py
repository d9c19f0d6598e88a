"""What the self-hosted backends behind the proxy say of themselves, for `/metrics` and `/v1/stats`.

Asked when somebody looks, all at once and within a second; one that says nothing is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sluice.backend.metrics import BackendMetrics

TIMEOUT_S = 1.0


async def read_backends(urls: Mapping[str, str]) -> dict[str, BackendMetrics]:
    """The figures of those backends that give any, by name.

    Args:
        urls: origin of each, by its name.
    """
    names = list(urls)
    found = await asyncio.gather(*(_read(urls[name]) for name in names))
    return {name: figures for name, figures in zip(names, found, strict=True) if figures is not None}


def render_backends(backends: Mapping[str, BackendMetrics]) -> str:
    """The same figures in Prometheus' text form; empty where there are none."""
    if not backends:
        return ""
    from sluice.backend.metrics import prometheus

    return prometheus(backends)


async def _read(url: str) -> BackendMetrics | None:
    import httpx

    from sluice.backend.metrics import BackendMetrics, read_metrics

    try:
        figures = await read_metrics(url, timeout_s=TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    return figures if figures != BackendMetrics() else None
