"""Likelihoods under two contexts: from a server, and from a model in this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from click.testing import CliRunner

from sluice.eval.cli import evaluate
from sluice.eval.errors import ScorerError
from sluice.eval.fidelity.cases import find_cases, num_tokens, random_at_equal_size
from sluice.eval.fidelity.run import measure
from sluice.eval.fidelity.scorers import ServerScorer, TransformersScorer
from sluice.eval.policies import make_policy
from sluice.eval.replay import Options
from sluice.eval.runner import Selection
from sluice.eval.traces import AGENTS, trace_file

ALL = Selection(tuple(trace_file(agent) for agent in AGENTS))


def silent(phase: str, num_done: int) -> None:
    pass


async def completions(request: web.Request) -> web.Response:
    """A model of words: one is likely if it stood before."""
    body = await request.json()
    assert body["echo"] is True
    offsets, values, seen, at = [], [], set(), 0
    for word in body["prompt"].split(" "):
        offsets.append(at)
        values.append(-0.5 if word in seen else -4.0)
        seen.add(word)
        at += len(word) + 1
    logprobs = {"text_offset": [*offsets, len(body["prompt"])], "token_logprobs": [*values, -1.0]}
    return web.json_response({"choices": [{"text": "", "logprobs": logprobs if body["model"] == "words" else None}]})


@pytest_asyncio.fixture
async def server() -> AsyncIterator[str]:
    app = web.Application(client_max_size=2**30)
    app.router.add_post("/v1/completions", completions)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_server_scores_the_target_alone(server: str) -> None:
    async with ServerScorer(f"{server}/v1", "words") as scorer:
        assert await scorer.score("a b ", "a c a", max_target_tokens=9) == [-0.5, -4.0, -0.5]
        assert await scorer.score("a b ", "a c a", max_target_tokens=2) == [-0.5, -4.0]


async def test_a_server_without_log_probabilities_is_named(server: str) -> None:
    async with ServerScorer(server, "mute") as scorer:
        with pytest.raises(ScorerError, match="it has to serve `echo` with `logprobs`"):
            await scorer.score("a ", "b", max_target_tokens=9)
    async with ServerScorer(f"{server}/nothing", "words") as scorer:
        with pytest.raises(ScorerError, match="answered 404"):
            await scorer.score("a ", "b", max_target_tokens=9)


async def test_what_is_dropped_is_less_expected_and_the_full_context_is_the_measure(server: str) -> None:
    options = Options()
    judged = make_policy("balanced")
    found = await find_cases(ALL, judged, options, num_cases=8, max_tokens=10_000, progress=silent)
    assert len(found.cases) == 8 <= found.num_changed <= found.num_fitting
    probability, random = await random_at_equal_size(found.cases, options)
    assert 0 < probability < 1
    assert num_tokens(random) == pytest.approx(num_tokens(case.forwarded for case in found.cases), rel=0.1)
    contexts = {
        "untouched": [case.full for case in found.cases],
        "balanced": [case.forwarded for case in found.cases],
        "nothing": [case.full[:1] for case in found.cases],
    }
    async with ServerScorer(server, "words") as scorer:
        full, ours, nothing = await measure(
            found.cases, contexts, scorer, max_target_tokens=64, seed=0, progress=silent
        )
    assert full.change is not None
    assert ours.change is not None
    assert nothing.change is not None
    assert (full.change.value, full.size, full.share_worse) == (0, 1, 0)
    assert 0 <= ours.change.value < nothing.change.value
    assert nothing.size < ours.size < 1


@pytest.mark.engine
def test_the_command_prints_and_writes(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "out.json"
    arguments = ["fidelity", *map(str, ALL.paths), "--turns", "3", "--max-target-tokens", "8", "--max-tokens", "1500"]
    result = CliRunner().invoke(
        evaluate, [*arguments, "--model", str(tiny_model), "--json", str(file)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    data = json.loads(file.read_text())
    assert [row["policy"] for row in data["contexts"]] == ["untouched", "balanced", "random at equal size", "mask-0"]
    assert data["contexts"][0]["change"]["value"] == 0
    assert "random deletion drops a line with probability" in result.output


@pytest.mark.engine
async def test_a_text_that_does_not_fit_is_refused(tiny_model: Path) -> None:
    scorer = TransformersScorer(str(tiny_model))
    assert len(await scorer.score("a", "bcd", max_target_tokens=2)) == 2
    with pytest.raises(ScorerError, match="do not fit the model's window"):
        await scorer.score("a" * 50_000, "b", max_target_tokens=2)


@pytest.mark.engine
def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    arguments = ["fidelity", str(ALL.paths[0]), "--model", str(tmp_path / "none")]
    result = CliRunner().invoke(evaluate, arguments)
    assert result.exit_code == 1
    assert "cannot be loaded" in result.output


def test_a_server_needs_a_models_name() -> None:
    result = CliRunner().invoke(evaluate, ["fidelity", str(ALL.paths[0]), "--url", "http://127.0.0.1:1"])
    assert result.exit_code == 2
    assert "--url needs --model" in result.output


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.backend.conftest import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("model"), window=32_768)
