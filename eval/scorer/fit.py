"""Trains a network on a corpus, and scores windows with it. Resumes from its checkpoint; knows no file formats.

The same corpus, options and seed give the same batches. The learning rate falls with the tokens that were seen; where
time would run out before them, it falls with the time, so that every run ends trained.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from sluice.compressor.scoring.base import HEADS
from sluice.compressor.scoring.neural.network import LineNetwork
from sluice.eval.scorer.corpus import Corpus
from sluice.eval.scorer.device import DeviceCorpus, length_batches, shuffled_batches

CHECKPOINT_S = 60.0
REPORT_S = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a network is trained."""

    epochs: float = 1.0
    """Times that each window is seen: of those without a needed line a new draw each time."""
    minutes: float | None = None
    """At most; None: as long as it takes."""
    idle_share: float = 0.35
    """Of the windows of which nothing is needed; they weigh more for it."""
    learning_rate: float = 1e-3
    head_rate: float = 2e-3
    warmup_share: float = 0.05
    batch_tokens: int = 65_536
    rank: int = 16
    alpha: float = 32.0
    seed: int = 0


def fit(
    network: LineNetwork,
    corpus: Corpus,
    device_corpus: DeviceCorpus,
    numbers: npt.NDArray[np.int64],
    plan: Plan,
    checkpoint: Path | None,
    say: Callable[[str], None],
) -> None:
    """Train a network that has adapters on some windows.

    Args:
        network: on the corpus's device.
        corpus: what `device_corpus` was made of.
        device_corpus: with the lines' weights.
        numbers: of the windows to train on.
        plan: how.
        checkpoint: where to keep what is needed to go on; None: nowhere.
        say: hears how it goes.
    """
    trained = [value for value in network.parameters() if value.requires_grad]
    head = {id(value) for part in (network.norm, network.head) for value in part.parameters()}
    groups: list[dict[str, Any]] = [
        {"params": [value for value in trained if id(value) not in head], "peak": plan.learning_rate},
        {"params": [value for value in trained if id(value) in head], "peak": plan.head_rate},
    ]
    fused = device_corpus.device.type == "cuda"
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01, fused=fused)
    batches = _plan_batches(corpus, numbers, plan)
    total = sum(len(batch) for batch, _ in batches)
    seen, step, spent_s = 0, 0, 0.0
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, map_location=device_corpus.device, weights_only=True)
        if state["plan"] != asdict(plan) or state["total"] != total:
            raise ValueError(f"{checkpoint} is of another run: remove it")
        _set_trained(trained, state["trained"])
        optimizer.load_state_dict(state["optimizer"])
        seen, step, spent_s = state["seen"], state["step"], state["spent_s"]
        say(f"goes on at step {step} of {len(batches)}")
    begun = time.monotonic() - spent_s
    saved = reported = time.monotonic()
    num_tokens, sums = 0, torch.zeros(2, device=device_corpus.device)
    # Without dropout: hardly a window is seen twice, and a run that goes on ends where it would have ended.
    network.eval()
    while step < len(batches):
        spent_s = time.monotonic() - begun
        progress = seen / total
        if plan.minutes is not None:
            progress = max(progress, spent_s / (60 * plan.minutes))
        if progress >= 1:
            say(f"time is up at step {step} of {len(batches)}")
            break
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * _rate(progress, plan.warmup_share)
        windows, scale = batches[step]
        loss = _loss(network, device_corpus, windows, scale)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen, step = seen + len(windows), step + 1
        num_tokens += int(device_corpus.num_tokens[windows].sum())
        sums += torch.stack([loss.detach(), torch.ones_like(loss)])
        now = time.monotonic()
        if now - reported >= REPORT_S or step == len(batches):
            mean = float(sums[0] / sums[1])
            rate = num_tokens / (time.monotonic() - reported)
            say(f"step {step}/{len(batches)} loss {mean:.4f} {rate:,.0f} tokens/s {now - begun:.0f} s")
            reported, num_tokens = time.monotonic(), 0
            sums.zero_()
        if checkpoint is not None and now - saved >= CHECKPOINT_S:
            state = {"seen": seen, "step": step, "spent_s": now - begun, "total": total, "plan": asdict(plan)}
            state |= {"trained": [value.detach() for value in trained], "optimizer": optimizer.state_dict()}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
            saved = now


@torch.inference_mode()
def score(
    network: LineNetwork, device_corpus: DeviceCorpus, numbers: npt.NDArray[np.int64], batch_tokens: int
) -> npt.NDArray[np.float16]:
    """(lines, `HEADS`) of some windows, in their order."""
    network.eval()
    num_lines = np.diff(device_corpus.line_starts)
    found = np.zeros((int(num_lines[numbers].sum()), len(HEADS)), np.float16)
    starts = np.zeros(len(num_lines), np.int64)
    starts[numbers] = np.concatenate([[0], np.cumsum(num_lines[numbers])])[:-1]
    for batch in length_batches(device_corpus.num_tokens, numbers, batch_tokens):
        logits = network(*device_corpus.batch(batch).inputs).half().cpu().numpy()
        sizes = num_lines[batch]
        places = np.repeat(starts[batch] - np.concatenate([[0], np.cumsum(sizes)])[:-1], sizes) + np.arange(sizes.sum())
        found[places] = logits
    return found


def _plan_batches(
    corpus: Corpus, numbers: npt.NDArray[np.int64], plan: Plan
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Every batch of a run, in order, with the weight of each of its windows."""
    draw = np.random.default_rng(plan.seed)
    of_line = np.repeat(np.arange(len(corpus)), np.diff(corpus.line_starts))
    is_needed = (corpus.num_words > 0) | corpus.is_quoted
    is_busy = np.bincount(of_line, weights=is_needed, minlength=len(corpus))[numbers] > 0
    num_facts = np.bincount(of_line, weights=corpus.is_line_fact | corpus.has_word_fact, minlength=len(corpus))
    scale = np.ones(len(corpus), np.float32)
    scale[numbers[~is_busy]] = 1 / plan.idle_share
    found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
    remaining = plan.epochs
    while remaining > 0:
        taken = is_busy | (draw.random(len(numbers)) < plan.idle_share)
        taken &= (num_facts[numbers] > 0) & (draw.random(len(numbers)) < remaining)
        batches = shuffled_batches(corpus.num_tokens, numbers[taken], plan.batch_tokens, draw)
        found += [(batch, scale[batch]) for batch in batches]
        remaining -= 1
    return found


def _loss(
    network: LineNetwork, corpus: DeviceCorpus, windows: npt.NDArray[np.int64], scale: npt.NDArray[np.float32]
) -> Tensor:
    batch = corpus.batch(windows, scale)
    logits = network(*batch.inputs)
    losses = functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
    # Each head counts the same, however many lines carry its facts.
    return ((losses * batch.weights).sum(0) / batch.weights.sum(0).clamp(min=1)).sum()


def _rate(progress: float, warmup_share: float) -> float:
    if progress < warmup_share:
        return (progress + 0.002) / (warmup_share + 0.002)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - warmup_share) / (1 - warmup_share)))


def _set_trained(trained: list[torch.nn.Parameter], values: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(trained, values, strict=True):
            parameter.copy_(value)
