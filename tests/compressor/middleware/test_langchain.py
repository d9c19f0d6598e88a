from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_openai")

from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

from sluice.compressor.middleware import History
from sluice.compressor.middleware.langchain import SluiceMiddleware
from tests.compressor.middleware.agents import MODEL, TASK, assert_as_through_the_proxy, in_thread, read_call, read_file

ASKED: Any = {"messages": [{"role": "user", "content": TASK}]}


def agent(base_url: str, *middleware: SluiceMiddleware, **options: Any) -> Any:
    model = ChatOpenAI(model=MODEL, base_url=base_url, api_key="sk-test", **options)
    return create_agent(model, tools=[read_file], system_prompt="You read code.", middleware=middleware)


@pytest.mark.parametrize("options", [{}, {"use_responses_api": True}], ids=["chat", "responses"])
async def test_sync_what_arrives_is_what_the_proxy_sends(options: Any) -> None:
    ours = SluiceMiddleware(History(timeout_s=60))
    await assert_as_through_the_proxy(
        lambda url: in_thread(agent(url, ours, **options).invoke, ASKED),
        lambda url: in_thread(agent(url, **options).invoke, ASKED),
    )


async def test_async_what_arrives_is_what_the_proxy_sends() -> None:
    ours = SluiceMiddleware(History(timeout_s=60))
    await assert_as_through_the_proxy(
        lambda url: agent(url, ours).ainvoke(ASKED), lambda url: agent(url).ainvoke(ASKED)
    )


def test_with_a_model_of_any_provider_and_results_in_blocks() -> None:
    text = read_file(**read_call(0))
    messages: list[Any] = [HumanMessage(TASK)]
    for call_id in ("a", "b"):
        call = {"name": "read_file", "args": read_call(0), "id": call_id}
        messages += [
            AIMessage("", tool_calls=[call]),
            ToolMessage([{"type": "text", "text": text}, {"type": "text", "text": "end"}], tool_call_id=call_id),
        ]
    sent: list[ModelRequest[Any]] = []
    ours = SluiceMiddleware(History(timeout_s=60))
    request: Any = ModelRequest(model=GenericFakeChatModel(messages=iter(())), messages=messages)
    ours.wrap_model_call(request, lambda request: sent.append(request))  # type: ignore[arg-type, return-value]
    first, again = sent[0].messages[2].content, sent[0].messages[4].content
    assert len(str(again)) < len(str(first)) <= len(str(messages[2].content))
    assert again[1] == {"type": "text", "text": "end"}
    assert "lines as in message" in str(again)
    assert messages[4].content[0]["text"] == text


def test_messages_that_cannot_be_read_are_the_models_to_refuse() -> None:
    sent: list[ModelRequest[Any]] = []
    model = ChatOpenAI(model=MODEL, api_key="sk-test")
    request: Any = ModelRequest(model=model, messages=[object()])  # type: ignore[list-item]
    SluiceMiddleware().wrap_model_call(request, lambda request: sent.append(request))  # type: ignore[arg-type, return-value]
    assert sent == [request]
