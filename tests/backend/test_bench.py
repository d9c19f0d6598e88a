from __future__ import annotations

import heapq
import inspect
import json
import math
import multiprocessing
import random
import sys
import textwrap
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.bench import bounds, workload
from sluice.backend.bench.baseline import num_pages
from sluice.backend.bench.bounds import Machine
from sluice.backend.bench.cli import Plan, decoding, engine
from sluice.backend.bench.client import BenchClient, StreamTiming, Timing
from sluice.backend.bench.cpu_time import main as bench_cpu_time
from sluice.backend.bench.gpu.__main__ import main as bench_gpu
from sluice.backend.bench.gpu.beside import transformers_batches
from sluice.backend.bench.gpu.kernels import KernelTimes
from sluice.backend.bench.gpu.shapes import SHAPES, random_weights
from sluice.backend.bench.intervals import interval, ratio
from sluice.backend.bench.recorded import recorded_edits
from sluice.backend.bench.workload import Prompt
from sluice.backend.embedded.load import WeightForm
from sluice.backend.errors import BackendError

READ = "\n".join(f"def function_{number}(): return {number}" for number in range(30))


def conversation(arguments: dict[str, Any]) -> str:
    call = {"function": {"name": "Edit", "arguments": json.dumps(arguments)}}
    messages = [
        {"role": "user", "content": "do it"},
        {"role": "tool", "content": READ},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    return json.dumps({"messages": messages})


def test_every_round_asks_for_something_new() -> None:
    for make in (workload.plain, workload.edit, workload.long):
        assert len({make(number, 10).text for number in range(1000, 1064)}) == 64


class Recorder(BenchClient):
    """Answers at once, and keeps what was asked."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9")
        self.asked: list[str] = []

    async def run(self, prompts: Sequence[Prompt]) -> Timing:
        self.asked += [prompt.text for prompt in prompts]
        return Timing([StreamTiming(1.0, 0.002, 2)], 0.002)


async def test_no_round_asks_what_another_has_asked_and_edits_are_of_several_files() -> None:
    plan = Plan([12, 32], 4, 4, 1e9, 40, [])
    async with aclosing(Recorder()) as client:
        for number in range(4):
            await plan.round(defaultdict(lambda: defaultdict(list)), {"one": client}, None, number)
        asked = [text for text in client.asked if text.startswith("Story")]
        assert len(set(asked)) == len(asked) == 4 * (12 + 32)
        edits = [text for text in client.asked if text.startswith("File")]
        sources = [inspect.getsource(module)[:200] for module in (heapq, textwrap)]
        assert [sum(source in text for text in edits) for source in sources] == [2, 2]


def test_what_transformers_keeps_has_room_for_all_streams() -> None:
    page_tokens = 256
    assert num_pages(1, 1) == 2
    for num_streams, num_tokens in ((32, 300), (64, 2000)):
        assert num_pages(num_streams, num_tokens) >= num_streams * math.ceil(num_tokens / page_tokens)


@pytest.mark.engine
def test_it_measures_the_engine_and_the_baseline(wide_tiny_folder: Path, tmp_path: Path) -> None:
    file, recorded = tmp_path / "out.json", tmp_path / "conversations.jsonl"
    recorded.write_text(conversation({"new": READ[:400]}))
    arguments = ["--model", str(wide_tiny_folder), "--streams", "1,2", "--tokens", "4", "--rounds", "2"]
    arguments += ["--prompt-tokens", "40", "--transformers", "--json", str(file), "--conversations", str(recorded)]
    result = CliRunner().invoke(engine, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    values = json.loads(file.read_text())["values"]
    assert set(values) == {"engine", "engine, no speculation", "transformers"}
    for figures in values.values():
        assert all(len(entry) == 2 and min(entry) > 0 for name, entry in figures.items() if "×1" in name)
    assert {"cached prompt, TTFT ms", "recorded edits ×1, tokens/s"} < set(values["engine"])
    assert "plain ×2, tokens/s" in values["transformers"]
    assert "| plain ×2, tokens/s: engine / transformers |" in result.output
    assert "| edit ×1, tokens/s: with / without speculation |" in result.output
    assert "transformers in torch." in result.output
    assert set(json.loads(file.read_text())["bounds"]) < set(values["engine"])


def test_no_round_begins_after_the_time_is_up(wide_tiny_folder: Path) -> None:
    arguments = [
        "--model",
        str(wide_tiny_folder),
        "--streams",
        "1",
        "--tokens",
        "2",
        "--rounds",
        "9",
        "--max-s",
        "0.001",
    ]
    result = CliRunner().invoke(engine, [*arguments, "--prompt-tokens", "40"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert " 1 rounds, medians" in result.output


def test_a_server_that_is_none_is_named(wide_tiny_folder: Path) -> None:
    arguments = ["--model", str(wide_tiny_folder), "--streams", "1", "--rounds", "1"]
    result = CliRunner().invoke(engine, [*arguments, "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "http://127.0.0.1:9 serves no model list" in result.output


async def test_a_server_that_has_gone_is_named() -> None:
    async with aclosing(BenchClient("http://127.0.0.1:9")) as client:
        with pytest.raises(BackendError, match=r"127\.0\.0\.1:9 fails: ConnectError"):
            await client.run([workload.plain(0, 2)])


class OneToken(BaseHTTPRequestHandler):
    """A server that ends every answer at its first token."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        event = {"choices": [{"text": "a", "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
        self.wfile.write(b"data: %s\n\n" % json.dumps(event).encode())

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


async def test_a_server_that_ends_at_the_first_token_is_named() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), OneToken) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            async with aclosing(BenchClient(f"http://127.0.0.1:{server.server_port}")) as client:
                with pytest.raises(BackendError, match=r"127\.0\.0\.1:\d+ ends its answers at the first token"):
                    await decoding(client, [workload.plain(0, 2)])
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--streams", "many"], "'many'"),
        (["--tokens", "1"], "x>=2"),
        (["--url", "http://localhost:abc"], "'http://localhost:abc'"),
        (["--url", "localhost:8000"], "'localhost:8000' does not begin with http://"),
    ],
)
def test_what_cannot_be_measured_is_named_before_the_work(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(engine, arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_transformers_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    result = CliRunner().invoke(engine, ["--transformers"])
    assert result.exit_code == 1
    assert "--transformers: it is not installed" in result.output


def test_recorded_edits_are_what_was_written_out_of_what_was_read(tmp_path: Path) -> None:
    file = tmp_path / "conversations.jsonl"
    lines = [conversation({"path": "a.py", "new": READ[100:500]}), conversation({"new": "unheard of\n" * 40})]
    file.write_text("\n".join(lines))
    (prompt,) = recorded_edits(file, 8)
    assert prompt.num_tokens == 8
    assert READ in prompt.text
    assert prompt.text.rpartition("Call of Edit:\n")[2].startswith('{"path": "a.py"')


def test_calls_whose_arguments_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "conversations.jsonl"
    whole = json.loads(conversation({"new": READ[100:500]}))
    broken = [{"function": {"name": "Edit", "arguments": text}} for text in ("", '{"new": ')]
    messages = [None, {"role": "assistant", "content": None, "tool_calls": broken}, *whole["messages"]]
    file.write_text(json.dumps({"messages": messages}) + "\n" + json.dumps({"messages": [None]}))
    assert len(recorded_edits(file, 8)) == 1


@pytest.mark.parametrize(
    ("content", "says"), [("{", "no conversations"), ('{"messages": []}', "no edit"), ("3", "no conversations")]
)
def test_a_file_without_edits_is_named(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "conversations.jsonl"
    file.write_text(content)
    with pytest.raises(BackendError, match=f"{file} holds {says}"):
        recorded_edits(file, 8)


@given(st.lists(st.floats(1, 100), min_size=1, max_size=9))
def test_an_interval_holds_its_median(values: list[float]) -> None:
    found = interval(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)


def test_what_slows_a_whole_round_does_not_widen_a_ratio() -> None:
    rng = random.Random(1)
    slowness = [rng.uniform(1, 5) for _ in range(7)]
    found = ratio([10 / slow for slow in slowness], [5 / slow for slow in slowness])
    assert (found.low, found.median, found.high) == pytest.approx((2, 2, 2))


def test_a_known_models_weights_are_counted() -> None:
    config = SHAPES["8b"].config
    embedding = config.vocab_size * config.hidden_size
    assert bounds.num_matrix_weights(config) + embedding == pytest.approx(8.03e9, rel=0.001)
    assert bounds.num_kv_bytes_per_token(config, 2) == 131072


def test_the_bound_is_memory_at_one_stream_and_arithmetic_at_many() -> None:
    config, machine = SHAPES["8b"].config, Machine(3.35e12, 989e12)
    step = {"context_len": 0, "num_bytes_per_weight": 2.0, "num_bytes_per_kv_value": 2.0}
    one = bounds.decode_step_s(config, machine, num_streams=1, **step)
    assert one == pytest.approx(2 * 7.5e9 / 3.35e12, rel=0.01)
    assert bounds.decode_step_s(config, machine, num_streams=1000, **step) > 2 * one
    assert bounds.prefill_flops(config, 8192) == pytest.approx(2 * 8192 * (6.98e9 + 32 * 4096 * 8192), rel=0.01)


def test_random_weights_have_the_shape_of_a_model() -> None:
    config, form = SHAPES["tiny"].config, WeightForm(torch.float32, torch.device("cpu"))
    weights = random_weights(config, form)
    assert len(weights.layers) == config.num_layers
    assert weights.layers[0].down(torch.ones(3, config.intermediate_size)).shape == (3, config.hidden_size)


def test_the_gpu_table_can_be_made_without_one() -> None:
    arguments = ["--shape", "tiny", "--device", "cpu", "--rounds", "1", "--kernels"]
    result = CliRunner().invoke(bench_gpu, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "| 4 streams, prompts included |" in result.output
    assert "prompt of 128: " in result.output
    beside = result.output.rpartition("| engine | transformers | ratio |")[2]
    assert [line.split(" | ")[0] for line in beside.splitlines()[2:]] == ["| 4 × 2", "| 4 × 8"]


def test_transformers_is_ended_when_its_time_is_up() -> None:
    arguments = ["--shape", "tiny", "--device", "cpu", "--rounds", "1", "--transformers-s", "0"]
    result = CliRunner().invoke(bench_gpu, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "| 4 streams, prompts included |" in result.output
    assert result.output.endswith(
        "transformers did not end 4 × 2 tokens within 0 s.\ntransformers did not end 4 × 8 tokens within 0 s.\n"
    )
    assert not multiprocessing.active_children()


def test_a_failure_of_transformers_is_told() -> None:
    with pytest.raises(BackendError, match="transformers failed"):
        list(transformers_batches(SHAPES["tiny"], [2], "nowhere", 120))


def test_kernels_are_listed_by_their_share_of_the_time() -> None:
    text = str(KernelTimes([("multiply", 4, 0.003), ("add", 2, 0.001)], wall_s=0.005))
    assert text.splitlines() == [
        "5.0 ms, kernels 4.0 ms",
        "     3.00 ms  75%      4 ×    750.0 µs  multiply",
        "     1.00 ms  25%      2 ×    500.0 µs  add",
    ]


def test_cpu_time_is_measured_for_both(wide_tiny_folder: Path) -> None:
    arguments = ["--model", str(wide_tiny_folder), "--tokens", "2", "--rounds", "1"]
    result = CliRunner().invoke(bench_cpu_time, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| streams", "| 1", "| 8", "| 32"]
    assert all("[" in cell for row in rows[1:] for cell in row[1:])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_named() -> None:
    result = CliRunner().invoke(bench_gpu, [])
    assert result.exit_code == 1
    assert "'cuda' is asked for" in result.output
