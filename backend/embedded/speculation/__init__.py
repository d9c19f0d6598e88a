"""Proposes tokens that the model then verifies several at a time: one interface, one module for each way."""

from sluice.backend.embedded.speculation.base import Drafter
from sluice.backend.embedded.speculation.draft_model import DraftModel, ModelDrafter
from sluice.backend.embedded.speculation.drafting import Drafting
from sluice.backend.embedded.speculation.first_of import FirstOf
from sluice.backend.embedded.speculation.prompt_lookup import PromptLookup

__all__ = ["DraftModel", "Drafter", "Drafting", "FirstOf", "ModelDrafter", "PromptLookup"]
