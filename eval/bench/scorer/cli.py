"""`sluice bench scorer`: tokens/s of networks and of features, beside a bound, and what requests wait for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sluice.eval.errors import EvalError
from sluice.eval.new_file import NewFile

if TYPE_CHECKING:
    import torch

    from sluice.compressor.scoring.neural.card import Card
    from sluice.compressor.scoring.neural.network import LineNetwork
    from sluice.compressor.scoring.neural.packed_model import Form, PackedModel
    from sluice.eval.bench.scorer.speed import Peak, Speed

_SIZES: dict[str, Sequence[tuple[int, int]]] = {
    "cpu": ((1, 128), (1, 512), (8, 128), (8, 512)),
    "cuda": ((1, 512), (16, 512), (64, 256), (64, 512), (128, 512)),
}
"""Windows of a batch, and tokens of each."""
_SHARED = {"cpu": (8, 512, 192), "cuda": (64, 512, 192)}
"""A batch whose windows begin alike: windows, tokens of each, tokens that they share."""
_CHECKED = ((200, 0), (330, 0), (330, 96), (256, 96))
"""Windows that are compared with float32: tokens, tokens that they share."""
_PROFILED = (64, 512)
_NUM_KERNELS = 14
_PAUSE_S = 0.5
"""Mean time between the requests of one of many callers."""
_COLUMNS = ("batch × window", "tokens/s", "p50 ms", "p95 ms", "bound, tokens/s", "of the bound", "of the data sheet's")


@dataclass(slots=True)
class _Report:
    """What is printed as it is found, and again at the end as one table."""

    values: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def say(self, line: str = "") -> None:
        self.lines.append(line)
        click.echo(line)

    def row(self, *cells: str) -> None:
        self.say(f"| {' | '.join(cells)} |")


@click.command()
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.option("--model", "models", multiple=True, help="Only models with this in their name; repeatable.")
@click.option("--form", "forms", multiple=True, type=click.Choice(["bfloat16", "float32", "int8"]))
@click.option("--compile/--no-compile", "is_compiled", default=None, help="Layers.  [default: on a GPU]")
@click.option("--seconds", default=1.0, show_default=True, type=click.FloatRange(0.01), help="Of each figure.")
@click.option("--at-once", default=64, show_default=True, type=click.IntRange(1), help="Requests that come at once.")
@click.option("--deadline-ms", default=30.0, show_default=True, type=click.FloatRange(1))
@click.option("--features/--no-features", "with_features", default=True, show_default=True, help="Measure them, too.")
@click.option("--kernels", "with_kernels", is_flag=True, help="List what the GPU spends a batch's time on.")
@click.option(
    "--traces",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Recorded conversations for the features; those that come along are short.",
)
@click.option("--json", "json_file", type=NewFile(), help="Write all values there.")
def scorer(
    device: str,
    models: Sequence[str],
    forms: Sequence[Form],
    is_compiled: bool | None,
    seconds: float,
    at_once: int,
    deadline_ms: float,
    with_features: bool,
    with_kernels: bool,
    traces: Sequence[Path],
    json_file: Path | None,
) -> None:
    """Tokens/s of line scorers against batch and window length, and what 64 requests at once wait for them.

    Networks have random weights: speed does not depend on their values.
    """
    report = _Report()
    try:
        import torch

        from sluice.eval.bench.scorer import shapes
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed; run: pip install 'sluicegate[scorer]'") from None
    if models and not any(text.lower() in name.lower() for name in shapes.NAMES for text in models):
        raise click.BadParameter(f"{', '.join(models)}: known are {', '.join(shapes.NAMES)}", param_hint="--model")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("--device cuda: torch sees no GPU")
    if with_features:
        _features(report, traces)
    on = torch.device(device)
    name = torch.cuda.get_device_name(on) if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    report.say(f"\n{name}, torch {torch.__version__}, random weights; bounds: multiplications and additions over the")
    report.say("most that a product of large matrices was seen to do in that form.")
    for form in forms or (("bfloat16",) if device == "cuda" else ("float32", "int8")):
        from sluice.eval.bench.scorer.speed import peak_of

        peak = peak_of(on, form)
        for model in shapes.NAMES:
            if not models or any(text.lower() in model.lower() for text in models):
                wants_compiled = device == "cuda" if is_compiled is None else is_compiled
                ready = _model(report, model, on, form, peak, wants_compiled, seconds, at_once, deadline_ms / 1000)
                if with_kernels and device == "cuda":
                    _kernels(report, ready)
    if json_file is not None:
        json_file.write_text(json.dumps({"device": name, "values": report.values}, indent=1), encoding="utf-8")


def _features(report: _Report, traces: Sequence[Path]) -> None:
    from sluice.compressor.scoring import load_default
    from sluice.eval.bench.scorer import features
    from sluice.eval.data import parse_trace
    from sluice.eval.readers import read_conversations

    paths = traces or [Path(__file__).parents[2] / "traces"]
    found = (parse_trace(line) for path in paths for line in read_conversations(path))
    try:
        taken = features.measure(load_default(), found, max_tokens=300_000)
    except EvalError as error:
        raise click.ClickException(str(error)) from None
    if not taken.num_results:
        raise click.ClickException(f"no tool result in {', '.join(map(str, paths))}: there is nothing to score")
    rate = taken.num_tokens / taken.seconds
    report.values.append({"model": "features", "tokens_per_s": rate, "num_results": taken.num_results})
    report.say(
        f"features, one thread: {rate:,.0f} tokens/s ({taken.num_results:,} results of {taken.num_lines:,} lines, "
        f"{1000 * taken.seconds / taken.num_results:.2f} ms each)"
    )


def _model(
    report: _Report,
    name: str,
    device: torch.device,
    form: Form,
    peak: Peak,
    is_compiled: bool,
    seconds: float,
    at_once: int,
    deadline_s: float,
) -> PackedModel:
    from sluice.compressor.scoring.neural.packed_model import PackedModel
    from sluice.eval.bench.scorer import concurrent, shapes

    network = shapes.random_network(name, device)
    card = shapes.card_of(name, shapes.max_window_tokens(name))
    model = PackedModel(card, network, device=str(device), form=form, is_compiled=is_compiled)
    nominal = f", {peak.nominal / 1e12:.0f} by the data sheet" if peak.nominal else ""
    how = ", compiled" if is_compiled else ""
    report.say(f"\n{name}, {form}{how}; {peak.measured / 1e12:.2f} TFLOP/s{nominal}")
    report.say(f"differs from float32 by {_difference(model, network, card):.3g} at the most\n")
    report.row(*_COLUMNS)
    report.row(*["---"] * len(_COLUMNS))
    for speed, what in _speeds(model, device.type, seconds):
        _row(report, what, speed, peak)
        report.values.append({"model": name, "form": form, "what": what, **_values(speed, peak)})
    batcher = concurrent.started(model)
    for pause_s in (0.0, _PAUSE_S):
        added = concurrent.measure(
            batcher,
            num_at_once=at_once,
            num_each=20 if pause_s == 0 else 4,
            pause_s=pause_s,
            deadline_s=deadline_s,
            max_window_tokens=card.shape.max_tokens,
        )
        how = "again and again" if pause_s == 0 else f"every {pause_s:g} s"
        report.say(
            f"{'' if pause_s else chr(10)}{at_once} callers, each {how}: waited {added.percentile_ms(50):.1f} ms p50, "
            f"{added.percentile_ms(95):.1f} ms p95; {added.share_scored:.0%} of windows scored "
            f"({', '.join(f'{num} {outcome}' for outcome, num in sorted(added.outcomes.items()))})"
        )
        report.values.append(
            {
                "model": name,
                "form": form,
                "what": f"{at_once} callers, pause {pause_s:g} s",
                "p50_ms": added.percentile_ms(50),
                "p95_ms": added.percentile_ms(95),
                "share_scored": added.share_scored,
            }
        )
    batcher.close()
    return model


def _speeds(model: PackedModel, device: str, seconds: float) -> Iterator[tuple[Speed, str]]:
    from sluice.eval.bench.scorer.speed import measure

    for num_windows, tokens in _SIZES[device]:
        yield measure(model, num_windows, tokens, seconds=seconds), f"{num_windows} × {tokens}"
    if model.is_causal:
        num_windows, tokens, shared = _SHARED[device]
        speed = measure(model, num_windows, tokens, num_shared=shared, seconds=seconds)
        yield speed, f"{num_windows} × {tokens}, {shared} alike"


def _kernels(report: _Report, model: PackedModel) -> None:
    from sluice.eval.bench.scorer.speed import kernels

    num_windows, tokens = _PROFILED
    found = kernels(model, num_windows, tokens)
    total_ms = sum(milliseconds for _, _, milliseconds in found)
    report.say(f"\n{num_windows} × {tokens}: {total_ms:.2f} ms in kernels")
    for name, num, milliseconds in found[:_NUM_KERNELS]:
        report.say(f"{milliseconds:8.3f} ms {milliseconds / total_ms:4.0%} {num:5} × {name[:80]}")


def _difference(model: PackedModel, network: LineNetwork, card: Card) -> float:
    import numpy as np

    from sluice.compressor.scoring.neural.torch_model import TorchModel
    from sluice.eval.bench.scorer.shapes import random_window
    from sluice.eval.bench.scorer.speed import largest_difference

    rng = np.random.default_rng(1)
    beginning = rng.integers(0, 30_000, 96).astype(np.int32)
    windows = [random_window(rng, tokens, beginning if shared else None) for tokens, shared in _CHECKED]
    return largest_difference(model, TorchModel(card, network), windows)


def _values(speed: Speed, peak: Peak) -> dict[str, Any]:
    return {
        "tokens_per_s": speed.tokens_per_s,
        "p50_ms": 1000 * speed.percentile_s(50),
        "p95_ms": 1000 * speed.percentile_s(95),
        "share_of_measured": speed.share(peak.measured),
        "share_of_nominal": speed.share(peak.nominal) if peak.nominal else None,
    }


def _row(report: _Report, what: str, speed: Speed, peak: Peak) -> None:
    values = _values(speed, peak)
    report.row(
        what,
        f"{values['tokens_per_s']:,.0f}",
        f"{values['p50_ms']:.2f}",
        f"{values['p95_ms']:.2f}",
        f"{values['tokens_per_s'] / values['share_of_measured']:,.0f}",
        f"{values['share_of_measured']:.0%}",
        "" if values["share_of_nominal"] is None else f"{values['share_of_nominal']:.0%}",
    )
