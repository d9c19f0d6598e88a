from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("pydantic_ai")

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from sluice.compressor.middleware import History
from sluice.compressor.middleware.pydantic_ai import SluiceCapability
from tests.compressor.middleware.agents import MODEL, TASK, assert_as_through_the_proxy, in_thread, read_call, read_file


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


async def test_with_a_model_of_any_provider_the_run_keeps_what_was_received() -> None:
    sent: list[list[Any]] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        sent.append(
            [part.content for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        )
        if len(sent) < 4:
            return ModelResponse([ToolCallPart("read_file", read_call(0), tool_call_id=f"c{len(sent)}")])
        return ModelResponse([TextPart("done")])

    ours = SluiceCapability(History(timeout_s=60))
    run = await Agent(FunctionModel(answer), tools=[read_file], capabilities=[ours], system_prompt="Read.").run(TASK)
    assert [len(results) for results in sent] == [0, 1, 2, 3]
    assert sent[3][:2] == sent[2]
    assert "lines as in message" in sent[3][1]
    kept = [
        part.content
        for message in run.all_messages()
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]
    assert kept == [read_file(**read_call(0))] * 3
