from __future__ import annotations

import json
import random
from itertools import accumulate
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from sluice.backend.router import RouterSettings
from sluice.eval.cli import evaluate
from sluice.eval.data import read_traces
from sluice.eval.route.simulate import Outcome, Replica, simulate
from sluice.eval.route.strategies import STRATEGIES, strategy
from sluice.eval.route.svg import Line, line_chart
from sluice.eval.route.workload import Arrivals, Part, Request, Script, play, scripts_of
from sluice.eval.traces import trace_file


def script(num_turns: int = 10, tokens: int = 1000) -> Script:
    """A system prompt, then in turn what was asked (or shown) and an answer."""
    parts = [Part(500, b"system"), *(Part(tokens if index % 2 == 0 else 100) for index in range(2 * num_turns))]
    ends = tuple(accumulate(part.num_tokens for part in parts))
    requests = [Request(tuple(range(size)), ends[:size], size) for size in range(2, 2 * num_turns + 2, 2)]
    return Script(tuple(parts), tuple(requests))


def run(name: str, num_replicas: int, **replica: object) -> Outcome:
    chosen = Replica(**replica)  # type: ignore[arg-type]
    settings = RouterSettings(capacity_tokens=chosen.kv_tokens)
    make = strategy(name).make
    return simulate(
        [script()],
        lambda: make(num_replicas, settings),
        num_replicas,
        replica=chosen,
        arrivals=Arrivals(sessions_per_replica=6, requests_per_replica=250),
        seed=1,
    )


def test_recorded_conversations_become_growing_prompts() -> None:
    (trace,) = read_traces(trace_file("claude-code"))
    (found,) = scripts_of([trace], None)
    playing = play([found], b"one", random.Random(0))
    assert len(found.requests) == len(trace.turns())
    for turn in range(len(found.requests) - 1):
        answered, following = playing.answered(turn), playing.prompt(turn + 1)
        assert following.hashes[: len(answered.hashes)] == answered.hashes
    recorded = sum(round(trace.messages[index].num_tokens) for index in trace.turns()[-1].history)
    assert playing.prompt(len(found.requests) - 1).num_tokens == pytest.approx(recorded, rel=0.02)


def test_playings_share_the_system_prompt_alone() -> None:
    one, two = (play([script()], salt, random.Random(0)).prompt(3) for salt in (b"a", b"b"))
    assert one.hashes[0] == two.hashes[0]
    assert not set(one.hashes[1:]) & set(two.hashes[1:])


def test_one_replica_with_room_for_all_reaches_the_bound() -> None:
    for known in STRATEGIES:
        outcome = run(known.name, 1, kv_tokens=100_000_000)
        assert outcome.hit_tokens == outcome.bound_tokens == outcome.pooled_tokens


def test_no_router_is_above_the_bound_and_ours_is_near_it() -> None:
    outcomes = {known.name: run(known.name, 4, kv_tokens=120_000) for known in STRATEGIES}
    for outcome in outcomes.values():
        assert outcome.hit_tokens <= outcome.bound_tokens
        assert outcome.num_requests == 800
    assert outcomes["sluice"].of_bound > 0.95
    assert outcomes["sluice, KV events"].of_bound > 0.95
    assert outcomes["round robin"].of_bound < 0.7
    low, high = outcomes["sluice"].load_spread
    assert -0.15 < low <= high < 0.15


def test_the_same_seed_gives_the_same_figures() -> None:
    assert run("sluice", 3) == run("sluice", 3)


def test_a_small_cache_costs_hits() -> None:
    assert run("sluice", 2, kv_tokens=20_000).hit_tokens < run("sluice", 2, kv_tokens=1_000_000).hit_tokens


def test_the_command_prints_and_writes_its_figures(tmp_path: Path) -> None:
    files = {"--json": tmp_path / "route.json", "--html": tmp_path / "route.html", "--plots": tmp_path / "plots"}
    arguments = ["route", "--replicas", "2", "--requests", "40", "--sessions", "3", "--jobs", "1", "--markdown"]
    done = CliRunner().invoke(evaluate, [*arguments, *(str(word) for pair in files.items() for word in pair)])
    assert done.exit_code == 0, done.output
    assert done.output.count("\n") == len(STRATEGIES) + 2
    rows = json.loads(files["--json"].read_text())
    assert [row["router"] for row in rows] == [known.name for known in STRATEGIES]
    page = files["--html"].read_text()
    assert page.count("<svg") == 4
    assert "http" not in page
    plots = {file.name: ElementTree.parse(file).getroot() for file in files["--plots"].iterdir()}
    assert set(plots) == {f"route-{name}.svg" for name in ("hits", "load", "ttft", "computed")}
    assert {root.tag for root in plots.values()} == {"{http://www.w3.org/2000/svg}svg"}


def test_where_no_prompt_begins_as_another_there_are_no_hits_and_no_bound() -> None:
    arguments = ["route", "--replicas", "2", "--requests", "10", "--sessions", "2", "--jobs", "1", "--markdown"]
    done = CliRunner().invoke(evaluate, [*arguments, "--router", "sluice", "--block-tokens", "100000"])
    assert done.exit_code == 0, done.output
    assert "| 2 | sluice | 0.000 | 0.000 | 0.000 | 0.000 |" in done.output
    assert Outcome().hit_rate == 0


def test_weights_and_seeds_are_tried_side_by_side(tmp_path: Path) -> None:
    small = ["route", "--replicas", "2", "--requests", "60", "--sessions", "3", "--jobs", "1", "--router", "sluice"]

    def rows(*more: str) -> list[dict[str, object]]:
        file = tmp_path / "route.json"
        done = CliRunner().invoke(evaluate, [*small, *more, "--json", str(file)])
        assert done.exit_code == 0, done.output
        found: list[dict[str, object]] = json.loads(file.read_text())
        return found

    (plain,) = rows()
    weighed = rows("--weight", "prefill_weight=0,30", "--weight", "pull=6")
    assert [row["router"] for row in weighed] == [
        "sluice prefill_weight=0 pull=6", "sluice prefill_weight=30 pull=6"
    ]  # fmt: skip
    assert {**weighed[1], "router": "sluice"} == plain, "these are its own weights"
    assert weighed[0]["hit_rate"] < plain["hit_rate"]  # type: ignore[operator]
    (both,) = rows("--seeds", "2")
    each = [plain, rows("--seed", "1")[0]]
    assert both["num_requests"] == 192
    assert both["of_bound"] == min(row["of_bound"] for row in each)  # type: ignore[type-var]
    assert both["load_max"] == max(row["load_max"] for row in each)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weight", "gravity=1"], "'gravity' is no weight; known are prefill_weight"),
        (["--weight", "pull=much"], "'pull=much': give numbers"),
        (["--weight", "pull=nan"], "'pull=nan': give numbers"),
        (["--weight", "recent_s=600,0"], "'recent_s=600,0': give times above 0"),
        (["--replicas", "0"], "give numbers from 1 to 1000"),
        (["--replicas", "x"], "give numbers from 1 to 1000"),
        (["--router", "magic"], "unknown router 'magic'; known are 'round robin', 'least loaded'"),
        (["nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(evaluate, ["route", *arguments])
    assert done.exit_code != 0
    assert message in done.output


def test_a_chart_is_wellformed_and_shows_each_line() -> None:
    chart = line_chart("a <title>", [Line("one & two", [(2, 0.5), (64, 0.9)]), Line("b", [(2, 1.0)])], bar=0.95)
    root = ElementTree.fromstring(chart)
    texts = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {"a <title>", "one & two", "b", "2", "64"} <= texts
    assert {"0", "0.2", "0.4", "0.6", "0.8", "1"} <= texts, "ticks are round"
    assert {"0", "500", "1,000", "1,500"} <= {
        element.text for element in ElementTree.fromstring(line_chart("x", [Line("a", [(1, 1390.0)])])).iter()
    }
    assert line_chart("one point", [Line("a", [(1, 0.0)])])
