"""Loads a trained model onto a device, in the form that is fastest there. Takes seconds; for a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal

from sluice.compressor.scoring.errors import ModelFileError
from sluice.compressor.scoring.neural.card import CARD, read_card
from sluice.compressor.scoring.neural.types import LineModel

Device = Literal["auto", "cpu", "cuda"]


def default_folder() -> Path:
    """The folder of the model that comes along.

    Raises:
        ModelFileError: none comes along with this version.
    """
    folder = Path(str(files("sluice.compressor.scoring.neural").joinpath("model")))
    if not (folder / CARD).is_file():
        raise ModelFileError(str(folder), "no network comes along with this version; name the folder of a trained one")
    return folder


def load_model(folder: Path, *, device: Device = "auto", folders: Mapping[str, Path] | None = None) -> LineModel:
    """Load it: bfloat16 and compiled on a GPU, 8 bits on a CPU.

    Args:
        folder: the model's.
        device: `auto` takes a GPU where there is one.
        folders: see `find_base`.

    Raises:
        ImportError: torch or transformers are not installed.
        ModelFileError: the folder holds no model of this version, or it does not fit its base.
        MissingBaseError: the base is not installed.
    """
    import torch

    from sluice.compressor.scoring.neural.layers import is_known
    from sluice.compressor.scoring.neural.model_file import read_network
    from sluice.compressor.scoring.neural.packed_model import PackedModel
    from sluice.compressor.scoring.neural.torch_model import TorchModel

    on = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    card = read_card(folder)
    network = read_network(folder, folders=folders)
    is_gpu = on == "cuda"
    if is_known(network):
        return PackedModel(card, network, device=on, form="bfloat16" if is_gpu else "int8", is_compiled=is_gpu)
    if is_gpu:
        network.base.to(torch.bfloat16)
    return TorchModel(card, network.to(on))
