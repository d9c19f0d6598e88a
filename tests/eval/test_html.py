"""The report's page: whole in itself, well-formed, and its copies hold what its table shows."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sluice.eval.cli import evaluate
from sluice.eval.html import svg
from sluice.eval.html.page import COLUMNS
from sluice.eval.traces import AGENTS, trace_file
from tests.effort import examples

VOID = {"meta", "br", "link", "img", "input"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("report") / "out.html"
    traces = [str(trace_file(agent)) for agent in AGENTS]
    options = ["--mode", "balanced", "--jobs", "1", "--report", str(file)]
    result = CliRunner().invoke(evaluate, ["replay", *traces, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return file.read_text("utf-8")


class Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_loads_nothing_and_every_element_is_closed(page: str) -> None:
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert balance.loads == ["#table"]
    assert "@import" not in page
    assert "url(" not in page


def test_its_drawings_are_well_formed_and_say_what_they_show(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    titles = []
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        titles.append(root.findtext("title"))
        assert root.get("role") == "img"
        assert root.get("aria-label")
        numbers = [float(root_.get(key) or 0) for root_ in root.iter() for key in ("x", "y", "cx", "cy", "x1", "y2")]
        assert all(number == number for number in numbers)
    assert titles == [
        "Cost against words kept",
        "Cost against lines kept",
        "Cost against places kept",
        "Cost by turn",
        "Cost by tool",
        "Cost by agent",
    ]


def test_the_copies_hold_the_table(page: str) -> None:
    found = re.search(r'<script type="application/json" id="copies">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    copies = json.loads(found[1])
    rows = list(csv.reader(io.StringIO(copies["tsv"]), delimiter="\t"))
    assert tuple(rows[0]) == COLUMNS
    assert rows[1][:2] == ["untouched", "1.000"]
    assert {len(row) for row in rows} == {len(COLUMNS)}
    markdown = copies["md"].splitlines()
    assert len(markdown) == len(rows) + 1
    assert all(line.count("|") == len(COLUMNS) + 1 for line in markdown)
    shown = re.findall(r'<th scope="row">.*?</span>(.*?)</th>', page)
    assert shown == [row[0] for row in rows[1:]]


def test_names_are_escaped(tmp_path: Path) -> None:
    data = json.loads(trace_file("opencode").read_text())
    data["agent"] = "<script>alert(1)</script>"
    (tmp_path / "t.jsonl").write_text(json.dumps(data) + "\n")
    file = tmp_path / "out.html"
    arguments = ["replay", str(tmp_path / "t.jsonl"), "--no-frames", "--jobs", "1", "--report", str(file)]
    assert CliRunner().invoke(evaluate, arguments, catch_exceptions=False).exit_code == 0
    assert "<script>alert" not in file.read_text()


def test_policies_that_all_cost_more_than_fits_are_drawn_at_the_edge(tmp_path: Path) -> None:
    file = tmp_path / "out.html"
    arguments = ["replay", str(trace_file("claude-code")), "--policy", "mask-3", "--jobs", "1", "--report", str(file)]
    result = CliRunner().invoke(evaluate, [*arguments, "--prices", "self-hosted"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    cost = re.search(r"mask-3 \(×(\d\.\d\d)\) →", file.read_text("utf-8"))
    assert cost is not None
    assert float(cost[1]) > 1.54


@examples(100)
@given(
    st.floats(-1e6, 1e6, allow_nan=False), st.floats(1e-3, 1e6, allow_nan=False), st.floats(-1e7, 1e7, allow_nan=False)
)
def test_scales_stay_inside_and_in_order(low: float, span: float, value: float) -> None:
    scale = svg.Scale(low, low + span, 40.0, 400.0)
    assert 40 - 1e-6 <= scale(value) <= 400 + 1e-6
    ticks = scale.ticks()
    assert ticks == sorted(ticks)
    assert len(ticks) <= svg.MAX_TICKS + 1
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in ticks)


def test_logarithmic_ticks_are_round() -> None:
    assert svg.Scale(0.9, 120, 0, 1, is_log=True).ticks() == [1, 2, 5, 10, 20, 50, 100]


@examples(100)
@given(st.lists(st.floats(0, 500, allow_nan=False), min_size=1, max_size=20))
def test_labels_are_moved_apart_in_their_order(places: list[float]) -> None:
    moved = svg.spread(places, 14.0, 10.0)
    assert min(moved) >= 10 - 1e-6
    pairs = sorted(zip(places, moved, strict=True))
    both = pairwise(pairs)
    assert all(later[1] - earlier[1] >= 14 - 1e-6 for earlier, later in both if earlier[0] != later[0])
