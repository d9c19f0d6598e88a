from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest
import pytest_asyncio
import torch
import uvicorn
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from sluice.backend.embedded.config import EngineConfig
from sluice.backend.embedded.engine import EmbeddedEngine
from sluice.backend.embedded.loading import load_engine
from sluice.backend.process import EngineProcess
from sluice.backend.server import create_app
from sluice.backend.tokenizer import Tokenizer as ModelTokenizer
from sluice.backend.weights import default_weights
from tests.backend.engines import make, num_held_blocks

torch.set_num_threads(1)  # the models are tiny and the workers many: threads would only wait for each other

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_model(folder: Path, *, window: int = 512, seed: int = 0) -> Path:
    """A random Llama of two layers with a byte tokenizer: every text is some prompt, every output some text."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|im_start|>", "<|im_end|>"]
    vocabulary = {token: index for index, token in enumerate(specials + alphabet)}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}), encoding="utf-8"
    )
    hidden, heads, kv_heads, inner, layers = 64, 4, 2, 96, 2
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "max_position_embeddings": window,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "eos_token_id": 1,
        "vocab_size": len(vocabulary),
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    random = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=random) * 0.2

    kv_size = hidden // heads * kv_heads
    tensors = {"model.embed_tokens.weight": matrix(len(vocabulary), hidden), "model.norm.weight": torch.ones(hidden)}
    for layer in range(layers):
        shapes = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv_size, hidden),
            "self_attn.v_proj": (kv_size, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        for name, shape in shapes.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = matrix(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = torch.ones(hidden)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is made in a moment; its name is `tiny`."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
async def engine(tiny_folder: Path) -> AsyncIterator[EmbeddedEngine]:
    engine = make(tiny_folder)
    yield engine
    await engine.aclose()
    assert num_held_blocks(engine) == 0


@pytest.fixture(scope="session")
def wide_tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a long window."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "wide", window=8192)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Cache with the converted default weights, one for all workers of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "sluice-cache"
    default_weights(folder, lambda _: None)
    return folder


@pytest.fixture(scope="session")
def default_folder(cache_dir: Path) -> Path:
    """Folder of the converted default model."""
    return default_weights(cache_dir, lambda _: None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def smollm2_url(cache_dir: Path) -> AsyncIterator[str]:
    """A running `sluice engine serve` with the default weights, for tests of the group "smollm2": one worker's."""
    async with EngineProcess(cache_dir=cache_dir) as engine:
        yield f"{engine.base_url}/v1"


@pytest.fixture
async def url(tiny_folder: Path) -> AsyncIterator[str]:
    """The tiny model behind a real socket."""
    tokenizer = ModelTokenizer(tiny_folder)
    # What serves it may hold on to it after the test: caches of the default size would add up until nothing can fork.
    engine = load_engine(tiny_folder, EngineConfig(kv_memory_bytes=32 * 2**20), tokenizer.end_token_ids)
    config = uvicorn.Config(
        create_app(engine, tokenizer, "tiny"), port=0, log_level="warning", ws="none", http="httptools"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client
