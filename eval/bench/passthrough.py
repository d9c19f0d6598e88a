"""The proxy that one would write in an afternoon, with FastAPI and httpx: bytes in, bytes out, nothing looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request, Response
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

_NOT_FORWARDED = frozenset(("host", "connection", "content-length", "transfer-encoding"))


def passthrough(origin: str) -> FastAPI:
    """Make the application.

    Args:
        origin: of the upstream.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(base_url=origin, timeout=600, limits=httpx.Limits(max_connections=512)) as client:
            app.state.client = client
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        client: httpx.AsyncClient = request.app.state.client
        headers = [(name, value) for name, value in request.headers.items() if name not in _NOT_FORWARDED]
        outgoing = client.build_request("POST", request.url.path, content=await request.body(), headers=headers)
        answer = await client.send(outgoing, stream=True)
        kept = {name: value for name, value in answer.headers.items() if name not in _NOT_FORWARDED}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose))

    return app
