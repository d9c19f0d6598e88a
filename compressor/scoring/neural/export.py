"""Writes a model's base, the adapter folded in, as any server of Hugging Face models reads it; the head stays here."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sluice.compressor.scoring.neural.bases import find_base
from sluice.compressor.scoring.neural.card import read_card
from sluice.compressor.scoring.neural.model_file import read_network

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def export_base(folder: Path, to: Path, folders: Mapping[str, Path] | None = None) -> None:
    """Write it.

    Args:
        folder: the model's.
        to: where to; made if need be.
        folders: see `find_base`.

    Raises:
        ModelFileError: the folder holds no model of this version.
        MissingBaseError: its base is not installed.
    """
    base: Any = read_network(folder, folders=folders).base
    base.save_pretrained(to)
    source = find_base(read_card(folder).base, folders).folder
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, to / name)
