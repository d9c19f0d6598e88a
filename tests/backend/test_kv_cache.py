from __future__ import annotations

import pytest
import torch

from sluice.backend.embedded.kv_cache import KVCache, num_bytes_per_block
from tests.backend.attention_data import BLOCK, make_cache, make_config

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn]


@pytest.mark.parametrize("stored", DTYPES)
def test_what_is_written_is_read_and_gathered(stored: torch.dtype) -> None:
    cache = KVCache(make_config(), 4, BLOCK, torch.device("cpu"), stored=stored)
    keys, values = torch.randn(2, 3, 2, 8, generator=torch.Generator().manual_seed(0))
    slots = torch.tensor([9, 2, 10])
    cache.write(1, slots, keys, values)
    tolerance = {torch.float32: 0.0, torch.float16: 1e-3, torch.int8: 5e-3}.get(stored, 4e-2)
    for tensor, heads in ((cache.keys, keys), (cache.values, values)):
        gathered = tensor.gather(1, slots)
        assert gathered.dtype is torch.float32
        error = (gathered.transpose(0, 1) - heads).abs().amax(dim=-1) / heads.abs().amax(dim=-1)
        assert float(error.max()) <= tolerance
        assert torch.equal(tensor.read(1, 9, 11), gathered[:, [0, 2]])


@pytest.mark.parametrize("stored", DTYPES)
def test_copied_blocks_are_equal(stored: torch.dtype) -> None:
    cache = make_cache(stored=stored)
    before = cache.keys.read(1, 8, 12).clone()
    cache.copy([(2, 5), (5, 7)])
    assert torch.equal(cache.keys.read(1, 28, 32), before)
    assert torch.equal(cache.keys.read(1, 8, 12), before)


@pytest.mark.parametrize("stored", [torch.int8, torch.float8_e4m3fn])
def test_a_great_token_does_not_blur_its_neighbours(stored: torch.dtype) -> None:
    cache = KVCache(make_config(), 4, BLOCK, torch.device("cpu"), stored=stored)
    small = torch.full((1, 2, 8), 0.01)
    cache.write(0, torch.tensor([4]), small, small)
    cache.write(0, torch.tensor([5]), small * 1e5, small * 1e5)
    torch.testing.assert_close(cache.keys.read(0, 4, 5).transpose(0, 1), small)


@pytest.mark.parametrize("stored", DTYPES)
def test_a_blocks_bytes_are_counted(stored: torch.dtype) -> None:
    cache = make_cache(stored=stored)
    tensors = [
        tensor for side in (cache.keys, cache.values) for tensor in (side.data, side.scales) if tensor is not None
    ]
    num_bytes = sum(tensor.numel() * tensor.itemsize for tensor in tensors)
    assert num_bytes == num_bytes_per_block(make_config(), BLOCK, stored) * (cache.num_blocks + 1)
