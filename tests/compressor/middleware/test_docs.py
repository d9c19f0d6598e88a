"""The examples of `docs/middleware.md`, run as they stand."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from pathlib import Path
from typing import Any

import pytest

from tests.compressor.middleware.agents import assert_shortened_and_frozen, messages_of, recording
from tests.proxy.servers import proxy

_DOCS = Path(__file__).parents[3] / "docs" / "middleware.md"
_SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", _DOCS.read_text(), re.MULTILINE | re.DOTALL))

pytestmark = [  # the frameworks' clients are left open by short examples
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def example(title: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", _SECTIONS[title], re.MULTILINE | re.DOTALL))


def run(source: str) -> None:
    """Run an example as a thread's own program would be run."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        exec(compile(source, str(_DOCS), "exec"), {"__name__": "__main__"})
    finally:
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
        gc.collect()


@pytest.mark.parametrize(
    ("title", "needs"),
    [
        ("LangChain and LangGraph", "langchain_openai"),
        ("OpenAI Agents SDK", "agents"),
        ("Pydantic AI", "pydantic_ai"),
        ("LiteLLM", "litellm"),
        ("mini-swe-agent", "minisweagent"),
    ],
)
async def test_each_frameworks_example_sends_a_shorter_history(
    title: str, needs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSWEA_SILENT_STARTUP", "1")
    pytest.importorskip(needs, reason="`make test-middleware` runs this apart")
    async with recording() as upstream:
        for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
            monkeypatch.setenv(name, f"{upstream.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        await asyncio.to_thread(run, example(title))
        assert_shortened_and_frozen(messages_of(upstream))


def test_an_example_of_what_is_done_once(capsys: pytest.CaptureFixture[Any]) -> None:
    run(example("Once, on demand"))
    printed = capsys.readouterr().out
    assert "step 311: FAILED" in printed
    assert "lines omitted" in printed


async def test_clients_that_need_only_a_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    async with recording() as upstream, proxy(upstream.url) as client:
        monkeypatch.setenv("SLUICE_URL", str(client.base_url.join("v1")))
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        await asyncio.to_thread(run, example("Only a `base_url`"))
        first, second = messages_of(upstream)
    assert first == second


def test_the_settings_in_the_introduction_are_known() -> None:
    introduction = _DOCS.read_text().partition("\n## ")[0]
    run("\n".join(re.findall(r"^```python\n(.*?)^```", introduction, re.MULTILINE | re.DOTALL)))
