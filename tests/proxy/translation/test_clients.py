"""What is emitted, read by the official clients."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.wire import WireName
from tests.effort import examples
from tests.proxy.translation.wires import Said, answering, translating

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NAMES = ("read", "edit")
CALLS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.dictionaries(TEXT, TEXT | st.integers(-9, 9) | st.none(), max_size=3)),
    max_size=3,
).map(lambda calls: [(f"call_{number}", name, value) for number, (name, value) in enumerate(calls)])
SAID = st.builds(Said, TEXT, CALLS, TEXT)
SCHEMA: dict[str, object] = {"type": "object", "properties": {}}


class Clients:
    """The official clients, made once, as that takes them long."""

    def __init__(self, url: str) -> None:
        self.anthropic = anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0, timeout=30)
        self.openai = openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0, timeout=30)

    async def aclose(self) -> None:
        await self.anthropic.close()
        await self.openai.close()


async def through_anthropic(clients: Clients, *, stream: bool) -> Said:
    client = clients.anthropic
    request: Any = {
        "model": "m",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"name": name, "input_schema": SCHEMA} for name in NAMES],
        "thinking": {"type": "adaptive"},
    }
    if stream:
        async with client.messages.stream(**request) as events:
            message: Any = await events.get_final_message()
    else:
        message = await client.messages.create(**request)
    assert message.stop_reason == (
        "tool_use" if message.content[-1:] and message.content[-1].type == "tool_use" else "end_turn"
    )
    usage = message.usage
    assert (usage.input_tokens, usage.output_tokens) == (10, 20)
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (80, 10)
    said = Said()
    for block in message.content:
        if block.type == "text":
            said.text += block.text
        elif block.type == "thinking":
            assert block.signature
            said.thinking += block.thinking
        else:
            said.calls.append((block.id, block.name, block.input))
    return said


async def through_responses(clients: Clients, *, stream: bool) -> Said:
    client = clients.openai
    tools: Any = [{"type": "function", "name": name, "parameters": SCHEMA, "strict": False} for name in NAMES]
    if stream:
        async with client.responses.stream(model="m", input="hi", tools=tools) as events:
            numbers = [event.sequence_number async for event in events]
            response: Any = await events.get_final_response()
        assert sorted(set(numbers)) == list(range(max(numbers) + 1))
    else:
        response = await client.responses.create(model="m", input="hi", tools=tools)
    assert response.status == "completed"
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens) == (100, 20, 80)
    said = Said(response.output_text)
    for item in response.output:
        if item.type == "reasoning":
            said.thinking += "".join(part.text for part in item.content)
        elif item.type == "function_call":
            said.calls.append((item.call_id, item.name, json.loads(item.arguments)))
    return said


async def through_chat(clients: Clients, *, stream: bool) -> Said:
    client = clients.openai
    request: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    if stream:
        options = {"include_usage": True}
        async with client.chat.completions.stream(**request, stream_options=options) as events:
            completion: Any = await events.get_final_completion()
    else:
        completion = await client.chat.completions.create(**request)
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens) == (
        100,
        20,
        80,
    )
    message = completion.choices[0].message
    assert completion.choices[0].finish_reason == ("tool_calls" if message.tool_calls else "stop")
    calls = [(call.id, call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]
    return Said(message.content or "", calls, getattr(message, "reasoning_content", None) or "")


WAYS = {
    (WireName.MESSAGES, WireName.CHAT): through_anthropic,
    (WireName.RESPONSES, WireName.CHAT): through_responses,
    (WireName.CHAT, WireName.MESSAGES): through_chat,
    (WireName.RESPONSES, WireName.MESSAGES): through_responses,
}


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_text_calls_thinking_and_usage_arrive_streamed_and_plain_alike(source: WireName, target: WireName) -> None:
    with asyncio.Runner() as runner, ExitStack() as stack:
        server = translating(target, answering(Said(), target))
        url, app = runner.run(server.__aenter__())
        stack.callback(lambda: runner.run(server.__aexit__(None, None, None)))
        clients = Clients(url)
        stack.callback(lambda: runner.run(clients.aclose()))

        @given(SAID, st.integers(1, 40))
        @examples(10)
        def check(said: Said, split: int) -> None:
            app.answer = answering(said, target, split=split)
            streamed = runner.run(WAYS[source, target](clients, stream=True))
            plain = runner.run(WAYS[source, target](clients, stream=False))
            assert streamed == plain == said

        check()
