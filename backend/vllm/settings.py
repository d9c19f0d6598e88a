"""What can be set of the managed vLLM: the table `[vllm]` of `sluice.toml`, one frozen typed object.

Names are vLLM's own where it has one. None leaves the choice to vLLM. What is not here can be passed on raw
(`extra_args`). Checked against vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from sluice.backend.errors import VllmSettingsError

Speculation = Literal["none", "ngram", "suffix", "draft_model", "eagle3", "mtp"]
_NEEDS_MODEL = ("draft_model", "eagle3")


class VllmSettings(BaseModel):
    """Settings of one managed vLLM."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str | None = None
    """Hub name or folder of the weights. None: the bundled default weights, for a try-out."""
    served_model_name: str | None = None
    """What requests call it; None: as `model` says."""
    env_dir: Path | None = None
    """The environment that vLLM is installed in; None: where `sluice backend install vllm` puts it."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port on 127.0.0.1; 0 takes a free one and keeps it over restarts."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of weights and activations."""
    quantization: str | None = None
    """How weights are packed. None: as the checkpoint says (fp8; AWQ and GPTQ, on Marlin kernels where the GPU has
    them). `fp8_per_tensor` packs a 16-bit checkpoint while loading it; `awq_marlin` and `gptq_marlin` insist on
    Marlin."""
    tokenizer: str | None = None
    """Hub name or folder of the tokenizer, where the weights bring none (GGUF, which needs vLLM's GGUF plugin)."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens of prompt and output together."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Share of each GPU's memory that weights and KV cache may take."""
    cpu_kv_gib: float | None = Field(default=None, gt=0)
    """KV cache on a machine without a GPU, in GiB."""
    num_threads: int | None = Field(default=None, ge=1)
    """Threads of the computation on a machine without a GPU."""
    enforce_eager: bool | None = None
    """Whether nothing is compiled or captured. None: True on CPU builds, where compiled models were seen to answer
    wrongly; vLLM's choice on GPUs."""

    enable_prefix_caching: bool = True
    """Whether prefixes are kept and found again."""
    prefix_caching_hash_algo: Literal["sha256", "sha256_cbor", "xxhash", "xxhash_cbor"] = "sha256"
    """How blocks are named. `sha256`: no prompt can be made to hit another's blocks; `sha256_cbor` names them the same
    in every process."""
    enable_chunked_prefill: bool = True
    """Whether a long prompt is computed in pieces beside others' decoding."""
    async_scheduling: bool | None = None
    """Whether the next step is planned while this one runs; None: where the other settings allow it."""
    block_size: int | None = Field(default=None, ge=1)
    """Tokens of a KV block."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Sequences computed together."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one step."""

    kv_cache_dtype: str = "auto"
    """Type of keys and values: `fp8` holds twice as many as 16 bits."""
    kv_offload_gib: float | None = Field(default=None, gt=0)
    """Memory of the machine for blocks that leave the GPU, in GiB; None: they are lost."""
    kv_offload_backend: Literal["native", "lmcache"] = "native"
    """Who moves them. `lmcache` has to be installed beside vLLM (`sluice backend install vllm --with lmcache`)."""
    kv_redis_url: SecretStr | None = None
    """A Redis that all replicas share as the last tier (`redis://host:port`); takes LMCache. None: no such tier."""
    kv_role: Literal["kv_producer", "kv_consumer", "kv_both"] | None = None
    """This replica's part in disaggregated prefill; None: it does both by itself."""
    kv_connector: str = "NixlConnector"
    """What moves the cache between prefill and decode replicas, where `kv_role` is set; this one takes nixl."""
    kv_transfer_config: dict[str, Any] | None = None
    """vLLM's `--kv-transfer-config`, whole; excludes the settings above that would write it."""
    kv_events: str | None = Field(default=None, pattern=r"^(ipc://.+|tcp://\*:\d+)$")
    """Where the replica publishes which blocks it holds, for an exact router: `ipc:///path` on one machine, or
    `tcp://*:port`, which shows prompts' tokens to whoever can reach it. Replays stand at the path with `.replay`, or on
    the port behind it."""

    speculation: Speculation = "none"
    """Where drafts come from: `ngram` from the prompt itself, `suffix` from it and earlier answers (takes
    arctic-inference), the others from a model."""
    speculation_model: str | None = None
    """Hub name or folder of the draft model or of the EAGLE-3 heads."""
    num_speculative_tokens: int | None = Field(default=None, ge=1)
    """Tokens drafted at once; None: 8 for `ngram`, 3 for `draft_model` and `eagle3`, 1 for `mtp`, vLLM's choice for
    `suffix`."""
    prompt_lookup_min: int = Field(default=2, ge=1)
    """Shortest run of tokens that `ngram` looks up."""
    prompt_lookup_max: int = Field(default=5, ge=1)
    """Longest."""

    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share each layer."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """Groups of GPUs that share the layers among them."""
    data_parallel_size: int = Field(default=1, ge=1)
    """Copies of the engine behind one port."""
    distributed_executor_backend: Literal["mp", "ray"] | None = None
    """Who starts the workers; `ray` spans machines (a Ray cluster has to run; takes `ray[cgraph]`)."""

    lora_modules: dict[str, str] = {}
    """Adapters by the name that requests call them: hub name or folder."""
    max_lora_rank: int | None = Field(default=None, ge=1)
    """Largest rank among them."""
    tool_call_parser: str | None = None
    """How the model writes tool calls (`hermes`, `qwen3_coder`, `llama3_json` …); None: it is not asked to."""
    reasoning_parser: str | None = None
    """How the model sets its thoughts apart."""
    chat_template: Path | None = None
    """File with another chat template."""

    extra_args: tuple[str, ...] = ()
    """Passed on to `vllm serve` as they are, behind all others, so that they win."""
    env: dict[str, str] = {}
    """More environment for vLLM."""

    start_timeout_s: float = Field(default=1800.0, gt=0)
    """Longest wait until it is ready, in seconds; large weights take minutes."""
    drain_s: float = Field(default=30.0, ge=0)
    """Seconds that requests in progress get when it is told to end."""
    check_prompt: str = " ".join(map(str, range(1, 150)))
    """The question with a known answer, continued as plain text; long enough to fill several KV blocks. Empty: none."""
    check_answer: str = "150"
    """What the continuation has to begin with, spaces aside."""
    max_restarts: int = Field(default=5, ge=0)
    """Starts after a crash within `restart_window_s`; one more ends the server."""
    restart_window_s: float = Field(default=600.0, gt=0)
    """Time after which a crash is forgotten, in seconds."""
    restart_delay_s: float = Field(default=1.0, ge=0)
    """Wait before the first restart, in seconds; doubled for each in the window, up to a minute."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.speculation in _NEEDS_MODEL and self.speculation_model is None:
            raise ValueError(f"speculation = {self.speculation!r} needs speculation_model")
        if self.speculation not in _NEEDS_MODEL and self.speculation_model is not None:
            raise ValueError(f"speculation_model = {self.speculation_model!r} is not used by {self.speculation!r}")
        if self.prompt_lookup_min > self.prompt_lookup_max:
            raise ValueError(
                f"prompt_lookup_min = {self.prompt_lookup_min} is above prompt_lookup_max = {self.prompt_lookup_max}"
            )
        writers = {"kv_redis_url": self.kv_redis_url, "kv_role": self.kv_role}
        given = [key for key, value in writers.items() if value is not None]
        if self.kv_transfer_config is not None and given:
            raise ValueError(f"kv_transfer_config and {' and '.join(given)} exclude each other")
        if self.kv_redis_url is not None and self.kv_offload_gib is not None and self.kv_offload_backend == "native":
            raise ValueError("kv_redis_url takes LMCache: kv_offload_backend must be 'lmcache', too")
        return self


def load_vllm_settings(fields: Mapping[str, object]) -> VllmSettings:
    """Check the settings.

    Raises:
        VllmSettingsError: a key is unknown or a value cannot be used; the message names both.
    """
    try:
        return VllmSettings.model_validate(dict(fields))
    except ValidationError as error:
        raise VllmSettingsError("; ".join(_describe(detail) for detail in error.errors())) from None


def _describe(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    if not key:
        return f"bad value in vllm: {message}"
    if detail["type"] == "extra_forbidden":
        return f"unknown setting 'vllm.{key}'; known are {', '.join(sorted(VllmSettings.model_fields))}"
    shown = "***" if key == "kv_redis_url" else repr(detail["input"])
    return f"bad value for vllm.{key}: {shown}: {message[:1].lower() + message[1:]}"
