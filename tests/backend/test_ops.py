from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.embedded.ops import HeadNorms, PlainOps
from sluice.backend.embedded.rope import rotations
from tests.backend.attention_data import BLOCK, NUM_BLOCKS, make_cache, make_config
from tests.effort import examples

pytest.importorskip("triton")

from sluice.backend.embedded.ops.fused import FusedOps

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE, dtype)


def make_both(num_kv_heads: int = 2, head_dim: int = 8, **cache: torch.dtype) -> list[PlainOps | FusedOps]:
    config = make_config(num_kv_heads, head_dim)
    return [kind(config, make_cache(num_kv_heads, head_dim, device=DEVICE, **cache)) for kind in (PlainOps, FusedOps)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("size", [32, 40])
def test_sums_and_norms_are_those_of_torch(size: int, dtype: torch.dtype, tolerance: float) -> None:
    hidden, change, weight = (random(*shape, dtype=dtype) for shape in ((3, size), (3, size), (size,)))
    plain, fused = make_both()
    for added in (None, change):
        for actual, expected in zip(
            fused.add_norm(hidden, added, weight), plain.add_norm(hidden, added, weight), strict=True
        ):
            assert actual.dtype == dtype
            torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("size", [24, 1500])
def test_gates_are_those_of_torch(size: int, dtype: torch.dtype, tolerance: float) -> None:
    gate_up = random(3, 2 * size, dtype=dtype)
    plain, fused = make_both()
    torch.testing.assert_close(fused.gate(gate_up), plain.gate(gate_up), atol=tolerance, rtol=tolerance)


@examples(12)
@given(
    num_kv_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.sampled_from([8, 24]),
    has_norms=st.booleans(),
    stored=st.sampled_from([torch.float32, torch.bfloat16, torch.int8, torch.float8_e4m3fn]),
    slots=st.lists(st.integers(0, (NUM_BLOCKS + 1) * BLOCK - 1), min_size=1, max_size=5, unique=True),
)
def test_heads_are_stored_as_by_torch(
    num_kv_heads: int, head_dim: int, has_norms: bool, stored: torch.dtype, slots: list[int]
) -> None:
    config = make_config(num_kv_heads, head_dim)
    qkv = random(len(slots), (config.num_heads + 2 * num_kv_heads) * head_dim)
    norms = HeadNorms(random(head_dim), random(head_dim) + 1) if has_norms else None
    rotation = rotations(dataclasses.replace(config, max_model_len=300), qkv.device)[slots]
    plain, fused = make_both(num_kv_heads, head_dim, stored=stored)
    into = torch.tensor(slots, device=DEVICE)
    expected, actual = (ops.store_heads(1, qkv, norms, rotation, into) for ops in (plain, fused))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    for tensor in ("keys", "values"):
        cached, wanted = (getattr(ops._cache, tensor).read(1, 0, NUM_BLOCKS * BLOCK) for ops in (fused, plain))
        torch.testing.assert_close(cached, wanted, atol=1e-5, rtol=1e-2 if stored is torch.bfloat16 else 1e-5)
