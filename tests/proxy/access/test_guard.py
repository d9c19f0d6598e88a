"""The whole proxy, guarded: who gets in, who is turned away, and that no secret shows anywhere."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from sluice.proxy.access.keys import ProxyKey, make_key
from tests.proxy.servers import Exchange, ScriptedUpstream, answer_plainly, completion, proxy

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- pages of other hosts and origins --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.com", "evil.com:8790", "127.0.0.1.evil.com", "0.0.0.0", "localhost@evil.com"])
async def test_a_page_under_a_rebound_name_is_turned_away(upstream: ScriptedUpstream, host: str) -> None:
    async with proxy(upstream.url) as client:
        for path in ("/v1/models", "/healthz", "/metrics", "/v1/recall/7f3a"):
            assert error_of(await client.get(path, headers={"host": host})) == (403, "forbidden_host")
        assert error_of(await client.post(CHAT, json=BODY, headers={"host": host})) == (403, "forbidden_host")
    assert not upstream.exchanges


@pytest.mark.parametrize("host", ["localhost", "localhost:8790", "[::1]:8790", "127.0.0.1"])
async def test_loopback_may_be_called_by_any_of_its_names(upstream: ScriptedUpstream, host: str) -> None:
    async with proxy(upstream.url) as client:
        assert (await client.get("/healthz", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "http://127.0.0.1:1", "https://localhost"])
async def test_a_page_of_another_origin_is_turned_away(upstream: ScriptedUpstream, origin: str) -> None:
    async with proxy(upstream.url) as client:
        answer = await client.post(CHAT, json=BODY, headers={"origin": origin, "content-type": "text/plain"})
        assert error_of(answer) == (403, "forbidden_origin")
        assert "allowed_origins" in answer.json()["error"]["message"]
        preflight = await client.options(CHAT, headers={"origin": origin, "access-control-request-method": "POST"})
        assert "access-control-allow-origin" not in preflight.headers
    assert not upstream.exchanges


async def test_its_own_pages_may_ask(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        own = str(client.base_url).rstrip("/")
        answer = await client.post(CHAT, json=BODY, headers={"origin": own})
        assert answer.json() == completion()
        assert "access-control-allow-origin" not in answer.headers


async def test_an_origin_that_is_allowed_gets_cors_and_no_other_does(upstream: ScriptedUpstream) -> None:
    page = "http://localhost:3000"
    async with proxy(upstream.url, allowed_origins=(page,)) as client:
        asked = {"origin": page, "access-control-request-method": "POST", "access-control-request-headers": "x-a"}
        preflight = await client.options(CHAT, headers=asked)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, page)
        answer = await client.post(CHAT, json=BODY, headers={"origin": page})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, page)
        other = await client.post(CHAT, json=BODY, headers={"origin": "http://evil.com"})
        assert error_of(other) == (403, "forbidden_origin")


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_without_a_key_nothing_but_probes_is_served(upstream: ScriptedUpstream) -> None:
    key, text = make_key("ann")
    stolen = f"sk-sluice-{key.id}-{'A' * 43}"
    async with proxy(upstream.url, keys=(key,)) as client:
        for path in ("/healthz", "/readyz"):
            assert (await client.get(path)).status_code == 200
        upstream.exchanges.clear()
        for path in ("/v1/models", "/metrics", "/v1/recall/7f3a", "/v1/files"):
            assert error_of(await client.get(path)) == (401, "missing_proxy_key")
        for wrong in ("hush", stolen, make_key("bob")[1], text + "x"):
            answer = await client.post(CHAT, json=BODY, headers={"x-sluice-key": wrong})
            assert error_of(answer) == (401, "unknown_proxy_key")
            assert wrong not in answer.text
        assert not upstream.exchanges
        assert (await client.post(CHAT, json=BODY, headers={"x-sluice-key": text})).json() == completion()


@pytest.mark.parametrize("header", ["x-sluice-key", "authorization", "x-api-key", "api-key", "x-goog-api-key"])
async def test_a_key_reaches_no_upstream_and_no_log(
    upstream: ScriptedUpstream, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, text = make_key("ann")
    value = f"Bearer {text}" if header == "authorization" else text
    headers = {header: value}
    if header == "x-sluice-key":
        headers["authorization"] = "Bearer hush-provider"
    async with proxy(upstream.url, keys=(key,)) as client:
        assert (await client.post(CHAT, json=BODY, headers=headers)).status_code == 200
        sent = repr(upstream.last.headers)
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
        metrics = (await client.get("/metrics", headers=headers)).text
    assert text not in sent + repr(upstream.last.headers) + metrics + caplog.text
    assert "hush" not in metrics + caplog.text
    assert ("hush-provider" in sent) == (header == "x-sluice-key")


async def test_keys_in_a_file_work_at_once_when_they_are_added(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    from sluice.proxy.access.keyring import FileKeys

    path = tmp_path / "keys.json"
    async with proxy(upstream.url, keys_file=path) as client:
        key, text = make_key("ann")
        assert error_of(await client.get("/v1/models")) == (401, "missing_proxy_key")
        FileKeys(path).add(key)
        async with asyncio.timeout(10):  # the file is looked at once a second
            while (await client.get("/v1/models", headers={"x-sluice-key": text})).status_code != 200:
                pass


@pytest.mark.redis
async def test_keys_in_redis_are_shared(upstream: ScriptedUpstream, redis_url: str) -> None:
    from sluice.proxy.access.redis import RedisKeys
    from sluice.proxy.state.client import RedisClient

    client_of_keys = RedisClient(redis_url, timeout_s=5.0)
    key, text = make_key("ann", requests_per_minute=2)
    await RedisKeys(client_of_keys).add(key)
    await client_of_keys.aclose()
    async with (
        proxy(upstream.url, redis_url=redis_url, require_keys=True) as one,
        proxy(upstream.url, redis_url=redis_url, require_keys=True) as two,
    ):
        headers = {"x-sluice-key": text}
        assert (await one.get("/v1/models", headers=headers)).status_code == 200
        assert (await two.get("/v1/models", headers=headers)).status_code == 200
        for client in (one, two):
            assert error_of(await client.get("/v1/models", headers=headers)) == (429, "rate_limited")


async def test_a_refusal_has_the_form_that_the_client_reads(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url, keys=(make_key("ann")[0],)) as client:
        answer = await client.post("/v1/messages", json=BODY)
    assert (answer.status_code, answer.json()["type"]) == (401, "error")
    assert answer.json()["error"]["type"] == "authentication_error"


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_too_fast_is_429_with_the_time_to_wait(upstream: ScriptedUpstream) -> None:
    key, text = make_key("ann", requests_per_minute=1)
    async with proxy(upstream.url, keys=(key,)) as client:
        headers = {"x-sluice-key": text}
        assert (await client.post(CHAT, json=BODY, headers=headers)).status_code == 200
        refused = await client.post(CHAT, json=BODY, headers=headers)
    assert error_of(refused) == (429, "rate_limited")
    assert 50 <= int(refused.headers["retry-after"]) <= 60
    assert len(upstream.exchanges) == 1


async def holding(
    upstream: ScriptedUpstream, client: httpx.AsyncClient, **headers: str
) -> asyncio.Task[httpx.Response]:
    """A request that the upstream does not answer, on its way."""

    async def wait(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    upstream.answer = wait
    upstream.arrived.clear()
    task = asyncio.create_task(client.post(CHAT, json=BODY, headers=headers))
    await upstream.arrived.wait()
    return task


async def gives_room(client: httpx.AsyncClient, **headers: str) -> bool:
    async with asyncio.timeout(10):
        while (answer := await client.get("/v1/models", headers=headers)).status_code == 429:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return answer.status_code == 200


async def test_too_many_of_one_key_at_once_is_429_and_a_hang_up_makes_room(upstream: ScriptedUpstream) -> None:
    (key, text), (other, others) = make_key("ann", max_concurrent=1), make_key("bob")
    async with proxy(upstream.url, keys=(key, other)) as client:
        task = await holding(upstream, client, **{"x-sluice-key": text})
        refused = await client.post(CHAT, json=BODY, headers={"x-sluice-key": text})
        assert error_of(refused) == (429, "too_many_requests")
        assert refused.headers["retry-after"] == "1"
        upstream.answer = answer_plainly
        assert (await client.get("/v1/models", headers={"x-sluice-key": others})).status_code == 200
        task.cancel()
        assert await gives_room(client, **{"x-sluice-key": text})


async def test_too_many_in_all_is_429(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url, max_concurrent_requests=1) as client:
        task = await holding(upstream, client)
        refused = await client.post(CHAT, json=BODY)
        assert error_of(refused) == (429, "too_many_requests")
        assert "max_concurrent_requests" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code != 429
        upstream.answer = answer_plainly
        task.cancel()
        assert await gives_room(client)


async def test_a_spent_budget_is_429_until_it_is_over(upstream: ScriptedUpstream) -> None:
    key, text = make_key("ann", tokens_per_day=0)
    async with proxy(upstream.url, keys=(key,)) as client:
        refused = await client.post(CHAT, json=BODY, headers={"x-sluice-key": text})
    assert error_of(refused) == (429, "budget_spent")
    assert 1 <= int(refused.headers["retry-after"]) <= 86_400


async def test_what_is_passed_on_counts_as_well(upstream: ScriptedUpstream) -> None:
    async def embed(exchange: Exchange) -> None:
        await exchange.whole(b'{"data": [], "usage": {"prompt_tokens": 70, "total_tokens": 70}}')

    upstream.answer = embed
    key, text = make_key("ann", tokens_per_day=100)
    async with proxy(upstream.url, keys=(key,)) as client:
        codes = []
        for _ in range(3):
            answer = await client.post(
                "/v1/embeddings", json={"model": "e", "input": "x"}, headers={"x-sluice-key": text}
            )
            codes.append(answer.status_code)
    assert codes == [200, 200, 429]


def test_a_keys_record_is_frozen() -> None:
    key, _ = make_key("ann")
    assert isinstance(key, ProxyKey)
    with pytest.raises(Exception, match="frozen"):
        key.name = "bob"


# --- what browsers fetch without saying from where -------------------------------------------------------------------


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", None])
async def test_what_another_sites_page_embeds_is_turned_away(
    upstream: ScriptedUpstream, site: str, mode: str | None
) -> None:
    headers = {"sec-fetch-site": site} | ({"sec-fetch-mode": mode} if mode else {})
    async with proxy(upstream.url) as client:
        for path in ("/v1/models", "/v1/files", "/dashboard", "/metrics"):
            assert error_of(await client.get(path, headers=headers)) == (403, "forbidden_origin")
    assert not upstream.exchanges


async def test_its_own_page_and_a_person_may_look(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        for site, mode in (("same-origin", "cors"), ("none", "navigate"), ("cross-site", "navigate")):
            headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
            assert (await client.get("/healthz", headers=headers)).status_code == 200
            assert (await client.get("/dashboard", headers=headers)).status_code == 200


async def test_an_upstreams_page_runs_nothing_as_one_of_the_proxys_own(upstream: ScriptedUpstream) -> None:
    async def a_page(exchange: Exchange) -> None:
        own = (b"content-security-policy", b"default-src *")
        await exchange.start("text/html", 200, own)
        await exchange.part(b"<script>fetch('/v1/stats')</script>")
        await exchange.end()

    upstream.answer = a_page
    navigating = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    async with proxy(upstream.url) as client:
        shown = await client.get("/v1/files/evil", headers=navigating)
        assert shown.headers.get_list("content-security-policy") == ["sandbox"]
        assert shown.headers["x-content-type-options"] == "nosniff"
        by_an_agent = await client.get("/v1/files/evil")
        assert by_an_agent.headers["content-security-policy"] == "default-src *"
        page = await client.get("/dashboard", headers=navigating)
        assert "script-src 'self'" in page.headers["content-security-policy"]


async def test_what_was_turned_away_says_what_and_from_where(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sluice")
    _, text = make_key("ann")
    async with proxy(upstream.url, keys=(make_key("ben")[0],)) as client:
        await client.get("/v1/models", headers={"host": "evil.example"})
        await client.get("/v1/models?secret=1", headers={"x-sluice-key": text})
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("turned_away")]
    assert lines == [
        "turned_away status=403 reason=forbidden_host path=/v1/models peer=127.0.0.1 named=evil.example",
        "turned_away status=401 reason=unknown_proxy_key path=/v1/models peer=127.0.0.1",
    ]
