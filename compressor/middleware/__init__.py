"""Sluice within an agent's own process, for agents whose `base_url` cannot be set.

Each framework is imported in its own module only: `langchain`, `openai_agents`, `pydantic_ai`, `litellm`,
`mini_swe_agent`.
"""

from sluice.compressor.middleware.history import History
from sluice.compressor.middleware.plain import compact

__all__ = ["History", "compact"]
