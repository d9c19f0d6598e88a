from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from sluice.backend.doctor import (
    Gpu,
    Machine,
    ModelShape,
    advise,
    describe,
    inspect_machine,
    shape_of_config,
    shape_of_size,
)
from sluice.backend.doctor.machine import read_gpus, read_limit
from sluice.backend.doctor.sizing import kv_bytes_per_token, kv_room_bytes, streams_that_fit, weight_bytes
from sluice.backend.errors import ModelUnavailableError
from sluice.backend.vllm.cli import backend

GIB = 2**30
KIB = 2**10


def machine(*gpus: Gpu, memory: int = 64 * GIB) -> Machine:
    return Machine(gpus, num_cores=8, memory_bytes=memory, disk_free_bytes=2000 * GIB, vllm=None)


def gpu(gib: int, capability: float = 9.0) -> Gpu:
    return Gpu("GPU", gib * GIB, gib * GIB, "580.1", capability)


@pytest.mark.parametrize(
    ("shape", "kv_kib", "weights_gib"),
    [
        (ModelShape("Llama-3.1-8B", 8.03e9, 32, 8, 128), 128, 14.96),
        (ModelShape("Llama-3.1-70B", 70.6e9, 80, 8, 128), 320, 131.5),
        (ModelShape("Qwen3-Coder-30B-A3B", 30.5e9, 48, 4, 128), 96, 56.8),
        (ModelShape("DeepSeek-V3", 671e9, 61, 128, 128, latent_dim=576), 68.625, 1249.8),
    ],
)
def test_known_models(shape: ModelShape, kv_kib: float, weights_gib: float) -> None:
    assert kv_bytes_per_token(shape, "16bit") / KIB == kv_kib
    assert kv_bytes_per_token(shape, "fp8") * 2 == kv_bytes_per_token(shape, "16bit")
    assert weight_bytes(shape, "16bit") / GIB == pytest.approx(weights_gib, abs=0.05)


def test_streams_are_what_is_left_over_what_one_takes() -> None:
    shape = shape_of_size(8.03)
    room = kv_room_bytes(shape, gpu_bytes=80 * GIB, num_gpus=1, weights="16bit")
    assert room / GIB == pytest.approx(80 * 0.92 - 2 - 14.96, abs=0.01)
    assert streams_that_fit(room, kv_bytes_per_token(shape, "16bit"), 65_536) == 7
    assert streams_that_fit(-1.0, 1.0, 1) == 0


def test_a_size_takes_the_shape_of_the_nearest_model() -> None:
    assert shape_of_size(7).name == "like Llama-3.1-8B"
    assert shape_of_size(72).name == "like Llama-3.1-70B"
    assert shape_of_size(0.1).num_layers == 30


def test_a_config_gives_the_shape_and_the_weights_their_number(tmp_path: Path) -> None:
    config = {"num_attention_heads": 8, "num_hidden_layers": 4, "num_key_value_heads": 2, "hidden_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    head = json.dumps({"__metadata__": {}, "w": {"dtype": "F16", "shape": [10, 20], "data_offsets": [0, 400]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(400))
    shape = shape_of_config(tmp_path)
    assert (shape.num_params, shape.kv_values_per_token) == (200, 2 * 4 * 2 * 8)


def write_weights(folder: Path, tensors: dict[str, tuple[str, list[int], int]], **config: object) -> None:
    """A folder whose safetensors file says: name → dtype, shape, bytes. Nothing reads what it would hold."""
    base = {"num_attention_heads": 8, "num_hidden_layers": 4, "hidden_size": 64}
    (folder / "config.json").write_text(json.dumps(base | config))
    head, start = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    written = json.dumps(head).encode()
    (folder / "model.safetensors").write_bytes(len(written).to_bytes(8, "little") + written)


AWQ = {
    "embed_tokens.weight": ("F16", [1000, 100], 200_000),
    "q_proj.qweight": ("I32", [100, 125], 50_000),
    "q_proj.qzeros": ("I32", [1, 125], 500),
    "q_proj.scales": ("F16", [1, 1000], 2_000),
}


@pytest.mark.parametrize(
    ("quantization", "name"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
            "compressed-tensors",
        ),
        (None, "unknown"),
    ],
)
def test_packed_weights_are_weighed_as_they_are(
    tmp_path: Path, quantization: dict[str, object] | None, name: str
) -> None:
    write_weights(tmp_path, AWQ, **({"quantization_config": quantization} if quantization else {}))
    shape = shape_of_config(tmp_path)
    assert shape.num_params == 100_000 + 100 * 125 * 8
    assert {weight_bytes(shape, way) for way in ("16bit", "fp8", "4bit")} == {252_500}
    found = advise(machine(gpu(80)), shape, 4_096)
    assert (found.weights, found.weight_bytes) == (f"packed as {name}", 252_500)
    assert "--quantization" not in found.flags
    forced = advise(machine(gpu(80)), shape, 4_096, weights="fp8")
    assert (forced.weights, forced.flags) == (found.weights, found.flags)
    assert any("packed already" in note for note in forced.notes)


def test_a_packed_model_that_does_not_fit_is_said_not_to(tmp_path: Path) -> None:
    big = {"w.qweight": ("I32", [4096, 4 * 2**18], 16 * GIB)}
    write_weights(tmp_path, big, quantization_config={"quant_method": "gptq", "bits": 4})
    found = advise(machine(gpu(16)), shape_of_config(tmp_path), 4_096)
    assert not found.fits


def test_eight_bits_count_once(tmp_path: Path) -> None:
    tensors = {"a.weight": ("F8_E4M3", [10, 10], 100), "a.weight_scale_inv": ("F32", [1, 1], 4)}
    write_weights(tmp_path, tensors, quantization_config={"quant_method": "fp8"})
    shape = shape_of_config(tmp_path)
    assert (shape.num_params, weight_bytes(shape, "16bit")) == (100, 104)


def test_masks_beside_the_weights_pack_nothing(tmp_path: Path) -> None:
    write_weights(tmp_path, {"a.weight": ("F16", [10, 10], 200), "attn.bias": ("U8", [8, 8], 64)})
    assert weight_bytes(shape_of_config(tmp_path), "16bit") == 2 * 164


def test_layers_with_a_window_keep_little(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"] * 3
    config = {"num_attention_heads": 4, "num_hidden_layers": 6, "head_dim": 8, "layer_types": kinds}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": config}))
    assert shape_of_config(tmp_path, 1.0).kv_values_per_token == 2 * 3 * 4 * 8


def test_a_folder_that_says_too_little_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"cannot read .*config\.json"):
        shape_of_config(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailableError, match="num_attention_heads"):
        shape_of_config(tmp_path)
    (tmp_path / "config.json").write_text('{"num_attention_heads": 1, "num_hidden_layers": 1, "hidden_size": 8}')
    with pytest.raises(ModelUnavailableError, match="give --params"):
        shape_of_config(tmp_path)


def test_what_fits_easily_is_not_packed() -> None:
    found = advise(machine(gpu(80)), shape_of_size(8), 32_768)
    assert (found.weights, found.kv, found.num_gpus, found.fits) == ("16bit", "16bit", 1, True)
    assert found.flags == ("--max-model-len", "32768")


def test_room_is_won_by_more_gpus_before_quality_is_given_up() -> None:
    found = advise(machine(gpu(80), gpu(80)), shape_of_size(32.8), 65_536)
    assert (found.weights, found.kv, found.num_gpus) == ("16bit", "16bit", 2)
    alone = advise(machine(gpu(80)), shape_of_size(32.8), 65_536)
    assert (alone.weights, alone.kv, alone.num_gpus) == ("fp8", "fp8", 1)
    assert alone.flags[-4:] == ("--quantization", "fp8_per_tensor", "--kv-cache-dtype", "fp8")


def test_gpus_that_one_copy_leaves_over_hold_more_copies() -> None:
    found = advise(machine(*(gpu(80) for _ in range(8))), shape_of_size(8), 32_768)
    assert (found.num_gpus, found.num_copies) == (1, 8)


def test_heads_are_copied_where_there_are_more_gpus_than_heads() -> None:
    shape = ModelShape("wide", 235e9, 94, 4, 128)
    found = advise(machine(*(gpu(80) for _ in range(8))), shape, 65_536, weights="16bit", kv="16bit")
    assert (found.num_gpus, found.fits) == (8, True)
    assert found.kv_bytes_per_token == 2 * kv_bytes_per_token(shape, "16bit")


def test_a_gpu_that_others_use_and_a_disk_that_is_too_small_are_told() -> None:
    busy = Gpu("GPU", 80 * GIB, 40 * GIB, "580.1", 9.0)
    found = advise(Machine((busy,), 8, 64 * GIB, 20 * GIB, None), shape_of_size(32.8), 65_536)
    assert found.weights == "fp8"
    assert any("another program holds memory" in note for note in found.notes)
    assert "the weights do not fit on the disk" in found.notes


def test_a_containers_limit_is_its_memory(tmp_path: Path) -> None:
    for text, expected in (("max\n", math.inf), ("1048576\n", 2**20)):
        (tmp_path / "memory.max").write_text(text)
        assert read_limit(tmp_path / "memory.max") == expected
    assert read_limit(tmp_path / "nothing") == math.inf


def test_old_gpus_do_not_compute_in_fp8() -> None:
    found = advise(machine(gpu(24, 8.6)), shape_of_size(14), 16_384)
    assert (found.weights, found.kv) == ("4bit", "16bit")
    assert any("AWQ or GPTQ" in note for note in found.notes)


def test_what_does_not_fit_is_said_with_what_is_missing() -> None:
    found = advise(machine(gpu(24)), shape_of_size(405), 8_192)
    assert not found.fits
    assert any("are missing for the weights alone" in line for line in describe(machine(gpu(24)), found))
    tight = advise(machine(gpu(24)), shape_of_size(8), 10_000_000)
    assert any("the longest has" in note for note in tight.notes)


def test_a_machine_without_gpu_runs_on_its_memory() -> None:
    found = advise(machine(), shape_of_size(0.135), 4_096)
    assert (found.num_gpus, found.fits) == (0, True)
    assert "--enforce-eager" in found.flags


def test_nvidias_table_is_read_and_what_is_none_skipped() -> None:
    table = "NVIDIA H100 80GB HBM3, 81559, 81004, 580.65.06, 9.0\nNo devices were found\nX, [N/A], 1, 2, 3\n"
    (found,) = read_gpus(table)
    assert (found.name, found.memory_bytes, found.compute_capability) == ("NVIDIA H100 80GB HBM3", 81_559 * 2**20, 9.0)


def test_this_machine_is_described(tmp_path: Path) -> None:
    found = inspect_machine(tmp_path)
    assert found.memory_bytes > GIB / 2
    assert found.vllm is None
    shown = CliRunner().invoke(backend, ["doctor", "--params", "8", "--context", "4096", "--env-dir", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "128.0 KiB a token, 0.50 GiB a conversation" in shown.output
    assert "not installed (sluice backend install vllm)" in shown.output
    as_json = CliRunner().invoke(backend, ["doctor", "--params", "8", "--json", "--env-dir", str(tmp_path)])
    assert json.loads(as_json.output)["advice"]["kv_bytes_per_token"] > 0


@pytest.mark.parametrize(("status", "num_gpus"), [(0, 2), (9, 0)])
def test_nvidias_program_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, num_gpus: int) -> None:
    program = tmp_path / "nvidia-smi"
    line = "NVIDIA H100 80GB HBM3, 81559, 81004, 580.65.06, 9.0"
    program.write_text(f'#!/bin/sh\necho "{line}"\necho "{line}"\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = inspect_machine(tmp_path)
    assert len(found.gpus) == num_gpus
    lines = describe(found, advise(found, shape_of_size(8), 32_768))
    if num_gpus:
        assert lines[0] == "NVIDIA H100 80GB HBM3: 80 GiB, 79 GiB free, driver 580.65.06, compute capability 9"
        assert any("on 1 GPU, 2 copies behind the router" in line for line in lines)
    else:
        assert lines[0] == "no NVIDIA GPU"
    assert describe(found, None)[-1].startswith("give --params")


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    shown = CliRunner().invoke(backend, ["doctor", "--model", str(tmp_path / "nowhere")])
    assert shown.exit_code == 1
    assert "nowhere" in shown.output
