"""What can go wrong in scoring.

CompressorError
└── ModelFileError   a model's file is missing or not readable
"""

from __future__ import annotations

from sluice.compressor.errors import CompressorError


class ModelFileError(CompressorError):
    """A model's file is missing or not readable."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"model file {file!r}: {reason}")
        self.file = file
