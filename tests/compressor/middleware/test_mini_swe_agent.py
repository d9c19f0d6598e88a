from __future__ import annotations

import os
from typing import Any

import pytest

os.environ.setdefault("MSWEA_SILENT_STARTUP", "1")
pytest.importorskip(
    "minisweagent", reason="mini-swe-agent's pins clash with the engine's: `make test-middleware` runs this apart"
)

from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.local import LocalEnvironment
from minisweagent.models.litellm_model import LitellmModel

from sluice.compressor.middleware import History
from sluice.compressor.middleware.mini_swe_agent import SluiceLitellmModel
from tests.compressor.middleware.agents import MODEL, TASK, assert_as_through_the_proxy, in_thread

pytestmark = pytest.mark.filterwarnings("default")  # litellm warns of itself


def play(base_url: str, model: Any, **options: Any) -> None:
    model = model(
        model_name=f"openai/{MODEL}",
        model_kwargs={"base_url": base_url, "api_key": "sk-test"},
        cost_tracking="ignore_errors",
        **options,
    )
    agent = DefaultAgent(
        model, LocalEnvironment(), system_template="You read code.", instance_template="{{task}}", step_limit=6
    )
    agent.run(TASK)


async def test_what_arrives_is_what_the_proxy_sends() -> None:
    history = History(timeout_s=60)
    await assert_as_through_the_proxy(
        lambda url: in_thread(lambda: play(url, SluiceLitellmModel, history=history)),
        lambda url: in_thread(play, url, LitellmModel),
    )
