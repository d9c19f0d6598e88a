"""Runs on a GPU where there is one, else under Triton's interpreter (see `tests/conftest.py`)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from torch.nn import functional

from sluice.compressor.scoring.neural.gated_kernel import fits, gated

pytestmark = pytest.mark.engine

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sluice.compressor.scoring.neural.gated_kernel import _gated as kernel

types = {"x": "*bf16", "weight": "*bf16", "out": "*bf16", "num_rows": "i32"}
constants = dict(width=1536, depth=576, ROWS=128, COLUMNS=128, INNER=64, GROUP=8)
signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
indexes = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
# Launched, its tensors are aligned: without that nothing is fetched ahead, and it takes less.
aligned = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in ("x", "weight", "out")}
source = ASTSource(kernel, signature=signature, constexprs=indexes, attrs=aligned)
for architecture, most_kib in ((80, 163), (89, 99), (90, 227)):
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": 8, "num_stages": 3})
    assert compiled.asm["cubin"]
    print(architecture, compiled.metadata.shared)
    assert compiled.metadata.shared <= most_kib * 1024
"""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = torch.bfloat16 if torch.cuda.is_available() else torch.float16
"""What models are computed in; the interpreter does not multiply bfloat16."""


@pytest.mark.parametrize("num_tokens", [1, 128, 300, 1300])
@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_the_kernel_gives_what_the_products_give(num_tokens: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(num_tokens, 128, device=DEVICE).to(dtype)
    weight = (torch.randn(2 * 256, 128, device=DEVICE) / 11).to(dtype)
    gate, up = functional.linear(x.float(), weight.float()).chunk(2, dim=1)
    expected = functional.silu(gate) * up
    assert fits(weight)
    # On a GPU products of float32 are rounded to fewer bits.
    is_exact = DEVICE == "cpu" and dtype is torch.float32
    torch.testing.assert_close(gated(x, weight).float(), expected, atol=1e-4 if is_exact else 2e-2, rtol=1e-2)


def test_other_sizes_are_left_to_the_products() -> None:
    assert not fits(torch.empty(2 * 100, 128))
    assert not fits(torch.empty(2 * 256, 100))
    assert fits(torch.empty(2 * 1536, 576))


def test_the_kernel_compiles_for_gpus_that_are_not_here() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
