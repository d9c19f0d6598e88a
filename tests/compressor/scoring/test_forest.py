from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from sluice.compressor.scoring import ModelFileError
from sluice.compressor.scoring.forest import Forest, read_forest, write_forest


def small_forest() -> Forest:
    """One head; one tree: x0 <= 1 ? 1 : (x1 <= 5 ? 2 : 4), and one constant tree."""
    everything = 0xFFFFFFFF
    return Forest(
        heads=("only",),
        features=("x0", "x1"),
        head_of_tree=np.array([0, 0]),
        feature=np.array([[0, 0], [1, 0]]),
        threshold=np.array([[1, np.inf], [5, np.inf]], dtype=np.float32),
        clears=np.array([[everything & ~1, everything], [everything & ~2, everything]], dtype=np.uint32),
        leaf=np.array([[1, 2, 4], [0.5, 0, 0]], dtype=np.float32),
    )


def test_a_forest_sums_the_leaves_that_a_line_reaches() -> None:
    rows = np.array([[1, 9], [2, 5], [2, 5.5], [0, 0]], dtype=np.float32)
    assert small_forest().margins(rows)[:, 0].tolist() == [1.5, 2.5, 4.5, 1.5]
    many = np.tile(rows, (2_000, 1))
    assert small_forest().margins(many)[-4:, 0].tolist() == [1.5, 2.5, 4.5, 1.5]


def test_a_forest_survives_its_file(tmp_path: Path) -> None:
    write_forest(tmp_path / "m.npz", small_forest(), {"version": "7"})
    forest, note = read_forest(tmp_path / "m.npz")
    assert note == {"version": "7"}
    assert forest.features == ("x0", "x1")
    assert forest.margins(np.array([[2, 6]], dtype=np.float32)).tolist() == [[4.5]]


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_a_broken_model_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"bad\.npz"):
        read_forest(tmp_path / "bad.npz")


def test_a_file_that_is_no_forest_is_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, other=np.zeros(2))
    (tmp_path / "bad.npz").write_bytes(stream.getvalue())
    with pytest.raises(ModelFileError, match=r"bad\.npz"):
        read_forest(tmp_path / "bad.npz")
    with pytest.raises(ModelFileError, match=r"absent\.npz"):
        read_forest(tmp_path / "absent.npz")
