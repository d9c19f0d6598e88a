"""Times streams of an OpenAI server: first token, tokens after it, and all of them together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import msgspec

from sluice.backend.bench.workload import Prompt
from sluice.backend.errors import BackendError


@dataclass(frozen=True, slots=True)
class StreamTiming:
    """One stream."""

    ttft_ms: float
    duration_s: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Streams that ran at once."""

    streams: Sequence[StreamTiming]
    duration_s: float

    @property
    def tokens_per_s(self) -> float:
        """Output of all streams together."""
        return sum(stream.num_tokens for stream in self.streams) / self.duration_s

    @property
    def ttft_ms(self) -> float:
        """Mean time to the first token."""
        return sum(stream.ttft_ms for stream in self.streams) / len(self.streams)

    @property
    def itl_ms(self) -> float:
        """Mean time from token to token after the first."""
        times = [
            (stream.duration_s * 1000 - stream.ttft_ms) / (stream.num_tokens - 1)
            for stream in self.streams
            if stream.num_tokens > 1
        ]
        return sum(times) / len(times) if times else 0.0


class BenchClient:
    """One server; `base_url` without `/v1`."""

    def __init__(self, base_url: str) -> None:
        timeout = httpx.Timeout(connect=10, read=600, write=60, pool=600)
        limits = httpx.Limits(max_connections=None)
        self.base_url = base_url
        self._http = httpx.AsyncClient(base_url=base_url, timeout=timeout, limits=limits, trust_env=False)
        self._model = ""

    async def connect(self) -> str:
        """Ask what is served; returns the model's name. Raises BackendError."""
        try:
            response = await self._http.get("/v1/models")
            self._model = response.raise_for_status().json()["data"][0]["id"]
        except (httpx.HTTPError, ValueError, LookupError) as error:
            raise BackendError(f"{self._http.base_url} serves no model list: {error!r}") from None
        return self._model

    async def run(self, prompts: Sequence[Prompt]) -> Timing:
        """Stream all at once, greedily. Raises BackendError."""
        start_s = time.perf_counter()
        try:
            streams = await asyncio.gather(*(self._stream(prompt) for prompt in prompts))
        except httpx.HTTPError as error:
            raise BackendError(f"{self._http.base_url} fails: {error!r}") from None
        return Timing(streams, time.perf_counter() - start_s)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _stream(self, prompt: Prompt) -> StreamTiming:
        body = {
            "model": self._model,
            "prompt": prompt.text,
            "max_tokens": prompt.num_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        start_s = time.perf_counter()
        first_s, usage = None, None
        async with self._http.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                raise BackendError(f"{self._http.base_url} answers {response.status_code}: {await response.aread()!r}")
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = msgspec.json.decode(line.removeprefix("data: "))
                if "error" in event:
                    raise BackendError(f"{self._http.base_url} fails: {event['error']}")
                usage = event.get("usage") or usage
                if first_s is None and any(choice["text"] or choice["finish_reason"] for choice in event["choices"]):
                    first_s = time.perf_counter()
        end_s = time.perf_counter()
        if usage is None or first_s is None:
            raise BackendError(f"{self._http.base_url} sends no usage at the end of a stream")
        return StreamTiming((first_s - start_s) * 1000, end_s - start_s, usage["completion_tokens"])
