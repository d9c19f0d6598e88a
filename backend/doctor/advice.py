"""What to run a model with on a machine: the first way that fits, best quality first. Plain functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sluice.backend.doctor.machine import Machine
from sluice.backend.doctor.sizing import (
    GPU_SHARE,
    ModelShape,
    kv_bytes_per_token,
    kv_room_bytes,
    streams_that_fit,
    weight_bytes,
)

_FP8_CAPABILITY = 8.9
_CPU_SHARE = 0.6
"""Of a machine's memory, what weights and KV cache may take where there is no GPU."""
WANTED_STREAMS = 4
"""Conversations that should fit before quality is given up for room."""
_FP8_PACKING = "fp8_per_tensor"
"""How vLLM packs a 16-bit checkpoint while it loads it."""
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Advice:
    """How a model would be run."""

    model: str
    context: int
    fits: bool
    weights: str
    kv: str
    num_gpus: int
    """GPUs that share the model (tensor parallel); 0: it runs on the CPU."""
    num_copies: int
    """Such groups on this machine: that many replicas behind the router."""
    weight_bytes: float
    kv_bytes_per_token: float
    kv_room_bytes: float
    """Of one copy."""
    num_streams: int
    """Conversations of `context` tokens that one copy holds at a time."""
    flags: tuple[str, ...]
    """Of `vllm serve`."""
    notes: tuple[str, ...] = ()


def advise(machine: Machine, shape: ModelShape, context: int, *, weights: str = "auto", kv: str = "auto") -> Advice:
    """Choose packing, cache type and number of GPUs.

    Tried in order: 16 bits, 8-bit cache, 8-bit weights, 4-bit weights; each on as few GPUs as hold `WANTED_STREAMS`
    conversations. If none does, the way with the most room is taken. A checkpoint that is packed already has its own
    packing alone.
    """
    ways = _ways(machine)
    if shape.packing is not None:
        weights = f"packed as {shape.packing.name}"
        ways = [(weights, k) for k in dict.fromkeys(k for _, k in ways)]
    options = [(w, k) for w, k in ways if weights in ("auto", w) and kv in ("auto", k)]
    if not options:
        options = [(weights if weights != "auto" else "16bit", kv if kv != "auto" else "16bit")]
    best: Advice | None = None
    for way in options:
        for num_gpus in _group_sizes(len(machine.gpus), shape):
            found = _plan(machine, shape, context, num_gpus, *way)
            if found.num_streams >= WANTED_STREAMS:
                return found
            if (
                best is None
                or found.num_streams > best.num_streams
                or (found.num_streams == best.num_streams and found.kv_room_bytes > best.kv_room_bytes)
            ):
                best = found
    assert best is not None
    return best


def describe(machine: Machine, advice: Advice | None) -> list[str]:
    """Lines for the terminal."""
    lines = [
        f"{gpu.name}: {gpu.memory_bytes / _GIB:.0f} GiB, {gpu.free_bytes / _GIB:.0f} GiB free, driver {gpu.driver}, "
        f"compute capability {gpu.compute_capability:g}"
        for gpu in machine.gpus
    ] or ["no NVIDIA GPU"]
    lines.append(
        f"{machine.num_cores} CPU cores, {machine.memory_bytes / _GIB:.0f} GiB memory, "
        f"{machine.disk_free_bytes / _GIB:.0f} GiB free on disk"
    )
    build = " (CPU build)" if machine.is_cpu_build else ""
    lines.append(
        f"vLLM: {machine.vllm}{build}" if machine.vllm else "vLLM: not installed (sluice backend install vllm)"
    )
    if advice is None:
        return [*lines, "give --params B (billion parameters) or --model FOLDER to be told what fits"]
    where = f"{advice.num_gpus} GPU{'s' if advice.num_gpus > 1 else ''}" if advice.num_gpus else "the CPU"
    lines += [
        "",
        f"{advice.model}, conversations of {advice.context:,} tokens, on {where}"
        + (f", {advice.num_copies} copies behind the router" if advice.num_copies > 1 else ""),
        f"  weights ({advice.weights}): {advice.weight_bytes / _GIB:.1f} GiB",
        f"  KV cache ({advice.kv}): {advice.kv_bytes_per_token / 1024:.1f} KiB a token, "
        f"{advice.kv_bytes_per_token * advice.context / _GIB:.2f} GiB a conversation",
    ]
    if not advice.fits:
        return [*lines, *(f"  {note}" for note in advice.notes)]
    return [
        *lines,
        f"  room for the KV cache: {advice.kv_room_bytes / _GIB:.1f} GiB, "
        f"{advice.kv_room_bytes / advice.kv_bytes_per_token:,.0f} tokens: {advice.num_streams} conversations at a time",
        f"  flags: {' '.join(advice.flags) or '(none)'}",
        *(f"  {note}" for note in advice.notes),
    ]


def _ways(machine: Machine) -> Sequence[tuple[str, str]]:
    """Packings of weights and cache that the machine can compute with, best first."""
    if not machine.gpus:
        return (("16bit", "16bit"),)
    if min(gpu.compute_capability for gpu in machine.gpus) < _FP8_CAPABILITY:
        return (("16bit", "16bit"), ("4bit", "16bit"))
    return (("16bit", "16bit"), ("16bit", "fp8"), ("fp8", "fp8"), ("4bit", "fp8"))


def _group_sizes(num_gpus: int, shape: ModelShape) -> list[int]:
    """Numbers of GPUs that the heads can be spread over, or copied to evenly; 0 alone where there is none."""
    if not num_gpus:
        return [0]
    sizes = [size for size in (1, 2, 4, 8, 16) if size <= num_gpus]
    heads = shape.num_kv_heads
    return [size for size in sizes if shape.latent_dim or heads % size == 0 or size % heads == 0] or [1]


def _plan(machine: Machine, shape: ModelShape, context: int, num_gpus: int, weights: str, kv: str) -> Advice:
    per_token = kv_bytes_per_token(shape, kv)
    if num_gpus:
        smallest = min(gpu.memory_bytes for gpu in machine.gpus)
        room = kv_room_bytes(shape, gpu_bytes=smallest, num_gpus=num_gpus, weights=weights)
        if shape.latent_dim is not None:
            per_token *= num_gpus  # the one compressed vector is kept by every GPU
        else:
            per_token *= max(1, num_gpus // shape.num_kv_heads)  # so is a head where there are more GPUs than heads
    else:
        room = machine.memory_bytes * _CPU_SHARE - weight_bytes(shape, weights)
    streams = streams_that_fit(room, per_token, context)
    notes = []
    # What is packed while loading is fetched at 16 bits.
    if weight_bytes(shape, "16bit" if weights == "fp8" else weights) > machine.disk_free_bytes:
        notes.append("the weights do not fit on the disk")
    if any(gpu.free_bytes < GPU_SHARE * gpu.memory_bytes for gpu in machine.gpus):
        notes.append("another program holds memory of a GPU: end it, or lower gpu_memory_utilization")
    if room <= 0:
        notes.append(f"does not fit: {-room / _GIB:.1f} GiB are missing for the weights alone")
    elif not streams:
        longest = int(room // per_token)
        notes.append(f"not one conversation of {context:,} tokens fits; the longest has {longest:,}")
    if shape.packing is not None:
        notes.append("the weights are packed already: they run as they are, and in no other form")
    if weights == "fp8":
        notes.append("a checkpoint that is in fp8 already needs no --quantization")
    if weights == "4bit":
        notes.append("take a checkpoint in AWQ or GPTQ form: vLLM does not pack to 4 bits by itself")
    return Advice(
        model=f"{shape.num_params / 1e9:.3g}B parameters ({shape.name})",
        context=context,
        fits=streams > 0,
        weights=weights,
        kv=kv,
        num_gpus=num_gpus,
        num_copies=len(machine.gpus) // num_gpus if num_gpus else 1,
        weight_bytes=weight_bytes(shape, weights),
        kv_bytes_per_token=per_token,
        kv_room_bytes=room,
        num_streams=streams,
        flags=_flags(context, num_gpus, weights, kv, streams, room),
        notes=tuple(notes),
    )


def _flags(context: int, num_gpus: int, weights: str, kv: str, streams: int, room: float) -> tuple[str, ...]:
    flags = ["--max-model-len", str(context)]
    if num_gpus > 1:
        flags += ["--tensor-parallel-size", str(num_gpus)]
    if weights == "fp8":
        flags += ["--quantization", _FP8_PACKING]
    if kv == "fp8":
        flags += ["--kv-cache-dtype", "fp8"]
    if not num_gpus and room > 0:
        flags += ["--enforce-eager", "--max-num-seqs", str(max(1, min(streams, 8)))]
    return tuple(flags)
