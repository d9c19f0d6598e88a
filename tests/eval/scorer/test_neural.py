from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("lightgbm")

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.forest import read_forest
from sluice.compressor.scoring.neural.bases import Base, find_base
from sluice.compressor.scoring.neural.card import read_card, read_combination
from sluice.compressor.scoring.neural.lora import adapters, add_adapters, merge
from sluice.compressor.scoring.neural.model_file import read_network
from sluice.compressor.scoring.neural.network import load_network
from sluice.compressor.scoring.neural.torch_model import TorchModel
from sluice.eval.scorer.combine import combine
from sluice.eval.scorer.combined import FEATURES
from sluice.eval.scorer.corpus import Corpus, concatenated, read_corpus, write_corpus
from sluice.eval.scorer.device import DeviceCorpus, length_batches
from sluice.eval.scorer.fit import Plan, fit, score
from sluice.eval.scorer.frontier import frontier
from sluice.eval.scorer.learning_curve import learning_curve
from sluice.eval.scorer.prepare import prepare
from sluice.eval.scorer.splits import left_out, repository_of
from sluice.eval.scorer.train_neural import line_weights, ready, train_neural
from sluice.eval.traces import AGENTS, trace_file

TRACES = [str(trace_file(agent)) for agent in AGENTS]
CPU = torch.device("cpu")


def write_base(folder: Path, kind: str) -> Path:
    """A base of a few thousand random weights, whose tokens are bytes."""
    folder.mkdir()
    special = ["[PAD]", "[CLS]", "[SEP]"] if kind == "bert" else ["<|endoftext|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate([*special, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "bert":
        BertModel(BertConfig(**sizes, intermediate_size=32)).save_pretrained(folder)
    else:
        LlamaModel(LlamaConfig(**sizes, intermediate_size=32, num_key_value_heads=1)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    kind = getattr(request, "param", "bert")
    return find_base(str(write_base(tmp_path_factory.mktemp("bases") / kind, kind)))


of_each_base = pytest.mark.parametrize("base", ["bert", "llama"], indirect=True, scope="module")
"""What asks the base for more than its numbers; training takes too long to be done twice."""


@pytest.fixture(scope="module")
def prepared(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    done = CliRunner().invoke(prepare, [*TRACES, "--base", str(base.folder), "--out", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def corpora(prepared: Path) -> list[Path]:
    return sorted(prepared.glob("*.corpus"))


@pytest.fixture(scope="module")
def corpus(corpora: list[Path]) -> Corpus:
    return concatenated([read_corpus(path) for path in corpora])


@of_each_base
def test_a_corpus_holds_every_line_that_is_needed(corpus: Corpus, tmp_path: Path) -> None:
    assert {group.agent for group in corpus.groups} >= set(AGENTS)
    assert corpus.is_quoted.any()
    assert corpus.num_words.any()
    assert not (corpus.is_quoted & ~corpus.is_line_fact).any()
    write_corpus(tmp_path / "same.corpus", corpus)
    again = read_corpus(tmp_path / "same.corpus")
    for name in ("token_ids", "token_starts", "line_ends", "line_starts", "windows", "num_words", "flags"):
        assert np.array_equal(getattr(again, name), getattr(corpus, name)), name
    assert again.groups == corpus.groups
    assert again.window(len(corpus) - 1).key == corpus.window(len(corpus) - 1).key


@of_each_base
def test_a_batch_has_the_lines_and_tokens_of_its_windows(corpus: Corpus) -> None:
    weights = line_weights(corpus)
    device_corpus = DeviceCorpus(corpus, weights, CPU)
    numbers = np.array([3, 0, len(corpus) - 1])
    batch = device_corpus.batch(numbers, np.array([1, 2, 3], np.float32))
    token_ids, lengths, rows, ends = batch.inputs
    at = 0
    for row, number in enumerate(numbers.tolist()):
        window = corpus.window(number)
        assert token_ids[row, : lengths[row]].tolist() == window.token_ids.tolist()
        assert ends[rows == row].tolist() == window.line_ends.tolist()
        lines = slice(corpus.line_starts[number], corpus.line_starts[number + 1])
        expected = corpus.is_line_fact[lines] * weights[lines] * (row + 1)
        found = batch.weights[at : at + len(window.line_ends), 0].numpy()
        assert np.allclose(found, expected)
        at += len(window.line_ends)


def test_batches_hold_every_window_once_within_their_tokens() -> None:
    num_tokens = np.random.default_rng(0).integers(1, 500, 300)
    found = length_batches(num_tokens, np.arange(300), 2_000)
    assert sorted(np.concatenate(found).tolist()) == list(range(300))
    assert all(len(batch) * -(-num_tokens[batch].max() // 64) * 64 <= 2_000 for batch in found)


def test_training_learns_its_lines_and_goes_on_where_it_was_cut_off(
    base: Base, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(epochs=3, learning_rate=2e-2, head_rate=2e-2, batch_tokens=4_096, rank=2, alpha=4.0, idle_share=1.0)
    device_corpus = DeviceCorpus(corpus, line_weights(corpus), CPU)
    everything = np.arange(0, len(corpus), max(len(corpus) // 40, 1))
    said: list[str] = []

    def trained(checkpoint: Path | None) -> np.ndarray:
        torch.manual_seed(0)
        network = load_network(base)
        ready(network, plan, CPU)
        fit(network, corpus, device_corpus, everything, plan, checkpoint, said.append)
        return score(network, device_corpus, everything, 8_192).astype(np.float32)

    whole = trained(None)
    of_line = np.repeat(np.arange(len(corpus)), np.diff(corpus.line_starts))
    lines = np.flatnonzero(np.isin(of_line, everything))
    facts, quoted = corpus.is_line_fact[lines], corpus.is_quoted[lines]
    assert whole[facts & quoted, 0].mean() > whole[facts & ~quoted, 0].mean()

    class CutOffError(Exception): ...

    def cut_off(text: str) -> None:
        raise CutOffError

    monkeypatch.setattr("sluice.eval.scorer.fit.CHECKPOINT_S", 0.0)
    monkeypatch.setattr("sluice.eval.scorer.fit.REPORT_S", 0.0)
    torch.manual_seed(0)
    network = load_network(base)
    ready(network, plan, CPU)
    # The first step is reported before it is kept: the cut comes at the second.
    steps: list[str] = []
    with pytest.raises(CutOffError):
        fit(
            network, corpus, device_corpus, everything, plan, tmp_path / "run.checkpoint",
            lambda text: steps.append(text) if len(steps) < 2 else cut_off(text),
        )  # fmt: skip
    assert np.allclose(trained(tmp_path / "run.checkpoint"), whole, atol=2e-2)
    assert any("goes on at step" in text for text in said)


@of_each_base
def test_an_adapter_folds_into_its_base(base: Base) -> None:
    network = load_network(base).eval()
    add_adapters(network.base, 2, 4.0)
    for name, value in network.base.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(value, std=0.05)
    inputs = (
        torch.randint(4, 200, (2, 12)), torch.tensor([12, 9]), torch.tensor([0, 1, 1]), torch.tensor([11, 4, 8])
    )  # fmt: skip
    with torch.inference_mode():
        expected = network(*inputs)
        plain = load_network(base).eval()
        plain.load_state_dict({k: v for k, v in network.state_dict().items() if k.startswith(("norm", "head"))}, False)
        assert not torch.allclose(plain(*inputs), expected, atol=1e-4)
        merge(plain, adapters(network))
        assert torch.allclose(plain(*inputs), expected, atol=1e-5)
    with pytest.raises(KeyError):
        merge(plain, {"nothing.a": torch.zeros(1, 1), "nothing.b": torch.zeros(1, 1)})


def test_runs_leave_out_agents_and_repositories(corpus: Corpus) -> None:
    assert not left_out("main", corpus).any()
    agent = corpus.groups[0].agent
    assert left_out(f"agent-{agent}", corpus).tolist() == [group.agent == agent for group in corpus.groups]
    masks = np.stack([left_out(f"fold-{number}", corpus) for number in range(4)])
    assert (masks.sum(axis=0) == 1).all()
    for mask in masks:
        inside = {repository_of(group) for group, hidden in zip(corpus.groups, mask, strict=True) if hidden}
        outside = {repository_of(group) for group, hidden in zip(corpus.groups, mask, strict=True) if not hidden}
        assert not inside & outside
    with pytest.raises(ValueError, match="no run is named"):
        left_out("fold-9", corpus)


def test_a_run_that_there_is_not_is_named_before_any_is_trained(
    base: Base, corpora: list[Path], tmp_path: Path
) -> None:
    arguments = [
        str(corpora[0]),
        "--base",
        str(base.folder),
        "--out",
        str(tmp_path),
        "--run",
        "main",
        "--run",
        "fold-9",
    ]
    done = CliRunner().invoke(train_neural, arguments)
    assert done.exit_code == 2
    assert "no run is named 'fold-9'" in done.output
    assert not list(tmp_path.iterdir())


def test_from_conversations_to_a_scorer(
    base: Base, prepared: Path, corpora: list[Path], corpus: Corpus, tmp_path: Path
) -> None:
    """Everything but the quality: prepare, train the runs, fit the last layer, replay with what they said."""
    runs = ["main", *(f"fold-{number}" for number in range(4)), f"agent-{AGENTS[0]}"]
    options = [part for run in runs for part in ("--run", run)]
    stems = [path.name.split(".")[0] for path in corpora]
    name = str(base.folder)
    done = CliRunner().invoke(
        train_neural,
        [*map(str, corpora), "--base", name, "--out", str(tmp_path / "runs"), "--look-at", str(corpora[0]), *options,
         "--epochs", "1", "--batch-tokens", "8192", "--rank", "2"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    card = read_card(tmp_path / "runs" / "main")
    network = read_network(tmp_path / "runs" / "main")
    num_without = read_card(tmp_path / "runs" / f"agent-{AGENTS[0]}").note["num_conversations"]
    assert num_without == sum(group.agent != AGENTS[0] for group in corpus.groups)
    windows = [read_corpus(corpora[0]).window(number) for number in range(3)]
    logits = TorchModel(card, network).logits(windows)
    with np.load(tmp_path / "runs" / "main.logits.npz") as arrays:
        kept = arrays["look_at"][: sum(map(len, logits))]
    assert np.allclose(np.concatenate(logits), kept, atol=2e-2)
    assert logits[0].shape == (len(windows[0].line_ends), len(HEADS))

    done = CliRunner().invoke(
        combine,
        [*stems, "--prepared", str(prepared), "--runs", str(tmp_path / "runs"), "--base", base.name, "--look-at",
         stems[0], "--out", str(tmp_path / "model"), "--trees", "3"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"\n{len(AGENTS)} conversations have logits" in f"\n{done.output}"
    common = [*stems, "--prepared", str(prepared), "--runs", str(tmp_path / "runs"), "--base", base.name]
    without = ["--without", AGENTS[0], "--unseen", "fold-0", "--unseen", "fold-1", "--trees", "3"]
    done = CliRunner().invoke(combine, [*common, *without, "--out", str(tmp_path / "without")])
    assert done.exit_code == 0, done.output
    assert f"without {AGENTS[0]}" in done.output
    _, note = read_forest(tmp_path / "without" / FEATURES)
    hidden = left_out("fold-0", corpus) | left_out("fold-1", corpus)
    of_others = [group.agent != AGENTS[0] for group in corpus.groups]
    assert note["num_conversations"] == sum(hidden & of_others), "what was left out is not counted"
    done = CliRunner().invoke(combine, [*common, "--unseen", "fold-9", "--out", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "there are no logits of the run 'fold-9'" in done.output
    read_combination(tmp_path / "model")

    out = tmp_path / "frontier.jsonl"
    said = [str(tmp_path / "runs" / "main.logits.npz"), "look_at", str(corpora[0])]
    done = CliRunner().invoke(
        frontier,
        [TRACES[0], "--model", str(tmp_path / "model"), "--logits", *said, "--price", "1e-3/1e-3", "--out", str(out)],
    )
    assert done.exit_code == 0, done.output
    policies = json.loads(out.read_text().splitlines()[0])["policies"]
    assert set(policies) == {"untouched", "features 0.001/0.001", "combined 0.001/0.001"}
    assert policies["combined 0.001/0.001"]["cost"] <= policies["untouched"]["cost"]

    done = CliRunner().invoke(learning_curve, [*common[:-2], "--base", base.name])
    assert done.exit_code == 1
    assert "logits of two folds" in done.output, "the conversations are of one repository"
    done = CliRunner().invoke(learning_curve, [*stems, "--prepared", str(prepared), "--base", base.name])
    assert done.exit_code == 2
    assert "--runs and --base go together" in done.output
