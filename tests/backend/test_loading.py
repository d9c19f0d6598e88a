from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from sluice.backend.base import SamplingParams
from sluice.backend.bench.gpu.shapes import SHAPES
from sluice.backend.embedded import loading
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.loading import gpu_kv_bytes
from sluice.backend.embedded.model import Weights
from sluice.backend.errors import BackendError, ModelUnavailableError
from tests.backend.engines import BYTES_PER_TOKEN, GREEDY, collect, make


async def test_a_small_cache_bounds_the_window(tiny_folder: Path) -> None:
    engine = make(tiny_folder, EngineConfig(kv_memory_bytes=4 * 16 * BYTES_PER_TOKEN))
    assert engine.max_model_len == 64
    assert len((await collect(engine, [5] * 60, SamplingParams(temperature=0)))[0]) == 4
    await engine.aclose()


def test_a_full_steps_activations_are_kept_free_on_a_gpu() -> None:
    model = SHAPES["8b"].config
    gib = 2**30
    assert gpu_kv_bytes(60 * gib, model, 8192) == int(60 * gib * 0.9)
    assert 3 * gib < gpu_kv_bytes(7 * gib, model, 8192) < 5 * gib
    assert gpu_kv_bytes(7 * gib, model, 512) > 6 * gib
    assert gpu_kv_bytes(gib, model, 8192) == 0


def test_settings_that_cannot_be_served_say_so(tiny_folder: Path) -> None:
    with pytest.raises(BackendError, match="hold only 0 tokens"):
        make(tiny_folder, EngineConfig(kv_memory_bytes=100))
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="'cuda'"):
            make(tiny_folder, EngineConfig(device="cuda"))


def test_a_gpu_without_memory_is_told_with_what_to_do(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "CUDA out of memory. Tried to allocate 32.00 MiB. GPU 0 has a total capacity of 139.80 GiB"

    def load(*_: object) -> Weights:
        raise torch.OutOfMemoryError(said)

    monkeypatch.setattr(loading, "load_weights", load)
    with pytest.raises(BackendError, match=r"engine of tiny: .*--kv-cache-gib \(CUDA out of memory.*32\.00 MiB\)$"):
        make(tiny_folder)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "int4"])
async def test_other_dtypes_run(tiny_folder: Path, dtype: str) -> None:
    engine = make(tiny_folder, EngineConfig(dtype=dtype))
    assert len((await collect(engine, [5, 6, 7], GREEDY))[0]) == 20
    await engine.aclose()


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "float16", "int8", "fp8"])
async def test_caches_in_fewer_bits_hold_more_and_say_nearly_the_same(tiny_folder: Path, kv_dtype: str) -> None:
    prompt = [random.Random(5).randrange(2, 258) for _ in range(150)]
    params = SamplingParams(temperature=0, max_tokens=1, num_logprobs=3)
    answers, sizes = [], []
    for name in ("float32", kv_dtype):
        engine = make(tiny_folder, EngineConfig(dtype="float32", kv_dtype=name, kv_memory_bytes=1 << 20))
        sizes.append(engine.stats().num_blocks)
        answers.append(await anext(engine.generate(prompt, params)))
        again = await anext(engine.generate(prompt, params))
        assert again.token_ids == answers[-1].token_ids
        assert again.num_cached_tokens == 144
        await engine.aclose()
    assert sizes[1] > 1.9 * sizes[0]
    likely, other = (dict(answer.logprobs[0].top) for answer in answers)
    assert set(likely) & set(other)
    for token in set(likely) & set(other):
        assert other[token] == pytest.approx(likely[token], abs=0.15)


def test_broken_weights_name_the_folder(tiny_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny_folder / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelUnavailableError, match=str(tmp_path)):
        make(tmp_path)
