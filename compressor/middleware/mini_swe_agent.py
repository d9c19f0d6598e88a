"""mini-swe-agent: a model in place of `LitellmModel`, also by name (`model_class:` in its configuration).

The trajectory keeps the whole history; what the model is sent is shorter.
"""

from __future__ import annotations

from typing import Any

from minisweagent.models.litellm_model import LitellmModel
from minisweagent.models.utils.actions_toolcall import BASH_TOOL

from sluice.compressor.middleware.history import History
from sluice.compressor.middleware.litellm import as_sent


class SluiceLitellmModel(LitellmModel):  # type: ignore[misc]  # the package carries no types
    """Shortens observations on their way to the model.

    Args:
        history: decides and remembers; None makes one with its defaults.
        options: see `LitellmModel`.
    """

    def __init__(self, *, history: History | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.history = history or History()

    def _query(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        context = [self.config.model_name, BASH_TOOL]
        return super()._query(self.history.shorten_sync(as_sent(messages), context=context), **options)
