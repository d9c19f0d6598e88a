from __future__ import annotations

from pathlib import Path

import pytest

from tests.search.trees import write_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")
