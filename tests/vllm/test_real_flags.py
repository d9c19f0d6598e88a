"""Every flag that settings become is one that the vLLM at hand takes: asked of its own parser, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.backend.doctor import Gpu, Machine, advise, shape_of_size
from sluice.backend.vllm import VllmSettings
from sluice.backend.vllm.flags import arguments
from tests.test_deploy import with_defaults

ROOT = Path(__file__).parents[2]
ENV_DIR = os.environ.get("SLUICE_VLLM_ENV", "")
pytestmark = [pytest.mark.vllm, pytest.mark.skipif(not ENV_DIR, reason="needs a real vLLM: make test-vllm")]

OURS = {
    "model", "env_dir", "port", "env", "num_threads", "cpu_kv_gib", "start_timeout_s", "check_prompt", "check_answer",
    "max_restarts", "restart_window_s", "restart_delay_s",
}  # fmt: skip
"""Settings that become no flag: of the environment, or of us who manage it."""

SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {"enable_prefix_caching": True, "prefix_caching_hash_algo": "sha256"},
    "switched off": {"enable_prefix_caching": False, "enable_chunked_prefill": False, "async_scheduling": False},
    "scheduling": {
        "enable_chunked_prefill": True, "async_scheduling": True, "block_size": 16, "max_num_seqs": 64,
        "max_num_batched_tokens": 4096, "max_model_len": 65_536, "gpu_memory_utilization": 0.9, "dtype": "bfloat16",
        "enforce_eager": True, "drain_s": 12.0, "served_model_name": "mine",
    },
    "hashes that agree": {"prefix_caching_hash_algo": "sha256_cbor"},
    "fp8": {"quantization": "fp8_per_tensor", "kv_cache_dtype": "fp8"},
    "AWQ with Marlin": {"quantization": "awq_marlin"},
    "GPTQ with Marlin": {"quantization": "gptq_marlin"},
    "GGUF": {"model": "weights.gguf", "tokenizer": "org/model"},
    "ngram": {"speculation": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 3, "prompt_lookup_max": 6},
    "suffix": {"speculation": "suffix"},
    "draft model": {"speculation": "draft_model", "speculation_model": "org/small"},
    "EAGLE-3": {"speculation": "eagle3", "speculation_model": "org/heads"},
    "MTP": {"speculation": "mtp"},
    "parallel on Ray": {
        "tensor_parallel_size": 4, "pipeline_parallel_size": 2, "data_parallel_size": 2,
        "distributed_executor_backend": "ray",
    },
    "offload to memory": {"kv_offload_gib": 8.0, "kv_offload_backend": "native"},
    "offload by LMCache": {"kv_offload_gib": 8.0, "kv_offload_backend": "lmcache"},
    "Redis behind LMCache": {"kv_redis_url": "redis://cache:6379"},
    "disaggregated": {"kv_role": "kv_producer", "kv_connector": "NixlConnector"},
    "both": {"kv_role": "kv_consumer", "kv_redis_url": "redis://cache:6379"},
    "transfer as given": {"kv_transfer_config": {"kv_connector": "NixlConnector", "kv_role": "kv_both"}},
    "events": {"kv_events": "tcp://*:5557"},
    "LoRA": {"lora_modules": {"mine": "org/adapter", "other": "org/other"}, "max_lora_rank": 64},
    "chat": {"tool_call_parser": "hermes", "reasoning_parser": "qwen3", "chat_template": "template.jinja"},
    "raw": {"extra_args": ["--seed", "7"]},
}  # fmt: skip

ASK = """
import dataclasses, json, sys
from typing import get_args
from vllm.config.speculative import SpeculativeConfig, SpeculativeMethod
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
from vllm.utils.argparse_utils import FlexibleArgumentParser

def flat(kinds):
    return {name for kind in kinds for name in ([kind] if isinstance(kind, str) else flat(get_args(kind)))}

parser = make_arg_parser(FlexibleArgumentParser())
known, methods = {field.name for field in dataclasses.fields(SpeculativeConfig)}, flat(get_args(SpeculativeMethod))
found = {}
for name, arguments in json.load(sys.stdin).items():
    try:
        read = vars(parser.parse_args(arguments))
    except SystemExit:
        found[name] = "refused"
        continue
    speculation = read["speculative_config"] or {}
    unknown = set(speculation) - known
    if speculation.get("method", "ngram") not in methods:
        unknown.add(speculation["method"])
    if read["quantization"] is not None and read["quantization"] not in QUANTIZATION_METHODS:
        unknown.add(read["quantization"])
    found[name] = {"unknown": sorted(unknown)} if unknown else {
        key: value for key, value in read.items() if isinstance(value, (str, int, float, bool, dict, type(None)))
    }
json.dump(found, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What vLLM's parser makes of each set of arguments; one start of its Python for all."""
    asked: dict[str, list[str]] = {}
    for name, fields in SETTINGS.items():
        settings = VllmSettings.model_validate(fields)
        asked[name] = arguments(settings, model=settings.model or "m", host="127.0.0.1", port=8000, is_cpu=False)[1:]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    asked["compose"] = [with_defaults(word) for word in compose["services"]["vllm"]["command"]]
    for gpus in (0, 1, 8):
        machine = Machine((Gpu("GPU", 80 * 2**30, 80 * 2**30, "580", 9.0),) * gpus, 8, 64 * 2**30, 2**42, None)
        for billions in (0.5, 8, 32, 70):
            asked[f"doctor: {billions}B, {gpus} GPUs"] = ["m", *advise(machine, shape_of_size(billions), 16_384).flags]
    answer = tmp_path_factory.mktemp("flags") / "answer.json"
    done = subprocess.run(
        [f"{ENV_DIR}/bin/python", "-c", ASK, str(answer)],
        input=json.dumps(asked), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    print(f"\n  {len(asked)} sets of arguments, {len({w for a in asked.values() for w in a if w[:2] == '--'})} flags")
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def test_every_setting_is_asked_about() -> None:
    assert {key for fields in SETTINGS.values() for key in fields} | OURS == set(VllmSettings.model_fields)


def test_none_is_refused(read: dict[str, Any]) -> None:
    assert not {name: found for name, found in read.items() if found == "refused" or "unknown" in found}


def test_settings_arrive_as_they_were_meant(read: dict[str, Any]) -> None:
    plain = read["as it comes"]
    assert (plain["model_tag"], plain["host"], plain["port"]) == ("m", "127.0.0.1", 8000)
    assert (plain["enable_prefix_caching"], plain["prefix_caching_hash_algo"]) == (True, "sha256")
    assert (plain["enable_chunked_prefill"], plain["enable_prompt_tokens_details"]) == (True, True)
    off = read["switched off"]
    assert [off[key] for key in ("enable_prefix_caching", "enable_chunked_prefill", "async_scheduling")] == [False] * 3
    assert read["parallel on Ray"]["distributed_executor_backend"] == "ray"
    assert [read["parallel on Ray"][f"{kind}_parallel_size"] for kind in ("tensor", "pipeline", "data")] == [4, 2, 2]
    assert read["raw"]["seed"] == 7
    assert read["scheduling"]["shutdown_timeout"] == 12
    assert (read["fp8"]["quantization"], read["fp8"]["kv_cache_dtype"]) == ("fp8_per_tensor", "fp8")
    assert read["ngram"]["speculative_config"]["num_speculative_tokens"] == 4
    assert (read["offload to memory"]["kv_offloading_size"], read["offload to memory"]["kv_offloading_backend"]) == (
        8.0, "native"
    )  # fmt: skip
    assert read["compose"]["port"] == 8000
