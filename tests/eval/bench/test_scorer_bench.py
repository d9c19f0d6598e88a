from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sluice.compressor.scoring.feature_scorer import load_default
from sluice.eval.bench.scorer import features
from sluice.eval.bench.scorer.cli import scorer
from sluice.eval.data import read_traces
from tests.compressor.scoring.neural.doubles import SHAPE, Coins

TRACES = Path(__file__).parents[3] / "eval" / "traces"


def test_features_are_measured_on_what_arrives() -> None:
    found = features.measure(load_default(), read_traces(TRACES / "opencode.jsonl"), max_tokens=1e9)
    assert found.num_results > 5
    assert found.num_lines > found.num_results
    assert found.num_tokens > 0
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "traces.jsonl:1:"), ('{"messages": [{"role": "user", "content": "go"}]}', "no tool result in")],
)
def test_traces_that_have_nothing_to_score_are_named(text: str, says: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "traces.jsonl").write_text(text)
    done = CliRunner().invoke(scorer, ["--device", "cpu", "--traces", str(tmp_path / "traces.jsonl")])
    assert done.exit_code == 1, done.output
    assert says in done.output


@pytest.mark.engine
def test_every_window_of_every_caller_has_an_outcome() -> None:
    pytest.importorskip("torch")
    from sluice.eval.bench.scorer import concurrent

    batcher = concurrent.started(Coins())
    found = concurrent.measure(batcher, num_at_once=4, num_each=5, deadline_s=20.0, max_window_tokens=SHAPE.max_tokens)
    batcher.close()
    assert len(found.seconds) == 20
    assert found.outcomes["scored"] == sum(found.outcomes.values()) >= 20
    assert found.share_scored == 1
    assert found.percentile_ms(50) <= found.percentile_ms(95)


@pytest.mark.engine
@pytest.mark.parametrize("is_causal", [True, False])
def test_the_bound_counts_what_has_to_be_multiplied(is_causal: bool) -> None:
    pytest.importorskip("torch")
    from sluice.compressor.scoring.neural.layers import Sizes
    from sluice.compressor.scoring.neural.packing import pack
    from sluice.eval.bench.scorer.shapes import random_window
    from sluice.eval.bench.scorer.speed import flops_of

    sizes = Sizes(hidden_size=8, intermediate_size=20, num_heads=2, num_kv_heads=1, head_dim=4, eps=1e-5)
    window = random_window(np.random.default_rng(0), 50)
    layout = pack([window], is_shared=is_causal)
    products = 0
    for token in range(50):
        for layer in range(3):
            products += 8 * (2 + 2) * 4  # queries, keys, values
            num_read = token + 1 if is_causal else 50
            products += 2 * num_read * 8  # scores, and the sum of values
            if layer < 2 or token in window.line_ends:
                products += 8 * 8 + (3 if is_causal else 2) * 8 * 20
    assert flops_of(sizes, 3, layout, is_causal=is_causal) == 2 * products
