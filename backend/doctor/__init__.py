"""`sluice backend doctor`: what a machine has, what a model needs, and what follows from both."""

from sluice.backend.doctor.advice import Advice, advise, describe
from sluice.backend.doctor.machine import Gpu, Machine, inspect_machine
from sluice.backend.doctor.sizing import ModelShape, shape_of_config, shape_of_size

__all__ = [
    "Advice",
    "Gpu",
    "Machine",
    "ModelShape",
    "advise",
    "describe",
    "inspect_machine",
    "shape_of_config",
    "shape_of_size",
]
