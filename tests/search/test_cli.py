"""`sluice search` and the MCP server, as a user meets them."""

from __future__ import annotations

import json
import os
import sys

import pytest
from aiohttp import web
from click.testing import CliRunner

from sluice.search.cli import mcp as mcp_command
from sluice.search.cli import search as search_command
from sluice.search.mcp_server import build_server
from sluice.search.recall import proxy_recall
from sluice.search.service import SearchService
from sluice.search.settings import SearchSettings
from tests.search.trees import write_tree


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "tree")


def run(*arguments: str):
    return CliRunner().invoke(search_command, list(arguments))


def test_people_see_places_and_numbered_lines(root, tmp_path):
    done = run("parse cookie header", "--repo", str(root), "--cache", str(tmp_path / "cache"))
    assert done.exit_code == 0
    assert "src/cookies.py:" in done.stdout
    assert "4  def parse_cookie_header(header):" in done.stdout
    assert "tokens" in done.stderr
    assert (tmp_path / "cache" / "segments.db").exists()


def test_programs_get_one_line_of_json(root):
    done = run("RetryPolicy", "--repo", str(root), "--no-cache", "--json", "--budget", "300", "--max-results", "2")
    answer = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert 1 <= len(answer["results"]) <= 2
    assert answer["tokens"] <= 300


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["", "--no-cache"], "no word"),
        (["retry", "--no-cache", "--budget", "1"], "1 is not in the range 32<=x<=32000"),
        (["retry", "--no-cache", "--max-results", "0"], "0 is not in the range x>=1"),
        (["retry", "--no-cache", "--mode", "deep"], "needs --deep-url and --deep-model"),
        (["retry", "--deep-url", "nonsense"], "'nonsense' is no http:// or https:// URL"),
        (["retry", "--repo", "/nowhere/at/all"], "does not exist"),
    ],
)
def test_errors_are_clear_and_short(root, arguments, says, monkeypatch):
    monkeypatch.chdir(root)
    done = run(*arguments)
    assert done.exit_code != 0
    assert says in done.stderr
    assert "Traceback" not in done.output


def test_help_names_both_commands():
    assert "answer QUERY" in CliRunner().invoke(search_command, ["--help"]).output
    assert "MCP" in CliRunner().invoke(mcp_command, ["--help"]).output


@pytest.mark.parametrize("command", [search_command, mcp_command])
def test_without_the_extra_it_is_named(root, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "sluice.search.service", None)
    done = CliRunner().invoke(command, [*(["retry"] if command is search_command else []), "--repo", str(root)])
    assert done.exit_code == 1
    assert "pip install 'sluicegate[search]'" in done.output


async def test_mcp_tools(root):
    from mcp import Client

    service = SearchService(SearchSettings((root,)))

    async def recall(recall_id: str) -> str:
        if recall_id != "7f3a":
            raise LookupError(f"nothing under {recall_id}")
        return "the original"

    async with Client(build_server(service, recall)) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {"code_search", "recall"}
        found = await client.call_tool("code_search", {"query": "cookie header", "budget_tokens": 300})
        assert not found.is_error
        assert "src/cookies.py:" in found.content[0].text
        refused = await client.call_tool("code_search", {"query": "cookie", "repo": "/etc"})
        assert refused.is_error
        assert "no configured root" in refused.content[0].text
        assert (await client.call_tool("recall", {"id": "7f3a"})).content[0].text == "the original"
        assert (await client.call_tool("recall", {"id": "ffff"})).is_error
    async with Client(build_server(service)) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["code_search"]
    await service.aclose()


async def test_mcp_over_stdio(root):
    from mcp import Client, StdioServerParameters

    code = "from sluice.search.cli import mcp; mcp()"
    server = StdioServerParameters(
        command=sys.executable, args=["-c", code, "--repo", str(root), "--no-cache"], env=dict(os.environ)
    )
    async with Client(server) as client:
        found = await client.call_tool("code_search", {"query": "Router"})
        assert "src/server.go:" in found.content[0].text


async def test_an_original_with_half_an_emoji_can_be_sent(root):
    from mcp import Client

    async def recall(recall_id: str) -> str:
        return "cut \ud83d"

    service = SearchService(SearchSettings((root,)))
    async with Client(build_server(service, recall)) as client:
        result = await client.call_tool("recall", {"id": "7f3a"})
    assert result.content[0].text == "cut ?"
    assert result.model_dump_json()
    await service.aclose()


async def test_recall_asks_the_proxy(monkeypatch):
    monkeypatch.setattr("sluice.search.recall._MAX_BYTES", 1_000)

    async def original(request: web.Request) -> web.Response:
        assert request.headers["x-sluice-key"] == "sk-sluice-k"
        assert "authorization" not in request.headers
        if request.match_info["id"] == "7f3a":
            return web.json_response({"id": "7f3a", "text": "the original"})
        if request.match_info["id"] == "aaaa":
            return web.json_response(["no object"])
        if request.match_info["id"] == "bbbb":  # without a length
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(json.dumps({"text": "x" * 2_000}).encode())
            return response
        return web.json_response({"error": {}}, status=404)

    application = web.Application()
    application.router.add_get("/v1/recall/{id}", original)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    recall = proxy_recall(f"http://127.0.0.1:{port}", "sk-sluice-k")
    try:
        assert await recall("7f3a") == "the original"
        for wrong in ("ffff", "../x", "7f3a/../../healthz", "aaaa"):
            with pytest.raises(LookupError):
                await recall(wrong)
        with pytest.raises(LookupError, match="longer than 1000 bytes"):
            await recall("bbbb")
    finally:
        await runner.cleanup()
    with pytest.raises(LookupError, match="did not answer"):
        await recall("7f3a")


async def test_recall_follows_no_redirect_with_the_key():
    asked = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPFound("/other")

    application = web.Application()
    application.router.add_get("/{path:.*}", elsewhere)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with pytest.raises(LookupError, match=r"\(302\)"):
            await proxy_recall(f"http://127.0.0.1:{runner.addresses[0][1]}", "sk-provider")("7f3a")
    finally:
        await runner.cleanup()
    assert asked == ["/v1/recall/7f3a"]
