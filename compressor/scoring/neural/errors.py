"""What can go wrong with networks.

CompressorError
└── ModelFileError          a model's file is missing or not readable
    └── MissingBaseError    the base weights that an adapter belongs to are not installed, or are others
"""

from __future__ import annotations

from sluice.compressor.scoring.errors import ModelFileError


class MissingBaseError(ModelFileError):
    """The base weights that an adapter belongs to are not installed, or are others than it was trained on."""
