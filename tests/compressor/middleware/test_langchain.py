from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_openai")

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

from sluice.compressor.middleware import History
from sluice.compressor.middleware.langchain import SluiceMiddleware
from tests.compressor.middleware.agents import MODEL, TASK, assert_as_through_the_proxy, in_thread, read_file

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
