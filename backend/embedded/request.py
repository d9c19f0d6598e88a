"""A caller's request inside the engine, and the way of its outputs back to the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from sluice.backend.base import TokenOutput
from sluice.backend.embedded.sequence import Sequence


@dataclass(eq=False)
class Request:
    """One caller's prompt with its continuations."""

    sequences: list[Sequence]
    """The first computes the prompt; the others fork from it."""
    loop: asyncio.AbstractEventLoop
    outputs: asyncio.Queue[TokenOutput | Exception] = field(default_factory=asyncio.Queue)
    is_forked: bool = False
    asked_s: float = field(default_factory=time.monotonic)
    last_s: dict[int, float] = field(default_factory=dict)
    """When each continuation had its last token."""


def send(outputs: Many[tuple[Request, TokenOutput | Exception]]) -> None:
    """Hand outputs to their callers, from any thread: one call into each event loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[Request, TokenOutput | Exception]]] = defaultdict(list)
    for request, output in outputs:
        by_loop[request.loop].append((request, output))
    for loop, batch in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop has been closed, perhaps just now: nobody is left to hear it
            loop.call_soon_threadsafe(_deliver, batch)


def _deliver(batch: list[tuple[Request, TokenOutput | Exception]]) -> None:
    for request, output in batch:
        request.outputs.put_nowait(output)
