"""The HTTP surface against its own description: whatever is sent, the answer is one that the description names."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from pydantic import SecretStr
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from starlette.routing import Route

from sluice.proxy.app import create_app
from sluice.proxy.openapi import describe_routes
from sluice.proxy.settings import Settings
from tests.effort import examples
from tests.proxy.servers import Exchange, ScriptedUpstream, completion, proxy, reading_twice, serving

schema = schemathesis.openapi.from_dict(json.loads(json.dumps(describe_routes())))
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
NOT_DESCRIBED = {
    "/v1/{rest:path}",
    "/mcp",
    "/openapi.json",
    "/dashboard/static/{name:path}",
    "/dashboard/conversations",
    "/dashboard/conversations/{conversation_id}",
    "/dashboard/backends",
    "/dashboard/searches",
}
"""The upstream's routes, MCP, which has a description of its own, this one, and the dashboard's other pages."""
KEY = "the-owners-key"
MESSAGES = {"model": "m", "messages": reading_twice()}
GOOD: dict[tuple[str, str], Any] = {
    ("POST", "/v1/chat/completions"): MESSAGES,
    ("POST", "/v1/completions"): {"model": "m", "prompt": "x"},
    ("POST", "/v1/responses"): {"model": "m", "input": "x"},
    ("POST", "/v1/messages"): {**MESSAGES, "max_tokens": 1},
    ("POST", "/v1/messages/count_tokens"): MESSAGES,
    ("POST", "/v1/compact"): {"input": "\n".join(["again and again"] * 50)},
    ("POST", "/v1/search"): {"query": "where is the answer?"},
    ("GET", "/v1/models"): None,
    ("GET", "/v1/recall/{recall_id}"): None,
    ("GET", "/v1/stats"): None,
    ("GET", "/v1/stats/conversations"): None,
    ("GET", "/v1/stats/conversations/{conversation_id}"): None,
    ("GET", "/dashboard"): None,
    ("GET", "/dashboard/api/session"): None,
    ("GET", "/dashboard/api/overview"): None,
    ("GET", "/dashboard/api/conversations"): None,
    ("GET", "/dashboard/api/conversations/{conversation_id}"): None,
    ("GET", "/dashboard/api/conversations/{conversation_id}/request"): None,
    ("POST", "/dashboard/api/conversations/{conversation_id}/pins"): {"message": 2, "text": 0, "start": 0, "stop": 2},
    ("GET", "/dashboard/api/backends"): None,
    ("GET", "/dashboard/api/searches"): None,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): None,
}


async def answer(exchange: Exchange) -> None:
    """Anything to anybody."""
    counted = {"input_tokens": 7} if exchange.path.endswith("count_tokens") else completion()
    await exchange.whole(json.dumps({"data": [], **counted}).encode())


@dataclass
class Served:
    """A proxy, and the upstream behind it."""

    url: str
    upstream: ScriptedUpstream


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A proxy before an upstream that answers all, in a thread of its own."""
    ready: Future[Served] = Future()
    stopping: list[Callable[[], object]] = []
    root = tmp_path_factory.mktemp("root")
    (root / "answer.py").write_text("def answer():\n    return 42\n")

    async def serve() -> None:
        stop = asyncio.get_running_loop().create_future()
        scripted = ScriptedUpstream()
        scripted.answer = answer
        options: dict[str, Any] = {"search_roots": (root,), "search_cache_dir": root.with_name("cache")}
        options |= {"store_content": True, "dashboard_key": SecretStr(KEY)}
        async with serving(scripted) as upstream, proxy(upstream, **options) as client:
            stopping.append(lambda: stop.get_loop().call_soon_threadsafe(stop.set_result, None))
            ready.set_result(Served(str(client.base_url), scripted))
            await stop

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    yield ready.result(30)
    stopping[0]()
    thread.join()


@schema.parametrize()
@settings(examples(15), suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_is_described(case: schemathesis.Case, served: Served) -> None:
    case.call_and_validate(base_url=served.url, checks=CHECKS, timeout=30)


def test_every_route_is_described() -> None:
    app = create_app(Settings(upstream="http://127.0.0.1:9"))
    served = {
        (method, route.path)
        for route in app.router.routes
        if isinstance(route, Route) and route.path not in NOT_DESCRIBED
        for method in (route.methods or ())
        if method != "HEAD"
    }
    described = {(method.upper(), path) for path, item in describe_routes()["paths"].items() for method in item}
    assert described == served


@pytest.mark.parametrize(("method", "path"), GOOD)
def test_what_is_described_is_served(method: str, path: str, served: Served) -> None:
    """A request as it should be gets 200 on every route, and an answer of the form that is described."""
    parameters = {}
    if "{" in path:  # what is asked for has to be there first
        sent = _case("POST", "/v1/chat/completions", MESSAGES, {"x-sluice-mode": "safe"}).call(base_url=served.url)
        assert sent.status_code == 200
        recent = _case("GET", "/v1/stats/conversations").call(base_url=served.url).json()["conversations"]
        marker = served.upstream.last.json["messages"][4]["content"].removeprefix("[sluice ")[:4]
        ids = {"recall_id": marker, "conversation_id": recent[0]["id"]}
        parameters = {name: value for name, value in ids.items() if f"{{{name}}}" in path}
    headers = {"x-sluice-key": KEY} if path.startswith("/dashboard/api") else {}
    case = _case(method, path, GOOD[method, path], headers, path_parameters=parameters)
    assert case.call_and_validate(base_url=served.url, checks=CHECKS, timeout=30).status_code == 200


def _case(method: str, path: str, body: Any = None, headers: Any = None, **options: Any) -> schemathesis.Case:
    if body is not None:
        options["body"] = body
    return schema[path][method].Case(headers=headers or {}, **options)


def test_all_that_is_described_is_tried() -> None:
    described = {(method.upper(), path) for path, item in describe_routes()["paths"].items() for method in item}
    assert set(GOOD) == described
