"""The page of headers, bypass reasons, error codes and metrics: from the code where it says what they are.

What a header means stands here: `tests/test_docs.py` holds their names together with the code's.
"""

from __future__ import annotations

import ast
import inspect
import tempfile
import textwrap
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from sluice.backend.base import EngineStats
from sluice.backend.engine_metrics import render_metrics
from sluice.backend.histogram import Histogram
from sluice.backend.metrics import BackendMetrics, prometheus
from sluice.proxy.error_table import ERROR_TABLE, Rendering, rendering_of
from sluice.proxy.metrics import Metrics
from sluice.proxy.prepared import Bypass
from sluice.proxy.scorer.server import ScorerApp
from sluice.proxy.upstreams.managed import BackendStatus

ASKED = {
    "x-sluice-mode": "`off`, `safe`, `balanced` or `aggressive`, for this request; without it the setting `mode`.",
    "x-sluice-budget-tokens": "Where the messages hold more tokens, old results are rewritten towards so many "
    "([concepts](concepts.md#modes)).",
    "x-sluice-key": "A proxy key, beside the provider's credential ([access](access.md)).",
    "x-sluice-session": "Names the piece of work that a request belongs to, for `max_reattached_chars`. Without it: "
    "the session that Claude Code or Codex sends in a header, `prompt_cache_key`, or `metadata.user_id`.",
    "x-sluice-draft": "Texts that the answer may repeat, in base64, for the embedded engine "
    "([engine](engine.md#drafts)); goes to self-hosted upstreams alone.",
}
TOLD = {
    "x-sluice-mode": "The mode in force.",
    "x-sluice-tokens-in": "Tokens of the messages as they came, by our tokenizer; missing in mode `off`, and where "
    "counting takes longer than `tokens_wait_s`.",
    "x-sluice-tokens-out": "The same as they were forwarded.",
    "x-sluice-overhead-ms": "Time that was the proxy's own, until the answer's head.",
    "x-sluice-epoch": "Why earlier messages were rewritten with this request: `cold`, `pays` or `need`; missing where "
    "they were not.",
    "x-sluice-bypass": "Why compression was skipped or failed (below); missing where it ran.",
    "x-sluice-upstream": "Name of the upstream that answered.",
    "x-sluice-retries": "How often the request was sent again, to this upstream or to another; missing where it "
    "was not.",
    "x-sluice-answer": "`hit`: out of the prompt cache; `shared`: read along with a twin's; missing where it is "
    "the upstream's own.",
}
BYPASSES = {
    "state": "The state store is lost: what this process knows of the conversation goes out as before, what is new as "
    "it came.",
    "timeout": "Deciding took longer than `compress_timeout_s`: what was not decided by then went out as it came.",
    "error": "A fault of ours, with its place in the log: known decisions are replayed where that can be done, what is "
    "new went out as it came.",
    "content-encoding": "The body is packed in a way that is not known here, or badly: it went out as it came.",
    "duplicate-key": "The body names one key twice, so that nothing may be put into it: it went out as it came.",
}


def reference() -> Iterator[str]:
    """The page, but for its heading."""
    yield "\n## Headers of a request\nThey end at the proxy, but for drafts.\n\n| header | |\n|---|---|"
    yield from (f"| `{name}` | {text} |" for name, text in ASKED.items())
    yield "\n## Headers of an answer\n| header | |\n|---|---|"
    yield from (f"| `{name}` | {text} |" for name, text in TOLD.items())
    yield "\n## Bypass reasons\nIn `x-sluice-bypass`, and as `reason` of `sluice_bypasses_total`."
    yield "\n| reason | |\n|---|---|"
    yield from (f"| `{reason}` | {BYPASSES[reason]} |" for reason in sorted(typing.get_args(Bypass)))
    yield from _errors()
    yield from _metrics()


def _errors() -> Iterator[str]:
    yield "\n## Error codes\nIn `error.code` of what the proxy itself answers, whatever the wire."
    yield "What an upstream answers is passed on with its own.\n\n| status | code | |\n|---:|---|---|"
    found = [(rendering, _first_line(cls)) for cls, rendering in ERROR_TABLE.items()]
    found += [
        (rendering_of(Exception()), "A fault of ours; the log says where."),
        (rendering_of(HTTPException(404)), "There is no such route."),
        (rendering_of(HTTPException(405)), "The route has no such method."),
    ]
    for rendering, text in sorted(found, key=lambda one: (one[0].status, one[0].code)):
        if not _is_base(rendering, text):
            yield f"| {rendering.status} | `{rendering.code}` | {text} |"


def _is_base(rendering: Rendering, text: str) -> bool:
    """Whether nobody is told of it: a class that others stand for, or that ends the start."""
    return text.startswith("Base of") or rendering.code in ("config_error", "start_error")


def _metrics() -> Iterator[str]:
    yield "\n## Metrics\nOf the proxy's `/metrics`, summed over its workers.\n\n| metric | labels | |\n|---|---|---|"
    yield from _families(Metrics()._registry)
    with tempfile.TemporaryDirectory() as folder:
        names = _names_in(BackendStatus("embedded", Path(folder) / "state").render())
    up = ["Whether the backend that this proxy runs is ready.", "How often it was started again."]
    yield from (f"| `{name}` | `backend` | {text} |" for name, text in zip(names, up, strict=True))
    yield "\nOf each self-hosted backend, with the label `backend`, as far as it tells them:\n\n| metric | |\n|---|---|"
    told = _docs_of(BackendMetrics)
    times = Histogram().distribution()
    full = BackendMetrics(
        *(times if field in ("ttft", "itl") else 1 for field in inspect.get_annotations(BackendMetrics))
    )
    for name in _names_in(prometheus({"": full})):
        field = name.removeprefix("sluice_backend_").removesuffix("_total").removesuffix("_seconds")
        yield f"| `{name}` | {told[field]} |"
    yield "\nOf a `sluice scorer serve`'s own:\n\n| metric | labels | |\n|---|---|---|"
    yield from _families(ScorerApp(None, "")._registry)  # type: ignore[arg-type]
    yield "\nOf the embedded engine's own, beside vLLM's names:\n\n| metric | |\n|---|---|"
    told = _docs_of(EngineStats)
    for name in _names_in(render_metrics(EngineStats())):
        if name.startswith("sluice_"):
            field = name.removeprefix("sluice_engine_").removesuffix("_seconds")
            yield f"| `{name}` | {told.get(field) or told['num_' + field]} |"


def _families(registry: CollectorRegistry) -> Iterator[str]:
    """The rows of what is registered; of each, the name that is scraped."""
    collectors: list[Any] = sorted(registry._collector_to_names, key=lambda one: one._name)
    for one in collectors:
        name = f"{one._name}_total" if one._type == "counter" else one._name
        labels = ", ".join(f"`{label}`" for label in one._labelnames)
        yield f"| `{name}` | {labels} | {one._documentation} |"


def _names_in(exposition: str) -> list[str]:
    return [line.split()[2] for line in exposition.splitlines() if line.startswith("# TYPE")]


def _first_line(cls: type) -> str:
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split()).replace("|", "\\|")


def _docs_of(cls: type) -> Mapping[str, str]:
    """What stands under each attribute and in each property of a class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = {one.name: ast.get_docstring(one) or "" for one in tree.body if isinstance(one, ast.FunctionDef)}
    for one, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(one, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(one.target, ast.Name)
            found[one.target.id] = str(below.value.value)
    return {name: " ".join(text.split()) for name, text in found.items()}
