"""What a model of lines reads and gives. Knows no tokenizer and no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What a model reads at once: a context, and lines of one segment that follow each other."""

    token_ids: Ints
    """(tokens,): the context, lines that are read only, then the lines to score."""
    line_ends: Ints
    """(lines,): position of each scored line's last token, rising. Its other tokens begin behind the end before."""
    num_context_tokens: int
    """Position at which the first scored line begins."""
    segment: int
    """Which of the segments that were asked about, from 0."""
    first_line: int
    """The first scored line's place in its segment, from 0."""

    @property
    def key(self) -> bytes:
        """16-byte digest of what a model reads: with the model's version it names its logits."""
        digest = blake2b(self.token_ids.astype("<i4").tobytes(), digest_size=16)
        digest.update(self.line_ends.astype("<i4").tobytes())
        return digest.digest()


class LineModel(Protocol):
    """A network that scores lines."""

    @property
    def name(self) -> str:
        """Which model, for reports."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the same window could be scored otherwise."""
        ...

    @property
    def max_window_tokens(self) -> int:
        """Longest window that it reads."""
        ...

    def logits(self, windows: Sequence[Window]) -> list[Floats]:
        """(lines, `HEADS`) float32 for each window, in order. They depend on no other window."""
        ...
