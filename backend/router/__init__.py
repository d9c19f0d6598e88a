"""Sends a conversation to the replica that holds its prefix, unless that costs more than it saves."""

from sluice.backend.router.policy import RouterSettings
from sluice.backend.router.prompt import Prompt, read_prompt
from sluice.backend.router.router import Route, Router

__all__ = ["Prompt", "Route", "Router", "RouterSettings", "read_prompt"]
