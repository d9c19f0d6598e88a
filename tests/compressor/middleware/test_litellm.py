from __future__ import annotations

import json
from typing import Any

import pytest

litellm = pytest.importorskip(
    "litellm", reason="litellm's pins clash with the engine's: `make test-middleware` runs this apart"
)

from sluice.compressor.middleware import History
from sluice.compressor.middleware.litellm import SluiceLiteLLM
from tests.compressor.middleware.agents import MODEL, TASK, assert_as_through_the_proxy, in_thread, read_file

pytestmark = pytest.mark.filterwarnings("default")  # litellm warns of itself

TOOL = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}


def options(base_url: str) -> dict[str, Any]:
    return {"model": f"openai/{MODEL}", "tools": [TOOL], "base_url": base_url, "api_key": "sk-test"}


def results(message: Any) -> list[Any]:
    return [
        {"role": "tool", "tool_call_id": call.id, "content": read_file(**json.loads(call.function.arguments))}
        for call in message.tool_calls or ()
    ]


def play(base_url: str, completion: Any) -> None:
    messages: list[Any] = [{"role": "user", "content": TASK}]
    while messages[-1]["role"] != "assistant":
        message = completion(messages=messages, **options(base_url)).choices[0].message
        messages += [message, *results(message)]


async def play_async(base_url: str, acompletion: Any) -> None:
    messages: list[Any] = [{"role": "user", "content": TASK}]
    while messages[-1]["role"] != "assistant":
        message = (await acompletion(messages=messages, **options(base_url))).choices[0].message
        messages += [message, *results(message)]


async def test_sync_what_arrives_is_what_the_proxy_sends() -> None:
    ours = SluiceLiteLLM(History(timeout_s=60))
    await assert_as_through_the_proxy(
        lambda url: in_thread(play, url, ours.completion), lambda url: in_thread(play, url, litellm.completion)
    )


async def test_async_what_arrives_is_what_the_proxy_sends() -> None:
    ours = SluiceLiteLLM(History(timeout_s=60))
    await assert_as_through_the_proxy(
        lambda url: play_async(url, ours.acompletion), lambda url: play_async(url, litellm.acompletion)
    )
