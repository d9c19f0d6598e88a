from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from sluice.backend.guarded import Guarded


class Engine:
    """Answers whatever it is asked, and notes that it was."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        await PlainTextResponse("served")(scope, receive, send)


@asynccontextmanager
async def guarded(engine: Engine, address: str = "127.0.0.1") -> AsyncIterator[httpx.AsyncClient]:
    config = uvicorn.Config(Guarded(engine, address), port=0, log_level="warning", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client
    server.should_exit = True
    await task


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example", "content-type": "text/plain"},
        {"origin": "null", "content-type": "text/plain"},
        {"host": "evil.example:8791"},
        {"host": "127.0.0.1.evil.example"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ],
)
async def test_what_a_web_page_sends_is_turned_away(headers: dict[str, str]) -> None:
    engine = Engine()
    async with guarded(engine) as client:
        answer = await client.post("/v1/chat/completions", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    named = headers.get("origin") or headers.get("sec-fetch-site") or headers["host"]
    assert named in answer.json()["error"]["message"]
    assert not engine.asked


@pytest.mark.parametrize("headers", [{}, {"host": "localhost:8791"}, {"host": "[::1]"}])
async def test_programs_on_this_machine_are_served(headers: dict[str, str]) -> None:
    async with guarded(Engine()) as client:
        assert (await client.post("/v1/chat/completions", headers=headers)).text == "served"


async def test_elsewhere_it_may_be_called_by_any_name_and_by_no_foreign_page() -> None:
    async with guarded(Engine(), "0.0.0.0") as client:
        assert (await client.get("/v1/models", headers={"host": "engine:8791"})).text == "served"
        foreign = {"host": "engine:8791", "origin": "http://evil.example"}
        assert (await client.get("/v1/models", headers=foreign)).status_code == 403
