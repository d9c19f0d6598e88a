"""A stand-in that speaks as vLLM's pooling endpoint does; no real vLLM."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sluice.compressor.scoring.neural.head import Head
from sluice.compressor.scoring.neural.scores import Fallback
from sluice.proxy.scorer.client import RemoteScores
from sluice.proxy.scorer.vllm import VllmWire
from tests.compressor.scoring.neural.tiny import write_model
from tests.proxy.scorer.test_remote import ask, until, window
from tests.proxy.servers import Exchange, ScriptedUpstream, serving

HIDDEN = 16


def head() -> Head:
    draw = np.random.default_rng(3)
    return Head(*(draw.normal(size=shape).astype(np.float32) for shape in (HIDDEN, HIDDEN, (2, HIDDEN), 2)))


def states_of(token_ids: list[int]) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    table = np.random.default_rng(4).normal(size=(100, HIDDEN))
    return table[token_ids].astype("<f2")


class Vllm(ScriptedUpstream):
    """Answers /v1/models and /pooling."""

    def __init__(self, name: str = "sluice-scorer-7", num_lost: int = 0) -> None:
        super().__init__()
        self._name = name
        self._num_lost = num_lost
        self.answer = self._answer

    async def _answer(self, exchange: Exchange) -> None:
        if exchange.path == "/v1/models":
            body = {"object": "list", "data": [{"id": self._name, "object": "model"}]}
        else:
            asked = exchange.json
            assert exchange.path == "/pooling"
            assert (asked["task"], asked["use_activation"], asked["add_special_tokens"]) == (
                "token_embed",
                False,
                False,
            )
            data = [
                {
                    "index": index,
                    "object": "pooling",
                    "data": base64.b64encode(states_of(ids[self._num_lost :]).tobytes()).decode(),
                }
                for index, ids in enumerate(asked["input"])
            ]
            body = {"id": "pool-1", "object": "list", "model": self._name, "data": data[::-1], "usage": {}}
        await exchange.whole(json.dumps(body).encode())


async def test_the_head_is_applied_to_the_states_that_vllm_gives() -> None:
    async with serving(Vllm()) as url:
        scores = RemoteScores(url, VllmWire("7", head()))
        scores.start()
        await until(lambda: scores.is_admitted)
        found = await ask(scores)
        asked = window()
        expected = head().logits(states_of(asked.token_ids.tolist())[asked.line_ends])
        assert isinstance(found, np.ndarray)
        assert np.allclose(found, expected)
        await scores.aclose()


@pytest.mark.parametrize("upstream", [Vllm("another-model"), Vllm(num_lost=1)])
async def test_another_model_or_other_tokens_are_no_answer(upstream: Vllm, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(upstream) as url:
        scores = RemoteScores(url, VllmWire("7", head()))
        scores.start()
        await until(lambda: scores.is_admitted or "scorer_not_ready" in caplog.text)
        assert await ask(scores) in (Fallback.LOADING, Fallback.DOWN)
        await scores.aclose()


@pytest.mark.engine
def test_what_is_exported_gives_the_states_that_the_head_was_trained_on(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    from sluice.compressor.scoring.neural.head import read_head
    from sluice.compressor.scoring.neural.model_file import read_network

    folder = write_model(tmp_path / "model")
    command = [sys.executable, "-m", "sluice.proxy.scorer.cli", "export", str(tmp_path / "out"), "--model", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--runner pooling --served-model-name sluice-scorer-" in done.stdout
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    asked = window()
    ids = torch.from_numpy(asked.token_ids.astype(np.int64))[None]
    with torch.no_grad():
        states = AutoModel.from_pretrained(tmp_path / "out").eval()(input_ids=ids).last_hidden_state[0]
        ends = torch.from_numpy(asked.line_ends.astype(np.int64))
        rows = torch.zeros(len(ends), dtype=torch.int64)
        expected = read_network(folder)(ids, torch.tensor([ids.shape[1]]), rows, ends)
    found = read_head(folder).logits(states.numpy()[asked.line_ends])
    assert np.allclose(found, expected.numpy(), atol=1e-4)
