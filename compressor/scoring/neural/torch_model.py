"""A network on this machine, plainly: no queue, no cache, no deadline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.neural.batch import tensors_of
from sluice.compressor.scoring.neural.batching import rectangles
from sluice.compressor.scoring.neural.card import Card
from sluice.compressor.scoring.neural.network import LineNetwork
from sluice.compressor.scoring.neural.types import Floats, Window


class TorchModel:
    """Computes windows of like length together, padded little (see `LineModel`).

    Args:
        card: the model's.
        network: as `read_network` gave it.
        max_batch_tokens: padding included.
    """

    def __init__(self, card: Card, network: LineNetwork, max_batch_tokens: int = 16_384) -> None:
        self.name, self.version = card.name, card.version
        self.max_window_tokens = card.shape.max_tokens
        self._network = network
        self._max_batch_tokens = max_batch_tokens

    def logits(self, windows: Sequence[Window]) -> list[Floats]:
        """See `LineModel`."""
        found: list[Floats] = [np.zeros((0, len(HEADS)), np.float32)] * len(windows)
        sizes = [len(window.token_ids) for window in windows]
        for numbers in rectangles(sizes, max_tokens=self._max_batch_tokens):
            batch = [windows[number] for number in numbers]
            with torch.inference_mode():
                values = self._network(*tensors_of(batch, self._network.head.weight.device)).cpu().numpy()
            at = 0
            for number, window in zip(numbers, batch, strict=True):
                found[number] = values[at : at + len(window.line_ends)]
                at += len(window.line_ends)
        return found
