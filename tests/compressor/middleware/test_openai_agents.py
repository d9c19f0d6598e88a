from __future__ import annotations

import pytest

pytest.importorskip("agents")

from agents import Agent, ModelSettings, OpenAIResponsesModel, RunConfig, Runner, function_tool
from openai import AsyncOpenAI

from sluice.compressor.middleware import History
from sluice.compressor.middleware.openai_agents import SluiceFilter
from tests.compressor.middleware.agents import MODEL, TASK, assert_as_through_the_proxy, read_file


async def run(base_url: str, ours: SluiceFilter | None = None) -> None:
    async with AsyncOpenAI(base_url=base_url, api_key="sk-test") as client:
        agent = Agent(
            name="reader",
            instructions="You read code.",
            model=OpenAIResponsesModel(MODEL, client),
            model_settings=ModelSettings(store=False),
            tools=[function_tool(read_file)],
        )
        await Runner.run(agent, TASK, run_config=RunConfig(call_model_input_filter=ours, tracing_disabled=True))


async def test_what_arrives_is_what_the_proxy_sends() -> None:
    ours = SluiceFilter(History(timeout_s=60))
    await assert_as_through_the_proxy(lambda url: run(url, ours), run)
