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
from sluice.eval.fidelity.cases import Case, find_cases, num_tokens, random_at_equal_size
from sluice.eval.fidelity.run import measure
from sluice.eval.fidelity.scorers import ServerScorer, TransformersScorer
from sluice.eval.message import encode
from sluice.eval.policies import make_policy
from sluice.eval.replay import Options, Script, client_messages
from sluice.eval.runner import Selection
from sluice.eval.traces import AGENTS, trace_file
from tests.eval.builders import assistant, recorded, trace_of, user

SHORT_CHARS = 1000
ALL = Selection(tuple(trace_file(agent) for agent in AGENTS))


def silent(phase: str, num_done: int) -> None:
    pass


async def completions(request: web.Request) -> web.Response:
    """A model of words: one is likely if it stood before. Offsets are summed up over what tokens read as."""
    body = await request.json()
    assert body["echo"] is True
    body["prompt"].encode()
    if body["model"] == "short" and len(body["prompt"]) > SHORT_CHARS:
        message = "This model's maximum context length is 9 tokens. However, you requested 10 tokens."
        return web.json_response({"error": {"message": message}}, status=400)
    offsets, values, seen, at = [0], [None], set(), len("<|begin_of_text|>")
    if body["model"] == "plain":
        offsets, values, at = [], [], 0
    for word in body["prompt"].split(" "):
        offsets.append(at)
        values.append(-0.5 if word in seen else -4.0)
        seen.add(word)
        at += len(word) + 1 + 2 * word.count("🎉")  # three tokens, each U+FFFD by itself
    logprobs = {"text_offset": [*offsets, at - 1], "token_logprobs": [*values, -1.0]}
    choice = {"text": "", "logprobs": None if body["model"] == "mute" else logprobs}
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": len(offsets)}})


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


@pytest.mark.parametrize("model", ["plain", "words"])
@pytest.mark.parametrize("context", ["a b ", "a 🎉 b 🎉🎉🎉 "])
async def test_a_server_scores_the_target_alone(server: str, model: str, context: str) -> None:
    async with ServerScorer(f"{server}/v1", model) as scorer:
        assert await scorer.score(context, "a c a", max_target_tokens=9) == [-0.5, -4.0, -0.5]
        assert await scorer.score(context, "a c a", max_target_tokens=2) == [-0.5, -4.0]


class Words:
    """As many log-probabilities as the target has words, and one more for each 'more' in the context."""

    async def score(self, context: str, target: str, *, max_target_tokens: int) -> list[float] | None:
        f"{context}{target}".encode()
        return [-1.0] * (len(target.split()) + context.count("more"))


def case_of(*messages: dict[str, object]) -> Case:
    script = Script.of(trace_of(*messages), Options())
    turn = script.turns[-1]
    return Case("t", script, turn, 0, client_messages(script.trace, turn, Options().cache), [], 1)


async def test_half_a_surrogate_pair_is_no_reason_to_stop() -> None:
    case = case_of(user("half of \ud83c"), assistant("the other \udf89"))
    measured = await measure([case], {"untouched": [case.full]}, Words(), max_target_tokens=9, seed=0, progress=silent)
    assert len(measured.rows) == 1


async def test_tokens_that_cannot_be_compared_are_refused() -> None:
    case = case_of(user("go"), assistant("done"))
    contexts = {"untouched": [case.full], "other": [[encode(user("more"))]]}
    with pytest.raises(ScorerError, match="other numbers of tokens behind different contexts"):
        await measure([case], contexts, Words(), max_target_tokens=9, seed=0, progress=silent)


async def test_turns_that_do_not_fit_the_window_are_left_out_and_counted(server: str) -> None:
    short, long = (case_of(user("go " * num), assistant("it is done")) for num in (1, SHORT_CHARS))
    async with ServerScorer(server, "short") as scorer:
        contexts = {"untouched": [short.full, long.full], "other": [short.full, short.full]}
        measured = await measure([short, long], contexts, scorer, max_target_tokens=9, seed=0, progress=silent)
        assert measured.cases == [short]
        assert [row.size for row in measured.rows] == [1, 1]
        with pytest.raises(ScorerError, match="none of 1 turns fits the model's window"):
            await measure([long], {"untouched": [long.full]}, scorer, max_target_tokens=9, seed=0, progress=silent)


async def test_turns_behind_a_compaction_fit_again(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    long = [user("go"), assistant("so"), user("long " * 4000), assistant("still"), user("more"), assistant("on")]
    after = [user("all that was before", compaction_summary=True), assistant("well"), user("go on"), assistant("done")]
    file.write_text(json.dumps(recorded(*long, *after)))
    found = await find_cases(
        Selection((file,)), make_policy("off"), Options(), num_cases=4, max_tokens=100, progress=silent
    )
    assert found.num_fitting == 3


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
        measured = await measure(found.cases, contexts, scorer, max_target_tokens=64, seed=0, progress=silent)
    full, ours, nothing = measured.rows
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
async def test_a_text_that_does_not_fit_is_not_scored(tiny_model: Path) -> None:
    scorer = TransformersScorer(str(tiny_model))
    assert len(await scorer.score("a", "bcd", max_target_tokens=2)) == 2
    assert await scorer.score("a" * 50_000, "b", max_target_tokens=2) is None


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
