"""The folders at the top level are installed as `sluice.*`: editable, as a wheel, beside a user's own names."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
APPLICATION = """
import backend, search, sys
assert (backend.NAME, search.NAME) == ("the application's", "the application's"), (backend, search)
import sluice, sluice.backend, sluice.compressor, sluice.eval, sluice.proxy
assert sluice.backend.__name__ == "sluice.backend" and not hasattr(sluice.backend, "NAME")
heavy = {"torch", "transformers", "numpy", "tree_sitter"} & set(sys.modules)
assert not heavy, f"a bare import pulled in {heavy}"
print(sluice.compressor.__file__)
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A program that has its own `search` and `backend`."""
    for name in ("search", "backend"):
        (tmp_path / "app" / name).mkdir(parents=True)
        (tmp_path / "app" / name / "__init__.py").write_text('NAME = "the application\'s"\n')
    (tmp_path / "app" / "main.py").write_text(APPLICATION)
    return tmp_path / "app"


def run_application(application: Path, python_path: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if python_path:
        environment["PYTHONPATH"] = str(python_path)
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=application, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_editable_install_lives_beside_a_users_own_packages(application: Path) -> None:
    assert Path(run_application(application)).resolve() == ROOT / "compressor" / "__init__.py"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--wheel-dir", str(folder), str(ROOT)],
        check=True,
    )  # fmt: skip
    (built,) = folder.glob("sluicegate-*.whl")
    return built


def test_the_wheel_lives_beside_a_users_own_packages(application: Path, wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert Path(run_application(application, installed)).resolve().is_relative_to(installed)


def test_the_wheel_holds_the_packages_once_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sluice"}
    for needed in (
        "sluice/py.typed",
        "sluice/proxy/app.py",
        "sluice/proxy/dashboard/static/index.html",
        "sluice/proxy/dashboard/static/vendor/uplot/LICENSE",
        "sluice/compressor/compressor.py",
        "sluice/backend/base.py",
    ):
        assert needed in names
    assert not [name for name in names if "/tests/" in name or name.endswith(".pyc")]


def test_what_the_readme_links_to_is_in_the_source_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    links = re.findall(r"\]\(([\w./-]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert len(links) > 10
    assert {link.partition("/")[0] for link in links} <= set(included)


def test_every_command_is_registered_by_its_own_package() -> None:
    for entry in importlib.metadata.entry_points(group="sluice.commands"):
        assert entry.value.startswith("sluice."), entry
        assert entry.load().callback is not None or entry.load().commands, entry
