"""semble (MinishLab), where it is installed: its own index, chunks and ranking rules.

Its embedding model is downloaded from a hub; where that cannot be had, its lexical half with its ranking rules is
measured (a model of one word and no weight), and the row says so.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from sluice.eval.search.baselines.files import within_budget
from sluice.eval.search.engines import Found

TOP_K = 60


class SembleEngine:
    """One semble index.

    Args:
        root: the tree.
        model: from `load_model`.

    Raises:
        ImportError: semble is not installed.
    """

    def __init__(self, root: Path, model: Any) -> None:
        create = import_module("semble.index.create").create_index_from_path
        make_index = import_module("semble.index.index").SembleIndex
        content = (import_module("semble.types").ContentType.CODE,)
        root = root.resolve()
        bm25, dense, chunks, manifest = create(root, model=model.model, content=content, display_root=root)
        self._index = make_index(
            model.model, bm25, dense, chunks, "local", root=root, content=content, manifest=manifest
        )
        self._search = import_module("semble.search").search
        self._alpha = None if model.is_dense else 0.0

    def search(self, query: str, budget_tokens: int) -> list[Found]:
        """See `Engine`."""
        index = self._index
        results = self._search(
            query, index.model, index._semantic_index, index._bm25_index, index.chunks, TOP_K, alpha=self._alpha
        )
        ranges = [Found(r.chunk.file_path, r.chunk.start_line, r.chunk.end_line, len(r.chunk.content)) for r in results]
        return within_budget(ranges, budget_tokens)


class SembleModel:
    """The embedding model, or the stand-in without weight.

    Attributes:
        model: a `model2vec.StaticModel`.
        is_dense: whether it is the real one.
    """

    def __init__(self) -> None:
        try:
            self.model: Any = import_module("semble.index.dense").load_model()[0]
            self.is_dense = True
        except (OSError, ValueError, RuntimeError):
            self.model = _weightless()
            self.is_dense = False


def _weightless() -> Any:
    import numpy as np

    words = {"[UNK]": 0, "[PAD]": 1}
    tokenizer = import_module("tokenizers").Tokenizer(
        import_module("tokenizers.models").WordLevel(words, unk_token="[UNK]")  # noqa: S106 -- no password
    )
    tokenizer.pre_tokenizer = import_module("tokenizers.pre_tokenizers").Whitespace()
    return import_module("model2vec").StaticModel(vectors=np.ones((2, 4), np.float32), tokenizer=tokenizer)
