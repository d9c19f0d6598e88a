"""The servers of a benchmark, each a process of its own: an upstream that streams, and a plain pass-through.

The pass-through is what one would write first: FastAPI, httpx, the body decoded and encoded again. Run as
`python -m sluice.eval.bench.stage upstream|passthrough PORT [UPSTREAM]`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.responses import StreamingResponse

NUM_EVENTS = 64
"""Events of an answer."""
PACE_HEADER = b"x-bench-pace-ms"
"""How long the upstream waits before each event, in milliseconds; none: all at once."""

_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"a few words of an answer "},"finish_reason":null}]}\n\n'
)
_DONE = b"data: [DONE]\n\n"


async def upstream(scope: Any, receive: Any, send: Any) -> None:
    """Read a request and answer it with events, all at once or paced."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    pace_s = float(dict(scope["headers"]).get(PACE_HEADER, b"0")) / 1000
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(NUM_EVENTS):
        if pace_s:
            await asyncio.sleep(pace_s)
        await send({"type": "http.response.body", "body": _EVENT, "more_body": True})
    await send({"type": "http.response.body", "body": _DONE})


def passthrough(origin: str) -> FastAPI:
    """A proxy as one would write it in an afternoon."""

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
        body = json.loads(await request.body())
        client: httpx.AsyncClient = request.app.state.client
        pace = request.headers.get(PACE_HEADER.decode(), "0")
        outgoing = client.build_request("POST", "/v1/chat/completions", json=body, headers={PACE_HEADER.decode(): pace})
        answer = await client.send(outgoing, stream=True)

        async def events() -> AsyncIterator[bytes]:
            try:
                async for data in answer.aiter_raw():
                    yield data
            finally:
                await answer.aclose()

        return StreamingResponse(events(), answer.status_code, media_type=answer.headers.get("content-type"))

    return app


def main(role: str, port: str, origin: str = "") -> None:
    """Serve one of the roles."""
    uvicorn.run(
        passthrough(origin) if role == "passthrough" else upstream,
        host="127.0.0.1",
        port=int(port),
        http="httptools",
        lifespan="on" if role == "passthrough" else "off",
        log_level="error",
        access_log=False,
    )


if __name__ == "__main__":
    os.environ.pop("PYTHONPROFILEIMPORTTIME", None)
    main(*sys.argv[1:])
