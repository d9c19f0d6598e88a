"""Which bases are trained on, and how their windows are laid out."""

from __future__ import annotations

from pathlib import Path

from sluice.compressor.scoring.neural.bases import Base, BaseTokenizer, find_base
from sluice.compressor.scoring.neural.windows import WindowShape

SMOLLM2 = "SmolLM2-135M-Instruct"
"""The embedded engine's default weights, which are converted where they are asked for first."""


def base_named(name: str) -> Base:
    """A base by name, or a folder that holds one, with its name in a file `NAME` if it is not the folder's.

    Raises:
        MissingBaseError: there is none of that name.
        MissingWeightsError: the package of the default weights is not installed.
    """
    if (label := Path(name) / "NAME").is_file():
        return Base(label.read_text().strip(), label.parent)
    if name == SMOLLM2:
        from sluice.backend.settings import default_cache_dir
        from sluice.backend.weights import default_weights

        return find_base(name, {name: default_weights(default_cache_dir(), lambda _: None)})
    return find_base(name)


def shape_for(tokenizer: BaseTokenizer) -> WindowShape:
    """The layout of a base's windows: as much as a reader of 512 tokens holds, and four times that for the others."""
    begin, separator = (tokenizer.library.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    if begin is not None and separator is not None:
        return WindowShape(
            max_tokens=512,
            task=64,
            user=32,
            history=80,
            call=24,
            line=48,
            overlap=40,
            begin=(begin,),
            end_of_context=(separator,),
            end_of_line=(separator,),
        )
    (feed,) = tokenizer.library.encode("\n", add_special_tokens=False).ids
    return WindowShape(
        max_tokens=1536,
        task=128,
        user=64,
        history=192,
        call=48,
        line=64,
        overlap=128,
        begin=(0,),
        end_of_context=(feed, feed),
        end_of_line=(feed,),
    )
