"""The report's page: what was run, the plots, and the table as HTML, Markdown and tab-separated values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files

from sluice.eval.bootstrap import Ratio
from sluice.eval.html import charts
from sluice.eval.policies.untouched import Untouched
from sluice.eval.report import Figures, Percentiles, Report

COLUMNS = (
    "policy",
    "input cost ×",
    "95 %",
    "bill ×",
    "tokens ×",
    "words",
    "lines",
    "places",
    "rewrites",
    "failed or bypassed",
    "overhead p50/p95 ms",
    "HTTP p50/p95 ms",
)


@dataclass(frozen=True, slots=True)
class Run:
    """What was run, where and when."""

    title: str
    command: str
    date: str
    hardware: str

    def as_json(self) -> dict[str, str]:
        """As it stands in JSON."""
        return asdict(self)


def render(result: Report, run: Run) -> str:
    """Write the page. It loads nothing: style, script and drawings are in it."""
    rows = result.rows
    looks = charts.Looks(rows)
    kinds = (("words", lambda row: row.words), ("lines", lambda row: row.lines), ("places", lambda row: row.places))
    panels = "".join(
        f"<figure>{drawn}</figure>"
        for name, kept in kinds
        if (drawn := charts.pareto(rows, looks, kept=kept, name=name))
    )
    legend = looks.legend([Untouched.name, *looks.systems])
    sections = [
        _section(
            "Cost against facts kept",
            "Up and to the left is better. The dashed line is random deletion, rings are oracles that know what is "
            "needed later: a system is worth something above the line, and the rings are as far as it goes.",
            f'<div class="panels">{panels}</div>' if panels else "",
        ),
        _section(
            "Cost by turn",
            "What a turn's input costs on average, over the conversations that are as long.",
            _wide(charts.by_turn(rows, looks)),
        ),
        _section("Cost by tool", "Where the input bill comes from.", _wide(charts.by_source(rows, looks), legend)),
        _section(
            f"Cost by {result.by}",
            "Number of conversations in brackets; bars are 95 % intervals.",
            _wide(charts.by_group(result.groups, looks, by=result.by), legend),
        ),
        _section(
            "Latency",
            "From the first byte of a request to the last of its answer, one request at a time, against a recorder "
            "that answers at once.",
            _wide(charts.latency(rows, looks)),
        ),
        _section("Table", "", _table(rows, looks)),
    ]
    folder = files("sluice.eval.html")
    style, script = ((folder / name).read_text("utf-8") for name in ("page.css", "page.js"))
    facts = "".join(
        f"<dt>{name}</dt><dd>{value}</dd>"
        for name, value in (
            ("Command", f"<code>{escape(run.command)}</code>"),
            ("Date", escape(run.date)),
            ("Hardware", escape(run.hardware)),
        )
    )
    copies = json.dumps({"md": markdown(rows), "tsv": tsv(rows)}, ensure_ascii=False).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Sluice evaluation</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#table">Skip to the table</a>\n'
        f"<header><h1>Sluice evaluation</h1><p>{escape(run.title)}</p><dl>{facts}</dl></header>\n"
        f"<main>\n{''.join(sections)}</main>\n"
        f'<script type="application/json" id="copies">{copies}</script>\n<script>\n{script}'
        "</script>\n</body>\n</html>\n"
    )


def markdown(rows: Sequence[Figures]) -> str:
    """The table as Markdown."""
    lines = [COLUMNS, ("---", *("---:" for _ in COLUMNS[1:])), *map(cells, rows)]
    return "".join("| " + " | ".join(each.replace("|", r"\|") for each in line) + " |\n" for line in lines)


def tsv(rows: Sequence[Figures]) -> str:
    """The table as tab-separated values, for a spreadsheet."""
    return "".join("\t".join(line) + "\n" for line in (COLUMNS, *map(cells, rows)))


def cells(row: Figures) -> tuple[str, ...]:
    """One row of the table, a cell for each of `COLUMNS`."""
    cost, measured = row.input_cost, row.measured
    return (
        row.policy,
        _value(cost, 3),
        f"{cost.low:.3f}–{cost.high:.3f}" if cost and cost.low != cost.high else "",
        _value(row.bill, 3),
        _value(row.tokens, 3),
        *(_value(kept, 4) for kept in (row.words, row.lines, row.places)),
        str(row.num_rewrites),
        str(sum(measured.bypasses.values())) if measured else "",
        _times(measured.overhead) if measured else "",
        _times(row.round_trip),
    )


def _table(rows: Sequence[Figures], looks: charts.Looks) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in COLUMNS)
    body = "".join(
        f'<tr><th scope="row"><span class="key {looks(row.policy)}"></span>{escape(first)}</th>'
        + "".join(f"<td>{escape(each)}</td>" for each in rest)
        + "</tr>"
        for row in rows
        for first, *rest in [cells(row)]
    )
    buttons = "".join(
        f'<button type="button" data-copy="{kind}">Copy as {name}</button>'
        for kind, name in (("md", "Markdown"), ("tsv", "TSV"))
    )
    return (
        f'<p class="copy">{buttons}<span role="status" id="copied"></span></p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of figures">'
        f'<table id="table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _section(title: str, note: str, content: str) -> str:
    if not content:
        return ""
    words = f"<p>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{words}{content}</section>\n"


def _wide(drawn: str, legend: str = "") -> str:
    return f'{legend}<figure class="scroll" tabindex="0">{drawn}</figure>' if drawn else ""


def _value(value: Ratio | None, digits: int) -> str:
    return "" if value is None else f"{value.value:.{digits}f}"


def _times(times: Percentiles | None) -> str:
    return f"{times.p50_ms:.1f}/{times.p95_ms:.1f}" if times else ""
