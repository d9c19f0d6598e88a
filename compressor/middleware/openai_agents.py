"""OpenAI's Agents SDK: a filter for `RunConfig(call_model_input_filter=…)`.

The run keeps the whole history; what the model is sent is shorter.
"""

from __future__ import annotations

from typing import Any, cast

from agents.run_config import CallModelData, ModelInputData

from sluice.compressor.dialects import OPENAI_RESPONSES
from sluice.compressor.middleware.history import History, Json


class SluiceFilter:
    """Shortens tool results on their way to the model.

    Args:
        history: decides and remembers; None makes one with its defaults.
    """

    def __init__(self, history: History | None = None) -> None:
        self.history = history or History()

    async def __call__(self, data: CallModelData[Any]) -> ModelInputData:
        """What the model is sent in place of the items that the run holds."""
        items = data.model_data.input
        after = await self.history.shorten(cast("list[Json]", items), dialect=OPENAI_RESPONSES, context=_context(data))
        return ModelInputData(input=cast("Any", after), instructions=data.model_data.instructions)


def _context(data: CallModelData[Any]) -> list[str]:
    """What the provider's cache depends on: the model, the tools and the instructions."""
    model = data.agent.model
    name = model if isinstance(model, str) else getattr(model, "model", type(model).__name__)
    return [str(name), data.model_data.instructions or "", *(tool.name for tool in data.agent.tools)]
