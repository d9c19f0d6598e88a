"""Says which tools an upstream cannot be told of: those that only the provider's own servers run."""

from __future__ import annotations

from collections.abc import Sequence

from sluice.proxy.log import fields, logger


def log_dropped(wire: str, names: Sequence[str]) -> None:
    """Log the names of tools that a translation left out."""
    if names:
        logger.info(fields("tools_not_translated", wire=wire, tools=",".join(names)))
