"""What a device needs of the host: small tensors without making it wait, and kernels in Triton where it runs them."""

from __future__ import annotations

import functools
from importlib.util import find_spec

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` of the host on `device`; to a GPU through pinned memory, which torch keeps until the copy is done."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@functools.cache
def has_kernels(device: torch.device) -> bool:
    """Whether kernels written in Triton run there; torch for CUDA brings it along on most systems."""
    return device.type == "cuda" and find_spec("triton") is not None
