"""How windows that a network reads together are laid out for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sluice.compressor.scoring.neural.types import Window


def tensors_of(windows: Sequence[Window], device: torch.device) -> tuple[torch.Tensor, ...]:
    """What `LineNetwork.forward` takes for a batch."""
    longest = max(len(window.token_ids) for window in windows)
    token_ids = np.zeros((len(windows), longest), dtype=np.int64)
    for row, window in enumerate(windows):
        token_ids[row, : len(window.token_ids)] = window.token_ids
    num_tokens = np.array([len(window.token_ids) for window in windows], dtype=np.int64)
    rows = np.repeat(np.arange(len(windows)), [len(window.line_ends) for window in windows])
    ends = np.concatenate([window.line_ends for window in windows]).astype(np.int64)
    arrays = (token_ids, num_tokens, rows, ends)
    return tuple(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays)
