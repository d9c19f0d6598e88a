from __future__ import annotations

import json

import pytest

from sluice.backend.errors import VllmSettingsError
from sluice.backend.vllm import VllmSettings, load_vllm_settings
from sluice.backend.vllm.flags import arguments, environment


def flags(*, is_cpu: bool = False, **settings: object) -> list[str]:
    return arguments(load_vllm_settings(settings), model="m", host="127.0.0.1", port=8000, is_cpu=is_cpu)


def value_of(found: list[str], flag: str) -> str:
    assert found.count(flag) == 1
    return found[found.index(flag) + 1]


def test_the_defaults_keep_prefixes_and_share_steps() -> None:
    found = flags()
    assert found[:6] == ["serve", "m", "--host", "127.0.0.1", "--port", "8000"]
    assert {"--enable-prefix-caching", "--enable-chunked-prefill", "--enable-prompt-tokens-details"} <= set(found)
    assert value_of(found, "--prefix-caching-hash-algo") == "sha256"
    assert not {"--async-scheduling", "--no-async-scheduling", "--enforce-eager", "--speculative-config"} & set(found)


def test_switches_can_be_turned_off() -> None:
    found = flags(enable_prefix_caching=False, async_scheduling=False)
    assert {"--no-enable-prefix-caching", "--no-async-scheduling"} <= set(found)


def test_cpu_builds_are_not_compiled_unless_asked() -> None:
    assert "--enforce-eager" in flags(is_cpu=True)
    assert "--enforce-eager" not in flags(is_cpu=True, enforce_eager=False)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"speculation": "ngram"},
            {"method": "ngram", "num_speculative_tokens": 8, "prompt_lookup_min": 2, "prompt_lookup_max": 5},
        ),
        ({"speculation": "suffix"}, {"method": "suffix"}),
        (
            {"speculation": "draft_model", "speculation_model": "d", "num_speculative_tokens": 4},
            {"method": "draft_model", "model": "d", "num_speculative_tokens": 4},
        ),
        (
            {"speculation": "eagle3", "speculation_model": "e"},
            {"method": "eagle3", "model": "e", "num_speculative_tokens": 3},
        ),
        ({"speculation": "mtp"}, {"method": "mtp", "num_speculative_tokens": 1}),
    ],
)
def test_speculation(settings: dict[str, object], expected: dict[str, object]) -> None:
    assert json.loads(value_of(flags(**settings), "--speculative-config")) == expected


def test_a_shared_redis_tier_is_lmcache_and_its_url_is_not_on_the_command_line() -> None:
    settings = load_vllm_settings(
        {"kv_redis_url": "redis://:secret@cache:6379", "kv_offload_gib": 8, "kv_offload_backend": "lmcache"}
    )
    found = arguments(settings, model="m", host="127.0.0.1", port=1, is_cpu=False)
    transfer = json.loads(value_of(found, "--kv-transfer-config"))
    assert transfer == {
        "kv_connector": "LMCacheConnectorV1",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
    }
    assert "secret" not in " ".join(found) + repr(settings)
    env = environment(settings, {})
    assert env["LMCACHE_REMOTE_URL"] == "redis://:secret@cache:6379"
    assert env["LMCACHE_MAX_LOCAL_CPU_SIZE"] == "8"
    assert env["PYTHONHASHSEED"] == "0"


def test_disaggregated_prefill_beside_a_shared_tier() -> None:
    alone = json.loads(value_of(flags(kv_role="kv_producer"), "--kv-transfer-config"))
    assert (alone["kv_connector"], alone["kv_role"]) == ("NixlConnector", "kv_producer")
    both = json.loads(value_of(flags(kv_role="kv_producer", kv_redis_url="redis://c"), "--kv-transfer-config"))
    assert both["kv_connector"] == "MultiConnector"
    assert [one["kv_connector"] for one in both["kv_connector_extra_config"]["connectors"]] == [
        "LMCacheConnectorV1",
        "NixlConnector",
    ]


def test_offload_parallelism_quantisation_lora_and_the_rest() -> None:
    found = flags(
        kv_offload_gib=32, kv_cache_dtype="fp8", quantization="fp8_per_tensor", tensor_parallel_size=4,
        pipeline_parallel_size=2,
        data_parallel_size=2, distributed_executor_backend="ray", max_model_len=65536,
        lora_modules={"mine": "org/adapter"},
        max_lora_rank=64, tool_call_parser="hermes", drain_s=12.0,
    )  # fmt: skip
    assert value_of(found, "--kv-offloading-size") == "32"
    assert value_of(found, "--kv-offloading-backend") == "native"
    assert value_of(found, "--kv-cache-dtype") == "fp8"
    assert value_of(found, "--quantization") == "fp8_per_tensor"
    assert value_of(found, "--tensor-parallel-size") == "4"
    assert value_of(found, "--pipeline-parallel-size") == "2"
    assert value_of(found, "--data-parallel-size") == "2"
    assert value_of(found, "--distributed-executor-backend") == "ray"
    assert value_of(found, "--max-model-len") == "65536"
    assert value_of(found, "--lora-modules") == "mine=org/adapter"
    assert value_of(found, "--shutdown-timeout") == "12"
    assert {"--enable-lora", "--enable-auto-tool-choice"} <= set(found)


def test_raw_flags_come_last() -> None:
    assert flags(extra_args=["--seed", "7"])[-2:] == ["--seed", "7"]


def test_events_stand_where_they_are_asked_for_and_replays_beside() -> None:
    for endpoint, replays in (("tcp://*:5557", "tcp://*:5558"), ("ipc:///run/kv", "ipc:///run/kv.replay")):
        config = json.loads(value_of(flags(kv_events=endpoint), "--kv-events-config"))
        assert (config["endpoint"], config["replay_endpoint"]) == (endpoint, replays)


def test_vllm_gets_no_paths_of_our_python() -> None:
    env = environment(
        VllmSettings(num_threads=2, cpu_kv_gib=0.5, env={"X": "1"}), {"PYTHONPATH": "/ours", "HOME": "/h"}
    )
    assert "PYTHONPATH" not in env
    assert (env["HOME"], env["OMP_NUM_THREADS"], env["VLLM_CPU_KVCACHE_SPACE"], env["X"]) == ("/h", "2", "0.5", "1")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gpu_memory_utilization": 1.5}, r"bad value for vllm\.gpu_memory_utilization: 1\.5"),
        ({"gpu_memory": 1}, r"unknown setting 'vllm\.gpu_memory'; known are .*gpu_memory_utilization"),
        ({"speculation": "eagle3"}, r"speculation = 'eagle3' needs speculation_model"),
        ({"speculation_model": "d"}, r"speculation_model = 'd' is not used by 'none'"),
        ({"prompt_lookup_min": 6}, r"prompt_lookup_min = 6 is above prompt_lookup_max = 5"),
        ({"kv_role": "kv_both", "kv_transfer_config": {}}, r"kv_transfer_config and kv_role exclude each other"),
        ({"kv_redis_url": "redis://:pw@c", "kv_offload_gib": 1}, r"kv_offload_backend must be 'lmcache'"),
        ({"kv_events": "tcp://127.0.0.1:5557"}, r"bad value for vllm\.kv_events"),
    ],
)
def test_bad_settings_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(VllmSettingsError, match=message) as raised:
        load_vllm_settings(fields)
    assert "pw" not in str(raised.value)
