"""A corpus on the machine's accelerator: batches are gathered there, so that no processor keeps it waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sluice.eval.scorer.corpus import Corpus

_MULTIPLE = 64
"""Windows are padded to one of few lengths, which is what kernels and allocators like."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a network takes, and what it should have said of each line (see `data.Examples`)."""

    inputs: tuple[Tensor, ...]
    """See `LineNetwork.forward`."""
    labels: Tensor
    """(lines, heads) float32, 0 or 1."""
    weights: Tensor
    """(lines, heads) float32; 0 where the line carries no such fact."""


class DeviceCorpus:
    """The columns of a corpus on a device.

    Args:
        corpus: to train on or to score.
        line_weights: (lines,) float32.
        device: where.
    """

    def __init__(self, corpus: Corpus, line_weights: npt.NDArray[np.float32], device: torch.device) -> None:
        self.device = device
        self.num_tokens = corpus.num_tokens
        self.line_starts = corpus.line_starts
        self._num_lines = np.diff(corpus.line_starts)
        self._token_starts = corpus.token_starts
        self._token_ids = torch.from_numpy(corpus.token_ids.astype(np.int32)).to(device)
        self._line_ends = torch.from_numpy(corpus.line_ends.astype(np.int32)).to(device)
        num_words = corpus.num_words.astype(np.float32)
        labels = np.stack([corpus.is_quoted, num_words > 0], axis=1).astype(np.float32)
        # Facts are counted, not lines: a line with three names that are needed counts as three.
        weights = np.stack([corpus.is_line_fact, corpus.has_word_fact * np.maximum(num_words, 1)], axis=1)
        self._labels = torch.from_numpy(labels).to(device)
        self._weights = torch.from_numpy((weights * line_weights[:, None]).astype(np.float32)).to(device)

    def batch(self, numbers: npt.NDArray[np.int64], scale: npt.NDArray[np.float32] | None = None) -> Batch:
        """Gather some windows.

        Args:
            numbers: of the windows.
            scale: of each one's weight; None: 1.
        """
        num_tokens = self.num_tokens[numbers]
        longest = -(-int(num_tokens.max()) // _MULTIPLE) * _MULTIPLE
        lengths = self._to_device(num_tokens)
        at = torch.arange(longest, device=self.device)
        places = self._to_device(self._token_starts[numbers])[:, None] + at
        is_token = at < lengths[:, None]
        token_ids = torch.where(is_token, self._token_ids[places.clamp_(max=len(self._token_ids) - 1)], 0).long()
        num_lines = self._num_lines[numbers]
        rows = np.repeat(np.arange(len(numbers)), num_lines)
        first = np.concatenate([[0], np.cumsum(num_lines)])[:-1]
        lines = self._to_device(np.repeat(self.line_starts[numbers] - first, num_lines) + np.arange(len(rows)))
        weights = self._weights[lines]
        if scale is not None:
            weights = weights * self._to_device(scale[rows])[:, None]
        inputs = (token_ids, lengths, self._to_device(rows), self._line_ends[lines].long())
        return Batch(inputs, self._labels[lines], weights)

    def _to_device(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)


def length_batches(
    num_tokens: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64], batch_tokens: int
) -> list[npt.NDArray[np.int64]]:
    """Windows of like length together, longest first, each batch within its tokens with the padding."""
    order = numbers[np.argsort(-num_tokens[numbers], kind="stable")]
    found: list[npt.NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        padded = -(-int(num_tokens[order[start]]) // _MULTIPLE) * _MULTIPLE
        stop = start + max(batch_tokens // padded, 1)
        found.append(order[start:stop])
        start = stop
    return found


def shuffled_batches(
    num_tokens: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64], batch_tokens: int, draw: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Batches in random order, of windows of like length among a random few thousand."""
    numbers = draw.permutation(numbers)
    found: list[npt.NDArray[np.int64]] = []
    pool = 4_096
    for start in range(0, len(numbers), pool):
        found += length_batches(num_tokens, numbers[start : start + pool], batch_tokens)
    order: Sequence[int] = draw.permutation(len(found)).tolist()
    return [found[number] for number in order]
