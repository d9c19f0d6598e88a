"""Models that say how likely a text is behind another: a server with log-probabilities of the prompt, or transformers.

Servers are asked over OpenAI's `/v1/completions` with `echo`, as vLLM and llama.cpp answer it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import aiohttp

from sluice.eval.errors import ScorerError, told
from sluice.proxy.upstreams import is_context_overflow

TIMEOUT_S = 600.0
ERROR_CHARS = 300


class TextScorer(Protocol):
    """Says how likely texts are."""

    async def score(self, context: str, target: str, *, max_target_tokens: int) -> list[float] | None:
        """Log-probability (natural) of each token of `target`, up to so many, behind `context`.

        Neither holds half a surrogate pair, which no tokenizer takes.

        Returns:
            None where both do not fit the model's window.

        Raises:
            ScorerError: the model does not say.
        """
        ...


class TransformersScorer:
    """A model in this process.

    Args:
        model: a folder or a hub name; None takes the bundled backend's default weights.

    Raises:
        ScorerError: the model cannot be loaded.
    """

    def __init__(self, model: str | None) -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
            from transformers.utils import logging as transformers_logging
        except ModuleNotFoundError as error:
            raise ScorerError(f"{error.name} is not installed; run: pip install 'sluicegate[fidelity]'") from None
        self._torch = torch
        quiet: Any = transformers_logging.disable_progress_bar
        quiet()
        try:
            path = str(_default_weights()) if model is None else model
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path)
            load: Any = AutoModelForCausalLM.from_pretrained
            self._model: Any = load(path, dtype=torch.float32).eval()
        except (OSError, ValueError) as error:
            raise ScorerError(f"the model {model or 'SmolLM2-135M-Instruct'} cannot be loaded: {error}") from error

    async def score(self, context: str, target: str, *, max_target_tokens: int) -> list[float] | None:
        """See `TextScorer`."""
        return await asyncio.to_thread(self._score, context, target, max_target_tokens)

    def _score(self, context: str, target: str, max_target_tokens: int) -> list[float] | None:
        torch = self._torch
        before = self._tokenizer(context, add_special_tokens=False)["input_ids"]
        after = self._tokenizer(target, add_special_tokens=False)["input_ids"][:max_target_tokens]
        if len(before) + len(after) > self._model.config.max_position_embeddings:
            return None
        with torch.inference_mode():
            ids = torch.tensor([before + after])
            logits = self._model(ids, logits_to_keep=len(after) + 1).logits[0, :-1].float()
            chosen = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(after)[:, None])
        return [float(each) for each in chosen[:, 0]]


class ServerScorer:
    """A server; enter it to open the connection.

    Args:
        url: its origin, with or without `/v1`.
        model: named in the requests.
        api_key: sent as a bearer token, where there is one.
    """

    def __init__(self, url: str, model: str, *, api_key: str | None = None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ServerScorer:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def score(self, context: str, target: str, *, max_target_tokens: int) -> list[float] | None:
        """See `TextScorer`."""
        assert self._session is not None
        body = {
            "model": self._model,
            "prompt": context + target,
            "echo": True,
            "logprobs": 1,
            "max_tokens": 1,
            "temperature": 0,
        }
        try:
            async with self._session.post(f"{self._url}/v1/completions", json=body) as answer:
                said = await answer.read()
                if is_context_overflow(answer.status, said) is not None:
                    return None
                if answer.status != 200:
                    text = said[:ERROR_CHARS].decode(errors="replace")
                    raise ScorerError(f"{self._url} answered {answer.status}: {text}")
                whole = await answer.json(content_type=None)
                choice, num_prompt_tokens = whole["choices"][0], whole["usage"]["prompt_tokens"]
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ScorerError(f"{self._url} did not answer: {told(error)}") from error
        except (ValueError, KeyError, IndexError, TypeError):
            raise ScorerError(f"{self._url} did not answer as a server of completions does") from None
        return _of_target(choice.get("logprobs"), num_prompt_tokens, len(target))[:max_target_tokens]


def _of_target(logprobs: Any, num_prompt_tokens: int, num_target_chars: int) -> list[float]:
    """Those of the tokens that begin in the target: neither the context's nor those that were generated.

    Counted from the prompt's end, which all contexts of a target share: servers sum offsets up over what each token
    reads as by itself, so that a token they put first, or a character of several tokens, shifts all that follow.
    """
    try:
        offsets, values = logprobs["text_offset"], logprobs["token_logprobs"]
        end = offsets[num_prompt_tokens]
        prompt = zip(offsets[:num_prompt_tokens], values[:num_prompt_tokens], strict=True)
        found = [float(value) for offset, value in prompt if offset >= end - num_target_chars]
    except (IndexError, KeyError, TypeError, ValueError):
        found = []
    if not found:
        raise ScorerError("the server gave no log-probabilities of the prompt: it has to serve `echo` with `logprobs`")
    return found


def _default_weights() -> Path:
    from sluice.backend.errors import BackendError
    from sluice.backend.settings import default_cache_dir
    from sluice.backend.weights import default_weights

    try:
        return default_weights(default_cache_dir(), lambda line: None)
    except BackendError as error:
        raise ScorerError(str(error)) from None
