from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sluice.backend.embedded.attention import Span, make_attention
from sluice.backend.embedded.kv_cache import KVCache
from sluice.backend.embedded.load import WeightForm, load_weights
from sluice.backend.embedded.model import Decoder
from sluice.backend.embedded.model_config import ModelConfig
from sluice.backend.tokenizer import Tokenizer

CPU = torch.device("cpu")
TEXT = Path(__file__).read_text(encoding="utf-8")


@torch.inference_mode()
def logprobs(
    folder: Path, token_ids: list[int], *, weights: str = "float32", kv: torch.dtype = torch.float32
) -> torch.Tensor:
    """Of a text that is given; computed in two chunks, so that the second reads the first from the cache."""
    config, form = ModelConfig.read(folder), WeightForm.named(weights, CPU)
    cache = KVCache(config, 32, 16, CPU, stored=kv)
    decoder = Decoder(config, load_weights(folder, config, form), cache)
    attention, out, half = make_attention(cache), [], len(token_ids) // 2
    for start, end in ((0, half), (half, len(token_ids))):
        positions = torch.arange(start, end)
        attend = attention.begin([Span(0, end - start, end, list(range(32)))])
        out.append(decoder.forward(torch.tensor(token_ids[start:end]), positions, positions, attend))
    return torch.log_softmax(torch.cat(out), dim=-1)


@pytest.mark.engine
def test_fewer_bits_cost_little(default_folder: Path) -> None:
    token_ids = Tokenizer(default_folder).encode(TEXT)[:400]
    exact = logprobs(default_folder, token_ids)
    cases: dict[str, tuple[torch.Tensor, float, float]] = {
        "cache bfloat16": (logprobs(default_folder, token_ids, kv=torch.bfloat16), 0.001, 0.98),
        "cache int8": (logprobs(default_folder, token_ids, kv=torch.int8), 0.002, 0.97),
        "cache fp8": (logprobs(default_folder, token_ids, kv=torch.float8_e4m3fn), 0.02, 0.93),
        "weights int8": (logprobs(default_folder, token_ids, weights="int8"), 0.01, 0.93),
        "weights int4": (logprobs(default_folder, token_ids, weights="int4"), 0.03, 0.92),
    }
    for name, (rounded, greatest_divergence, least_agreement) in cases.items():
        divergence = float((exact.exp() * (exact - rounded)).sum(dim=-1).mean())
        agreement = float((exact.argmax(dim=-1) == rounded.argmax(dim=-1)).float().mean())
        print(f"{name}: divergence {divergence:.4f} nats a token, the same first choice on {agreement:.1%}")
        assert divergence < greatest_divergence, name
        assert agreement > least_agreement, name
