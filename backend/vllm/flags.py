"""From settings to the command line and the environment of `vllm serve`: plain functions.

Written against vLLM 0.32 (`vllm serve --help=all`). Secrets go into the environment, as every process of the machine
can read command lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sluice.backend.router.kv_events import replay_endpoint
from sluice.backend.vllm.settings import VllmSettings

_DEFAULT_DRAFTS = {"ngram": 8, "draft_model": 3, "eagle3": 3, "mtp": 1}
_PLAIN = (
    "served_model_name", "dtype", "quantization", "tokenizer", "max_model_len", "gpu_memory_utilization",
    "prefix_caching_hash_algo", "block_size", "max_num_seqs", "max_num_batched_tokens", "kv_cache_dtype",
    "distributed_executor_backend", "tool_call_parser", "reasoning_parser", "chat_template", "max_lora_rank",
)  # fmt: skip
"""Settings that are flags of the same name; None is left out."""
_SWITCHES = ("enable_prefix_caching", "enable_chunked_prefill", "async_scheduling")
_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
_LMCACHE = "LMCacheConnectorV1"
_LMCACHE_CHUNK_TOKENS = 256


def arguments(settings: VllmSettings, *, model: str, host: str, port: int, is_cpu: bool) -> list[str]:
    """Arguments of `vllm`, beginning with `serve`."""
    found = ["serve", model, "--host", host, "--port", str(port)]
    for name in _PLAIN:
        if (value := getattr(settings, name)) is not None:
            found += [_flag(name), str(value)]
    for name in _SWITCHES:
        if (value := getattr(settings, name)) is not None:
            found.append(_flag(name if value else f"no_{name}"))
    for name in _PARALLEL:
        if (size := getattr(settings, name)) > 1:
            found += [_flag(name), str(size)]
    if settings.enforce_eager if settings.enforce_eager is not None else is_cpu:
        found.append("--enforce-eager")
    if settings.tool_call_parser is not None:
        found.append("--enable-auto-tool-choice")
    if settings.lora_modules:
        found += ["--enable-lora", "--lora-modules"]
        found += [f"{name}={path}" for name, path in settings.lora_modules.items()]
    if settings.kv_offload_gib is not None and settings.kv_redis_url is None:
        found += ["--kv-offloading-size", f"{settings.kv_offload_gib:g}"]
        found += ["--kv-offloading-backend", settings.kv_offload_backend]
    if (speculation := speculative_config(settings)) is not None:
        found += ["--speculative-config", json.dumps(speculation)]
    if (transfer := kv_transfer_config(settings)) is not None:
        found += ["--kv-transfer-config", json.dumps(transfer)]
    if (events := kv_events_config(settings)) is not None:
        found += ["--kv-events-config", json.dumps(events)]
    # Clients are told what was read from the cache, which is what their bill turns on.
    found += ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    found += ["--shutdown-timeout", f"{settings.drain_s:.0f}"]
    return [*found, *settings.extra_args]


def speculative_config(settings: VllmSettings) -> dict[str, Any] | None:
    """Value of `--speculative-config`; None where nothing is drafted."""
    if settings.speculation == "none":
        return None
    found: dict[str, Any] = {"method": settings.speculation}
    if settings.speculation_model is not None:
        found["model"] = settings.speculation_model
    num_tokens = settings.num_speculative_tokens or _DEFAULT_DRAFTS.get(settings.speculation)
    if num_tokens is not None:
        found["num_speculative_tokens"] = num_tokens
    if settings.speculation == "ngram":
        found |= {"prompt_lookup_min": settings.prompt_lookup_min, "prompt_lookup_max": settings.prompt_lookup_max}
    return found


def kv_transfer_config(settings: VllmSettings) -> dict[str, Any] | None:
    """Value of `--kv-transfer-config`; None where no cache is moved.

    A block that cannot be fetched is computed again: vLLM's default would fail the request.
    """
    if settings.kv_transfer_config is not None:
        return settings.kv_transfer_config
    found: list[dict[str, Any]] = []
    if settings.kv_redis_url is not None:
        found.append({"kv_connector": _LMCACHE, "kv_role": "kv_both"})
    if settings.kv_role is not None:
        found.append({"kv_connector": settings.kv_connector, "kv_role": settings.kv_role})
    if not found:
        return None
    if len(found) > 1:
        found = [
            {
                "kv_connector": "MultiConnector",
                "kv_role": "kv_both",
                "kv_connector_extra_config": {"connectors": found},
            }
        ]
    return {**found[0], "kv_load_failure_policy": "recompute"}


def kv_events_config(settings: VllmSettings) -> dict[str, Any] | None:
    """Value of `--kv-events-config`; None where nothing is published."""
    if settings.kv_events is None:
        return None
    return {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": settings.kv_events,
        "replay_endpoint": replay_endpoint(settings.kv_events),
    }


def environment(settings: VllmSettings, base: Mapping[str, str]) -> dict[str, str]:
    """The environment that vLLM runs in, on top of `base`."""
    # Other Pythons' paths would mix our packages with its own.
    found = {key: value for key, value in base.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    found |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if settings.num_threads is not None:
        found["OMP_NUM_THREADS"] = str(settings.num_threads)
    if settings.cpu_kv_gib is not None:
        found["VLLM_CPU_KVCACHE_SPACE"] = f"{settings.cpu_kv_gib:g}"
    if settings.kv_redis_url is not None:
        found |= {
            "LMCACHE_REMOTE_URL": settings.kv_redis_url.get_secret_value(),
            "LMCACHE_REMOTE_SERDE": "naive",
            "LMCACHE_CHUNK_SIZE": str(_LMCACHE_CHUNK_TOKENS),
            "PYTHONHASHSEED": "0",  # replicas have to name the same chunk the same
        }
        if settings.kv_offload_gib is not None:
            found |= {"LMCACHE_LOCAL_CPU": "True", "LMCACHE_MAX_LOCAL_CPU_SIZE": f"{settings.kv_offload_gib:g}"}
    return found | settings.env


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
