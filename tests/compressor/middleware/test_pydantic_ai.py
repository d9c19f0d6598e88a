from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("pydantic_ai")

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from sluice.compressor.middleware import History
from sluice.compressor.middleware.pydantic_ai import SluiceCapability
from tests.compressor.middleware.agents import MODEL, TASK, assert_as_through_the_proxy, in_thread, read_file


async def run(base_url: str, model: Any, *capabilities: SluiceCapability) -> None:
    async with AsyncOpenAI(base_url=base_url, api_key="sk-test") as client:
        await agent(client, model, *capabilities).run(TASK)


def run_sync(base_url: str, *capabilities: SluiceCapability) -> None:
    loop = asyncio.new_event_loop()  # the agent takes the thread's own, and leaves it open
    asyncio.set_event_loop(loop)
    client = AsyncOpenAI(base_url=base_url, api_key="sk-test")
    try:
        agent(client, OpenAIChatModel, *capabilities).run_sync(TASK)
        loop.run_until_complete(client.close())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def agent(client: AsyncOpenAI, model: Any, *capabilities: SluiceCapability) -> Agent[None, str]:
    provider = OpenAIProvider(openai_client=client)
    return Agent(
        model(MODEL, provider=provider), instructions="You read code.", tools=[read_file], capabilities=capabilities
    )


@pytest.mark.parametrize("model", [OpenAIChatModel, OpenAIResponsesModel])
async def test_what_arrives_is_what_the_proxy_sends(model: Any) -> None:
    ours = SluiceCapability(History(timeout_s=60))
    await assert_as_through_the_proxy(lambda url: run(url, model, ours), lambda url: run(url, model))


async def test_sync_what_arrives_is_what_the_proxy_sends() -> None:
    ours = SluiceCapability(History(timeout_s=60))
    await assert_as_through_the_proxy(lambda url: in_thread(run_sync, url, ours), lambda url: in_thread(run_sync, url))
