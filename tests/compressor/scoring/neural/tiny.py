"""Models small enough to be made on the spot: a processor, which needs no torch, and a whole random model."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from sluice.compressor.scoring.forest import write_forest
from sluice.compressor.scoring.neural.card import CARD, COMBINATION
from tests.compressor.scoring.neural.doubles import SHAPE, processor


def write_processor(folder: Path, version: str = "7") -> Path:
    """A model's folder without weights: enough to ask for scores elsewhere."""
    base = folder / "base"
    base.mkdir(parents=True)
    _tokenizer().save(str(base / "tokenizer.json"))
    write_forest(folder / COMBINATION, processor().combination.forest, {})
    card = {
        "name": "tiny",
        "version": version,
        "base": str(base),
        "num_layers": None,
        "base_digest": "",
        "shape": SHAPE.to_json(),
    }
    (folder / CARD).write_text(json.dumps(card))
    return folder


def write_model(folder: Path) -> Path:
    """A whole model on a small random base."""
    import torch
    from transformers import BertConfig, BertModel

    from sluice.compressor.scoring.neural.bases import find_base
    from sluice.compressor.scoring.neural.card import write_card
    from sluice.compressor.scoring.neural.lora import add_adapters
    from sluice.compressor.scoring.neural.model_file import base_digest, write_adapter
    from sluice.compressor.scoring.neural.network import load_network

    write_processor(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    BertModel(config).save_pretrained(folder / "base")
    base = find_base(str(folder / "base"))
    network = load_network(base)
    digest = base_digest(network)
    add_adapters(network.base, 4, 8)
    write_adapter(folder, network)
    write_card(folder, name="tiny", base=base, num_layers=None, digest=digest, shape=SHAPE, note={})
    return folder


def _tokenizer() -> Tokenizer:
    """One token for each byte."""
    tokenizer = Tokenizer(BPE({char: number + 10 for number, char in enumerate(sorted(ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer
