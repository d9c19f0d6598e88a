"""A scorer in a process of its own: several proxies share one model and one GPU, and their requests one batch.

A bare ASGI application. Knows no conversation and no text: token ids come in, logits go out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import Future

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import Receive, Scope, Send

from sluice.backend.hosts import may_name_host
from sluice.compressor.scoring.neural.batcher import Batcher
from sluice.compressor.scoring.neural.scores import Fallback, NotScoredError
from sluice.compressor.scoring.neural.types import Floats
from sluice.proxy.errors import BodyTooLargeError
from sluice.proxy.headers import find
from sluice.proxy.receive import ClientGoneError, read_body
from sluice.proxy.scorer.wire import (
    CONTENT_TYPE,
    HEALTH_PATH,
    SCORES_PATH,
    Health,
    decode_windows,
    encode_scores,
)

MAX_BODY_BYTES = 32 * 2**20
MAX_WITHIN_S = 60.0
"""Nobody is waited for longer."""
_JSON, _TEXT = "application/json", "text/plain; version=0.0.4; charset=utf-8"
_BATCH_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0, 10.0)


class ScorerApp:
    """The application; the batcher starts and ends with it.

    Args:
        batcher: not started.
        host: what it listens on.
    """

    def __init__(self, batcher: Batcher, host: str) -> None:
        self._batcher = batcher
        self._host = host
        self._registry = CollectorRegistry()
        self._windows = Counter(
            "sluice_scorer_windows", "Windows by outcome: scored, or why not.", ["outcome"], registry=self._registry
        )
        self._tokens = Counter(
            "sluice_scorer_tokens", "Tokens of the windows that were scored.", registry=self._registry
        )
        self._answer_s = Histogram(
            "sluice_scorer_answer_seconds",
            "From a request's arrival to its answer.",
            buckets=_BATCH_BUCKETS_S,
            registry=self._registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            try:
                status, content_type, body = await self._answer(scope, receive)
            except ClientGoneError:
                return
            length = (b"content-length", b"%d" % len(body))
            headers = [(b"content-type", content_type.encode()), length]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._batcher.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._batcher.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, str, bytes]:
        headers = scope["headers"]
        if not may_name_host(find(headers, b"host"), self._host, ()):
            return _problem(403, "this host is not served here")
        match scope["method"], scope["path"]:
            case "POST", path if path == SCORES_PATH:
                try:
                    raw = await read_body(receive, find(headers, b"content-length"), MAX_BODY_BYTES)
                except BodyTooLargeError as error:
                    return _problem(413, str(error))
                return await self._scores(raw)
            case "GET", path if path == HEALTH_PATH:
                return self._health()
            case "GET", "/metrics":
                return 200, _TEXT, generate_latest(self._registry)
        return _problem(404, f"nothing is served at {scope['method']} {scope['path']}")

    def _health(self) -> tuple[int, str, bytes]:
        model = self._batcher.model
        if model is None:
            return _problem(503, "no model could be loaded" if self._batcher.has_failed else "the model is loading")
        tokens_per_s = 1 / max(self._batcher.pace.per_token_s, 1e-9)
        return 200, _JSON, msgspec.json.encode(Health(model.name, model.version, tokens_per_s))

    async def _scores(self, raw: bytes) -> tuple[int, str, bytes]:
        model = self._batcher.model
        if model is None:
            return self._health()
        started_s = asyncio.get_running_loop().time()
        try:
            windows, within_s = decode_windows(raw, model.max_window_tokens)
        except ValueError as error:
            return _problem(400, str(error))
        within_s = min(within_s, MAX_WITHIN_S)
        futures = self._batcher.submit(windows, within_s)
        await _all_done(futures, within_s)
        found = [_outcome(future) for future in futures]
        for window, one in zip(windows, found, strict=True):
            self._windows.labels(one.value if isinstance(one, Fallback) else "scored").inc()
            self._tokens.inc(0 if isinstance(one, Fallback) else len(window.token_ids))
        self._answer_s.observe(asyncio.get_running_loop().time() - started_s)
        return 200, CONTENT_TYPE, encode_scores(model.version, found)


async def _all_done(futures: Sequence[Future[Floats]], within_s: float) -> None:
    """Wait until all of them are answered, or for so many seconds."""
    loop, is_done, num_left = asyncio.get_running_loop(), asyncio.Event(), len(futures)

    def count() -> None:
        nonlocal num_left
        num_left -= 1
        if num_left == 0:
            is_done.set()

    def tell(_: Future[Floats]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(count)

    for future in futures:
        future.add_done_callback(tell)
    if futures:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await is_done.wait()


def _outcome(future: Future[Floats]) -> Floats | Fallback:
    if not future.done():
        future.cancel()
        return Fallback.DEADLINE
    if future.cancelled():
        return Fallback.DEADLINE
    error = future.exception()
    if error is not None:
        return error.reason if isinstance(error, NotScoredError) else Fallback.ERROR
    return future.result()


def _problem(status: int, message: str) -> tuple[int, str, bytes]:
    return status, _JSON, msgspec.json.encode({"error": {"message": message, "code": status}})
