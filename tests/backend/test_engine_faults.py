from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from sluice.backend.base import FinishReason, SamplingParams, TokenOutput
from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.engine import EmbeddedEngine
from sluice.backend.embedded.loading import load_engine
from sluice.backend.embedded.request import Request, send
from sluice.backend.embedded.runner import ModelRunner
from sluice.backend.embedded.scheduler import Scheduler
from sluice.backend.embedded.speculation.prompt_lookup import PromptLookup
from sluice.backend.errors import (
    ContextLengthError,
    EngineClosedError,
    EngineError,
    EngineOverloadedError,
    InvalidRequestError,
)
from tests.backend.engines import GREEDY, collect, make


@pytest.mark.parametrize(
    ("prompt", "params", "kind", "says"),
    [
        ([5] * 512, GREEDY, ContextLengthError, r"512 tokens.*512"),
        ([], GREEDY, InvalidRequestError, "empty"),
        ([5, 999], GREEDY, InvalidRequestError, "prompt has token 999"),
        ([5], SamplingParams(logit_bias={-1: 1.0}), InvalidRequestError, "logit_bias has token -1"),
        ([5], SamplingParams(n=0), InvalidRequestError, "n is 0"),
    ],
)
async def test_what_cannot_be_served_is_refused(
    engine: EmbeddedEngine, prompt: list[int], params: SamplingParams, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        await collect(engine, prompt, params)


async def test_a_failing_step_fails_its_requests_and_the_engine_serves_on(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patched:
        patched.setattr(ModelRunner, "run", fail)
        with pytest.raises(EngineError, match="out of luck"):
            await collect(engine, [5, 6, 7], GREEDY)
    assert (await collect(engine, [5, 6, 7], GREEDY))[1] is FinishReason.LENGTH


async def test_a_failing_draft_costs_its_speed_alone(engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = await collect(engine, [5, 6, 7], GREEDY)

    def fail(*_: object) -> None:
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(PromptLookup, "propose", fail)
    assert await collect(engine, [5, 6, 7], GREEDY) == expected
    assert engine.is_running


@pytest.mark.parametrize(
    ("what", "error"), [((Scheduler, "schedule"), RuntimeError), ((ModelRunner, "run"), torch.AcceleratorError)]
)
async def test_a_mistake_of_its_own_and_a_lost_device_leave_nobody_waiting(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, what: tuple[type, str], error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error("out of order")

    monkeypatch.setattr(*what, fail)
    told: list[str] = []
    engine = load_engine(tiny_folder, EngineConfig(), frozenset(), on_failed=told.append)
    results = await asyncio.gather(*(collect(engine, [5], GREEDY) for _ in range(3)), return_exceptions=True)
    says = f"the engine has stopped: {error.__name__}"
    assert all(isinstance(result, EngineError) and says == str(result) for result in results)
    assert not engine.is_running
    with pytest.raises(EngineClosedError, match=says):
        await collect(engine, [5], GREEDY)
    await engine.aclose()
    assert told == [says]


async def test_more_requests_than_may_wait_are_refused(tiny_folder: Path) -> None:
    engine = make(tiny_folder, EngineConfig(max_num_waiting=1, max_num_sequences=1))
    results = await asyncio.gather(*(collect(engine, [5], GREEDY) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(result, EngineOverloadedError) for result in results) == 2
    await engine.aclose()


async def test_who_has_gone_keeps_nobody_from_being_answered() -> None:
    gone = asyncio.new_event_loop()
    gone.close()
    absent, present = Request([], gone), Request([], asyncio.get_running_loop())
    send([(absent, TokenOutput((1,))), (present, TokenOutput((2,)))])
    async with asyncio.timeout(10):
        assert await present.outputs.get() == TokenOutput((2,))


async def test_closing_ends_what_runs_and_refuses_what_comes(tiny_folder: Path) -> None:
    told: list[str] = []
    engine = load_engine(tiny_folder, EngineConfig(), frozenset(), on_failed=told.append)
    running = [asyncio.create_task(collect(engine, [5], SamplingParams(temperature=0))) for _ in range(3)]
    await asyncio.sleep(0.01)
    await engine.aclose()
    await engine.aclose()
    assert told == [], "closing is no failure"
    results = await asyncio.gather(*running, return_exceptions=True)
    assert all(isinstance(result, EngineClosedError) for result in results)
    with pytest.raises(EngineClosedError):
        await collect(engine, [5], GREEDY)
