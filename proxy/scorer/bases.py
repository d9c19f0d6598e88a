"""Where base models are that the compressor does not know of: the embedded engine's default weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sluice.compressor.scoring.neural.card import read_card


def folders_for(model: Path) -> Mapping[str, Path]:
    """The folder of a model's base, where it is the engine's; converts its weights the first time.

    Args:
        model: a trained model's folder.

    Raises:
        ModelFileError: it is none.
        BackendError: the package with the base's weights is not installed, or they are broken.
        ImportError: what converts them is not installed.
    """
    base = read_card(model).base
    from sluice.backend.weights import DEFAULT_MODEL

    if base != DEFAULT_MODEL:
        return {}
    from sluice.backend.settings import default_cache_dir
    from sluice.backend.weights import default_weights

    return {base: default_weights(default_cache_dir(), lambda _: None)}
