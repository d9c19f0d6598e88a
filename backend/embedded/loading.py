"""Loads an engine: chooses device and dtype where they are left open."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError

from sluice.backend.embedded.engine import EmbeddedEngine
from sluice.backend.errors import BackendError, ModelUnavailableError


def load_engine(folder: Path, *, device: str, dtype: str, end_token_ids: frozenset[int]) -> EmbeddedEngine:
    """Load the model in `folder`; "auto" is CUDA where there is one, bfloat16 there and float32 on CPU.

    Raises BackendError if CUDA is asked for and absent, ModelUnavailableError if the weights cannot be read.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError("--device cuda: torch finds no CUDA device here")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" else "float32"
    try:
        return EmbeddedEngine.load(folder, device=device, dtype=dtype, end_token_ids=end_token_ids)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnavailableError(str(folder), str(error)) from None
