"""What others import of search does without the packages of its extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sluice.search


def test_public_names_are_there():
    assert all(hasattr(sluice.search, name) for name in sluice.search.__all__)


@pytest.mark.parametrize("module", ["sluice.search", "sluice.search.cli", "sluice.compressor.syntax"])
def test_imports_without_the_extra(module):
    code = (
        f"import sys, {module}\n"
        "heavy = {'numpy', 'tree_sitter', 'tree_sitter_language_pack', 'mcp', 'lightgbm', 'aiohttp', 'torch'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
