from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

COMPILE = """
import os
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sluice.backend.embedded.attention.paged_kernel import attend_split, join_splits
from sluice.backend.embedded.matrix.few_rows_kernels import (
    multiply_half_row, multiply_half_rows, multiply_row, multiply_rows
)
from sluice.backend.embedded.ops.fused_kernels import add_norm_rows, gate_rows, store_heads_rows

def compile(kernel, types, constants, architecture):
    signature = {name: types.get(name, "constexpr" if name in constants else "i32") for name in kernel.arg_names}
    indexes = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature=signature, constexprs=indexes)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    assert compiled.asm["cubin"]
    return compiled.metadata.shared

floats = {name: "*fp32" for name in ("out_ptr", "lse_ptr", "key_scales_ptr", "value_scales_ptr")}
ints = {name: "*i32" for name in ("tables_ptr", "context_lens_ptr", "starts_ptr", "num_tokens_ptr")}
cases = [(90, "fp8e4nv", True, 16), (80, "bf16", False, 128)]
if "SLUICE_TEST_FULL" in os.environ:
    cases += [(90, "bf16", False, 16), (90, "bf16", False, 128), (90, "i8", True, 16), (80, "i8", True, 64)]
for architecture, cache, scales, rows in cases:
    shared = compile(
        attend_split,
        floats | ints | {"queries_ptr": "*bf16", "keys_ptr": f"*{cache}", "values_ptr": f"*{cache}"},
        dict(group=4, rows=rows, head_dim=128, padded_dim=128, block_size=16, tile=64, has_scales=scales),
        architecture,
    )
    print(architecture, cache, rows, shared)
    assert shared <= 160 * 1024
compile(
    join_splits,
    {"out_ptr": "*bf16", "parts_ptr": "*fp32", "lse_ptr": "*fp32"} | ints,
    dict(head_dim=128, padded_dim=128, padded_splits=32),
    90,
)
halves = ("total", "normed", "hidden", "change", "weight", "queries", "keys", "values", "qkv", "gated", "gate_up")
types = {f"{name}_ptr": "*bf16" for name in halves} | {"slots_ptr": "*i64", "eps": "fp32", "scale": "fp32"}
types |= {f"{name}_ptr": "*fp32" for name in ("rotation", "query_norm", "key_norm")}
compile(add_norm_rows, types, dict(size=4096, padded_size=4096, has_change=True), 90)
compile(gate_rows, types, dict(size=14336, tile=1024), 90)
heads = dict(num_heads=32, num_kv_heads=8, head_dim=128, padded_dim=128)
for has_norms in (False, True):
    compile(store_heads_rows, types, heads | {"has_norms": has_norms}, 90)
types = {f"{name}_ptr": "*bf16" for name in ("out", "activations", "scales")}
for weight, has_scales in (("bf16", False), ("i8", True)):
    types["weight_ptr"] = f"*{weight}"
    sizes = dict(size=4096, has_scales=has_scales)
    compile(multiply_row, types, sizes | dict(rows_at_once=2, tile=1024, is_whole=True), 90)
    compile(multiply_rows, types, sizes | dict(padded_rows=64, columns_at_once=32, depth=128), 90)
types |= {"weight_ptr": "*u8", "zeros_ptr": "*bf16"}
compile(multiply_half_row, types, dict(half=2048, group=32, rows_at_once=2, tile=1024, is_whole=True), 90)
for rows in (16, 64):
    compile(multiply_half_rows, types, dict(half=2048, group=32, padded_rows=rows, columns_at_once=32, depth=128), 90)
"""


def test_the_kernels_compile_for_gpus_that_are_not_here() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
