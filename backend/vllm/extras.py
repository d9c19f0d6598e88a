"""Packages that vLLM takes for some settings and does not bring: which, and whether they are there. Plain functions."""

from __future__ import annotations

from dataclasses import dataclass

from sluice.backend.errors import VllmInstallError
from sluice.backend.vllm.environment import Environment
from sluice.backend.vllm.settings import VllmSettings


@dataclass(frozen=True, slots=True)
class Extra:
    """A package that a setting takes."""

    setting: str
    """As the user wrote it."""
    module: str
    requirement: str
    """What pip is asked for; as vLLM 0.32 names it, where it does."""


def extras_of(settings: VllmSettings) -> list[Extra]:
    """What the settings take."""
    found = []
    if settings.speculation == "suffix":
        found.append(Extra("speculation = 'suffix'", "arctic_inference", "arctic-inference==0.1.1"))
    if settings.distributed_executor_backend == "ray":
        found.append(Extra("distributed_executor_backend = 'ray'", "ray", "ray[cgraph]"))
    if settings.kv_role is not None and settings.kv_connector == "NixlConnector":
        found.append(Extra("kv_connector = 'NixlConnector'", "nixl", "nixl"))
    if settings.kv_redis_url is not None:
        found.append(Extra("kv_redis_url", "lmcache", "lmcache"))
    elif settings.kv_offload_gib is not None and settings.kv_offload_backend == "lmcache":
        found.append(Extra("kv_offload_backend = 'lmcache'", "lmcache", "lmcache"))
    if settings.model is not None and settings.model.endswith(".gguf"):
        found.append(Extra(f"model = {settings.model!r}", "vllm_gguf_plugin", "vllm-gguf-plugin"))
    return found


def check_extras(settings: VllmSettings, installed: Environment) -> None:
    """Check that all of them are there: vLLM itself would say so after minutes, or not at all.

    Raises:
        VllmInstallError: one is missing; the message says how to get it.
    """
    for extra in extras_of(settings):
        if not installed.has_module(extra.module):
            raise VllmInstallError(
                f"{extra.setting} needs {extra.requirement} beside vLLM; run: "
                f"sluice backend install vllm --with '{extra.requirement}'"
            )
