from __future__ import annotations

from tests.proxy.servers import Exchange, ScriptedUpstream, answer_plainly, proxy

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
