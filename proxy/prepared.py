"""A request that is ready to be forwarded: what `prepare` makes of a body, and what looks at it later reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sluice.compressor import Compressed, Mode
from sluice.compressor import types as compressing
from sluice.proxy.body import Body
from sluice.proxy.search_tool import Searching
from sluice.proxy.upstreams import Target

Bypass = Literal[compressing.Bypass, "content-encoding", "duplicate-key"]
"""Why a request is not compressed, or in part: the compressor's reasons, and what of the body stands in the way."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request, ready to be forwarded."""

    body: bytes
    """What goes to the upstream."""
    mode: Mode
    """The mode in force."""
    bypass: Bypass | None = None
    """Why compression was skipped or failed; None where it ran, or where the mode is `off`."""
    parsed: Body | None = None
    """The client's body, decoded; None where it was not."""
    messages_out: Sequence[bytes] = ()
    """The messages in `body`."""
    is_packed: bool = False
    """Whether `body` is still encoded as the client sent it, so that its `content-encoding` stands."""
    target: Target | None = None
    """Which upstream serves it; None: the one that serves requests that name no model."""
    compressed: Compressed | None = None
    """What the compressor said; None where it was not asked, or failed."""
    tenant: bytes = b""
    """Who sends the request; empty where that cannot be told."""
    searching: Searching | None = None
    """The request as it has the search tool; None where it goes without."""
