from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click.testing
import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from sluice.proxy.errors import ConfigError
from sluice.proxy.load_settings import load_settings
from sluice.proxy.settings import Settings
from tests.proxy.servers import Exchange, ScriptedUpstream, completion, proxy, reading_twice
from tests.proxy.test_routes import shorten
from tests.search.trees import write_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


@asynccontextmanager
async def searching(upstream: ScriptedUpstream, *roots: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    cache = roots[0].parent / "cache"
    async with proxy(upstream.url, search_roots=roots, search_cache_dir=cache, **settings) as client:
        yield client


@asynccontextmanager
async def mcp_client(client: httpx.AsyncClient, **headers: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False, timeout=30.0) as http,
        Client(streamable_http_client(str(client.base_url.join("/mcp")), http_client=http)) as session,
    ):
        yield session


async def test_an_answer_has_the_wire_contracts_form(upstream: ScriptedUpstream, root: Path) -> None:
    async with searching(upstream, root) as client:
        asked = {"query": "retry backoff delay", "budget_tokens": 400, "max_results": 3}
        answer = await client.post("/v1/search", json=asked)
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"results", "tokens", "took_ms"}
    assert 0 < body["tokens"] <= 400
    assert 0 < len(body["results"]) <= 3
    first = body["results"][0]
    assert set(first) == {"path", "start", "end", "score", "reason", "text"}
    assert first["path"] == "src/retry.py"
    lines = (root / "src/retry.py").read_text().split("\n")
    assert first["text"] == "\n".join(lines[first["start"] - 1 : first["end"]])
    assert not upstream.exchanges  # nothing of it goes out


async def test_without_roots_both_routes_say_so(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        for path in ("/v1/search", "/mcp"):
            answer = await client.post(path, json={"query": "x"})
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "unknown_root"
            assert "search_roots" in answer.json()["error"]["message"]


async def test_a_root_that_is_not_configured_is_404(upstream: ScriptedUpstream, root: Path) -> None:
    write_tree(root.parent / "other", {"a.py": "secret = 1\n"})
    async with searching(upstream, root) as client:
        for repo in ("other", str(root.parent / "other"), f"{root}/../other", "/", "/a\0b", "a/" * 4000):
            answer = await client.post("/v1/search", json={"query": "secret", "repo": repo})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_root")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b'{"query": "\xff"}', "invalid_json", None),
        (b"{}", "invalid_value", None),
        (b'{"query": 1}', "invalid_value", "query"),
        (b'{"query": "a", "mode": "slow"}', "invalid_value", "mode"),
        (b'{"query": "a", "limit": 3}', "invalid_value", None),
        (b'{"query": "  "}', "invalid_query", None),
        (b'{"query": "a", "budget_tokens": 3}', "invalid_query", None),
        (b'{"query": "a", "max_results": 0}', "invalid_query", None),
        (b'{"query": "a", "mode": "deep"}', "invalid_query", None),
    ],
)
async def test_a_bad_request_is_named(
    upstream: ScriptedUpstream, root: Path, body: bytes, code: str, param: str | None
) -> None:
    async with searching(upstream, root) as client:
        answer = await client.post("/v1/search", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)


async def test_a_body_past_the_limit_is_413(upstream: ScriptedUpstream, root: Path) -> None:
    async with searching(upstream, root) as client:
        answer = await client.post("/v1/search", content=b'{"query": "%s"}' % (b"a" * 2_000_000))
    assert answer.status_code == 413


async def test_a_root_that_vanished_is_503(upstream: ScriptedUpstream, root: Path) -> None:
    async with searching(upstream, root) as client:
        root.rename(root.parent / "moved")  # noqa: ASYNC240 -- nothing else runs
        answer = await client.post("/v1/search", json={"query": "retry"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unreadable_root")


async def test_deep_asks_the_upstream_with_the_configured_key_alone(upstream: ScriptedUpstream, root: Path) -> None:
    async def choose(exchange: Exchange) -> None:
        await exchange.whole(json.dumps(completion("src/retry.py:14-17")).encode())

    upstream.answer = choose
    settings = {"search_deep_model": "small", "search_deep_key": "sk-own"}
    async with searching(upstream, root, **settings) as client:
        asked = {"query": "retry backoff delay", "mode": "deep"}
        answer = await client.post("/v1/search", json=asked, headers={"authorization": "Bearer callers"})
    assert upstream.last.path == "/v1/chat/completions"
    assert upstream.last.json["model"] == "small"
    assert upstream.last.header("authorization") == b"Bearer sk-own"
    assert [result["reason"] for result in answer.json()["results"]] == ["chosen by the model"]


async def test_mcp_finds_code(upstream: ScriptedUpstream, root: Path) -> None:
    async with searching(upstream, root) as client, mcp_client(client) as session:
        tools = (await session.list_tools()).tools
        assert [tool.name for tool in tools] == ["code_search", "recall"]
        found = await session.call_tool("code_search", {"query": "parse a cookie header"})
        assert "src/cookies.py:" in found.content[0].text
        refused = await session.call_tool("code_search", {"query": "x", "repo": "elsewhere"})
        assert refused.is_error
        assert "elsewhere" in refused.content[0].text


async def test_mcp_recalls_for_the_caller_alone(upstream: ScriptedUpstream, root: Path) -> None:
    async with searching(upstream, root) as client:
        recall_id = await shorten(client, upstream, authorization="Bearer one")
        async with mcp_client(client, authorization="Bearer one") as own:
            got = await own.call_tool("recall", {"id": recall_id})
            assert got.content[0].text == reading_twice()[4]["content"]
        async with mcp_client(client, authorization="Bearer two") as other:
            got = await other.call_tool("recall", {"id": recall_id})
            assert got.is_error


async def test_mcp_refuses_a_foreign_host(upstream: ScriptedUpstream, root: Path) -> None:
    async with searching(upstream, root) as client:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accept = {"accept": "application/json, text/event-stream", "host": "evil.example"}
        assert (await client.post("/mcp", json=body, headers=accept)).status_code == 403


def test_roots_are_checked_at_the_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_SEARCH_ROOTS", os.pathsep.join((str(root), str(root / "src"))))
    assert load_settings({"upstream": "http://u"}).search_roots == (root, root / "src")
    monkeypatch.setenv("SLUICE_SEARCH_ROOTS", str(root / "none"))
    with pytest.raises(ConfigError, match=r"search_roots.*none"):
        load_settings({"upstream": "http://u"})
    monkeypatch.delenv("SLUICE_SEARCH_ROOTS")
    assert Settings().search_roots == ()


def test_the_flag_may_be_repeated(root: Path) -> None:
    from sluice.proxy.cli import serve

    result = click.testing.CliRunner().invoke(
        serve, ["--search-root", str(root), "--search-root", str(root / "none"), "--upstream", "http://u"]
    )
    assert result.exit_code != 0
    assert "search_roots" in result.output
    assert "none" in result.output


async def test_an_index_that_cannot_be_kept_on_disk_is_kept_in_memory(
    upstream: ScriptedUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.py").write_text("def retry_policy():\n    return 3\n")
    (tmp_path / "file").write_text("")
    async with proxy(
        upstream.url, search_roots=(tmp_path / "tree",), search_cache_dir=tmp_path / "file" / "cache"
    ) as client:
        answer = await client.post("/v1/search", json={"query": "retry policy"})
    assert answer.json()["results"][0]["path"] == "a.py"
    assert len([record for record in caplog.records if "kept in memory" in record.getMessage()]) == 1


async def test_a_long_question_whose_sentence_would_be_cut_within_a_word(
    upstream: ScriptedUpstream, root: Path
) -> None:
    async with searching(upstream, root) as client:
        answer = await client.post("/v1/search", json={"query": "- " * 63 + " backoff_delay_of_policies is where"})
    assert answer.status_code == 200
    assert answer.json()["results"][0]["path"] == "src/retry.py"
