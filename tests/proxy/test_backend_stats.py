"""What self-hosted backends say of themselves in `/metrics` and `/v1/stats`: vLLM and our own engine alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluice.backend.process import EngineProcess
from sluice.backend.vllm import VllmServer, VllmSettings
from tests.backend.conftest import write_tiny_model
from tests.backend.vllm.conftest import write_standin
from tests.proxy.servers import Exchange, ScriptedUpstream, answer_plainly, proxy, reading_twice

MATTER = {
    "num_running", "num_waiting", "kv_usage", "prefix_hit_rate", "draft_acceptance", "prompt_tokens", "cached_tokens",
    "prefill_tokens", "output_tokens", "draft_tokens", "accepted_tokens", "preemptions",
}  # fmt: skip
"""What is told of a backend beside its times."""

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 1000.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 750.0
"""


async def measured(exchange: Exchange) -> None:
    if exchange.path == "/metrics":
        await exchange.whole(VLLM)
    else:
        await answer_plainly(exchange)


async def test_what_a_self_hosted_backend_says_of_itself_is_shown(upstream: ScriptedUpstream) -> None:
    upstream.answer = measured
    async with proxy(None, upstreams=[{"name": "mine", "preset": "vllm", "origin": upstream.url}]) as client:
        metrics = await client.get("/metrics")
        stats = (await client.get("/v1/stats")).json()
    assert 'sluice_backend_num_running{backend="mine"} 3' in metrics.text
    assert "sluice_requests" in metrics.text
    assert stats["backends"]["mine"]["prefix_hit_rate"] == 0.75


async def test_one_that_says_nothing_is_left_out(upstream: ScriptedUpstream) -> None:
    async with proxy(None, upstreams=[{"name": "mine", "preset": "vllm", "origin": upstream.url}]) as client:
        assert "sluice_backend" not in (await client.get("/metrics")).text
        assert (await client.get("/v1/stats")).json()["backends"] == {}


async def test_a_hosted_upstream_is_not_asked(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        await client.get("/metrics")
    assert not upstream.exchanges


@asynccontextmanager
async def backend(kind: str, folder: Path) -> AsyncIterator[tuple[str, str]]:
    """A backend's origin, and what it calls its model."""
    if kind == "embedded":
        model = write_tiny_model(folder / "tiny", window=8192)
        async with EngineProcess(model=str(model), device="cpu") as engine:
            yield engine.base_url, "tiny"
    else:
        installed = write_standin(folder / "env")
        async with VllmServer(VllmSettings(model="tiny", drain_s=1.0), installed=installed) as server:
            yield server.base_url, "tiny"


@pytest.mark.parametrize("kind", ["embedded", pytest.param("vllm", id="vllm")])
async def test_what_matters_is_told_of_both_backends(kind: str, tmp_path: Path) -> None:
    async with (
        backend(kind, tmp_path) as (origin, model),
        proxy(None, upstreams=[{"name": "mine", "preset": "vllm", "origin": origin}], mode="safe") as client,
    ):
        body = {"model": model, "messages": reading_twice(), "max_tokens": 48, "temperature": 0}
        for _ in range(2):  # the second is read from the prefix cache
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
        text = (await client.get("/metrics")).text
        stats = (await client.get("/v1/stats")).json()
    told = stats["backends"]["mine"]
    missing = [
        name for name in (*MATTER, "ttft_p50_ms", "ttft_p95_ms", "itl_p50_ms", "itl_p95_ms") if told[name] is None
    ]
    assert not missing
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("backend") == "mine"
    }
    for name in MATTER:
        shown = samples.get(f"sluice_backend_{name}", samples.get(f"sluice_backend_{name}_total"))
        assert shown == told[name], name
    for name in ("ttft", "itl"):
        assert samples[f"sluice_backend_{name}_seconds_count"] > 0
        assert f"sluice_backend_{name}_seconds_bucket" in samples
    assert 0 < told["prefix_hit_rate"] < 1
    assert 0 <= told["draft_acceptance"] <= 1
    assert told["prefill_tokens"] == told["prompt_tokens"] - told["cached_tokens"] > 0
    # What compression saved is the difference between what came in and what was forwarded.
    ours = {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples if not s.labels}
    saved = stats["totals"]["tokens_in"] - stats["totals"]["tokens_out"]
    assert ours["sluice_tokens_in_total"] - ours["sluice_tokens_out_total"] == saved > 0
