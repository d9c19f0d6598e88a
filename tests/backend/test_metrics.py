from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluice.backend.base import EngineStats
from sluice.backend.engine_metrics import render_metrics
from sluice.backend.histogram import Distribution
from sluice.backend.metrics import BackendMetrics, backend_metrics, prometheus, read_metrics
from tests.proxy.servers import Exchange, ScriptedUpstream, serving

RECORDED = (Path(__file__).parent / "data" / "vllm-0.32-metrics.txt").read_text()


def test_what_a_real_vllm_said_is_read() -> None:
    found = backend_metrics(RECORDED)
    assert (found.num_running, found.num_waiting, found.preemptions) == (0, 0, 0)
    assert (found.prompt_tokens, found.cached_tokens, found.prefill_tokens) == (105, 0, 105)
    assert found.output_tokens == 32
    assert found.kv_capacity_tokens == 46_592
    assert found.kv_usage == 0
    assert found.ttft is not None
    assert found.ttft.count == 5
    assert found.ttft.mean_ms == pytest.approx(393.54, abs=0.01)
    assert found.itl is not None
    assert found.itl.count == 27
    assert found.draft_tokens is None
    assert found.draft_acceptance is None


def test_several_engines_behind_one_port_are_added_up() -> None:
    text = "".join(
        f'vllm:num_requests_running{{engine="{engine}"}} {engine + 1}\n'
        f'vllm:kv_cache_usage_perc{{engine="{engine}"}} {0.2 * (engine + 1)}\n'
        f'vllm:cache_config_info{{engine="{engine}",block_size="16",num_gpu_blocks="100"}} 1\n'
        for engine in range(2)
    )
    found = backend_metrics(text)
    assert found.num_running == 3
    assert found.kv_usage == pytest.approx(0.3)
    assert found.kv_capacity_tokens == 3200


def test_speculation_is_read() -> None:
    found = backend_metrics(
        "vllm:spec_decode_num_draft_tokens_total 40\nvllm:spec_decode_num_accepted_tokens_total 30\n"
    )
    assert found.draft_acceptance == 0.75


def test_the_embedded_engines_figures_are_read() -> None:
    stats = EngineStats(
        num_running=2,
        num_waiting=1,
        num_blocks=10,
        block_size=16,
        num_blocks_in_use=4,
        prompt_tokens_total=100,
        cached_tokens_total=60,
        output_tokens_total=7,
        draft_tokens_total=8,
        accepted_tokens_total=6,
        preemptions_total=1,
    )
    stats.ttft.observe(0.2)
    stats.itl.observe(0.03, 6)
    found = backend_metrics(render_metrics(stats))
    assert (found.num_running, found.num_waiting, found.kv_usage) == (2, 1, 0.4)
    assert found.kv_capacity_tokens == 160
    assert found.ttft is not None
    assert found.itl is not None
    assert (found.ttft.mean_ms, found.itl.mean_ms) == pytest.approx((200, 30))
    assert (found.prefill_tokens, found.prefix_hit_rate, found.draft_acceptance) == (40, 0.6, 0.75)
    assert (found.output_tokens, found.preemptions) == (7, 1)


@pytest.mark.engine
@pytest.mark.xdist_group("smollm2")
async def test_a_running_embedded_engine_tells_them(smollm2_url: str) -> None:
    found = await read_metrics(smollm2_url.removesuffix("/v1"), timeout_s=30)
    assert found.num_running == 0
    assert found.prompt_tokens is not None
    assert found.kv_usage == 0


def test_what_is_not_told_is_none_and_not_zero() -> None:
    found = backend_metrics("nonsense\n# HELP x\nvllm:prompt_tokens_total not-a-number\n")
    assert set(found.as_json().values()) == {None}
    assert prometheus({"x": found}) == ""
    assert backend_metrics("vllm:x 1\nvllm:time_to_first_token_seconds_count 1\n").ttft is not None


def test_percentiles_lie_on_straight_lines_within_buckets() -> None:
    found = Distribution(count=10, sum_s=5.0, buckets=((0.1, 0), (0.5, 5), (1.0, 10), (math.inf, 10)))
    assert found.percentile_ms(50) == pytest.approx(500)
    assert found.percentile_ms(75) == pytest.approx(750)
    assert found.percentile_ms(100) == pytest.approx(1000)
    assert found.mean_ms == 500
    assert Distribution(2, 9.0, ((1.0, 1), (math.inf, 2))).percentile_ms(95) == 1000
    assert Distribution(0, 0.0, ()).percentile_ms(50) is None


def test_they_go_on_as_prometheus_text() -> None:
    recorded = backend_metrics(RECORDED)
    many = BackendMetrics(prompt_tokens=12_345_678.0, cached_tokens=1.0)
    text = prometheus({'http://a"b': recorded, "two": many})
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families) == text.count("# TYPE"), "each family stands in one piece"
    prefill = families["sluice_backend_prefill_tokens"]
    assert [(sample.labels, sample.value) for sample in prefill.samples] == [
        ({"backend": 'http://a"b'}, 105),
        ({"backend": "two"}, 12_345_677),
    ]
    ttft = families["sluice_backend_ttft_seconds"]
    assert ttft.type == "histogram"
    assert recorded.ttft is not None
    found = {sample.name.removeprefix(ttft.name): sample.value for sample in ttft.samples}
    assert (found["_count"], found["_sum"]) == (recorded.ttft.count, recorded.ttft.sum_s)
    buckets = [(float(s.labels["le"]), s.value) for s in ttft.samples if s.name.endswith("_bucket")]
    assert tuple(buckets) == recorded.ttft.buckets


def test_a_figure_that_is_no_number_breaks_nothing() -> None:
    found = backend_metrics("vllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf\n")
    text = prometheus({"x": found})
    values = {family.name: family.samples[0].value for family in text_string_to_metric_families(text)}
    assert math.isnan(values["sluice_backend_num_running"])
    assert values["sluice_backend_num_waiting"] == math.inf


async def test_a_backend_is_asked() -> None:
    upstream = ScriptedUpstream()

    async def answer(exchange: Exchange) -> None:
        assert exchange.path == "/metrics"
        await exchange.whole(RECORDED.encode())

    upstream.answer = answer
    async with serving(upstream) as url:
        assert (await read_metrics(url)).output_tokens == 32


async def test_a_backend_that_says_too_much_is_not_read_to_the_end() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(100):
                await send({"type": "http.response.body", "body": b"x 1\n" * 65_536, "more_body": True})

    async with serving(endless) as url:
        with pytest.raises(httpx.HTTPError, match="more than"):
            await read_metrics(url, timeout_s=30)


async def test_what_is_packed_unasked_is_not_unpacked() -> None:
    async def packed(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-encoding", b"gzip")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": gzip.compress(b"vllm:num_requests_running 1\n")})

    async with serving(packed) as url:
        assert await read_metrics(url, timeout_s=30) == BackendMetrics()
