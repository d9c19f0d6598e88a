"""A model folder's tokenizer and chat template: messages in, token ids out.

Reads `tokenizer.json` with the `tokenizers` library and renders the template with Jinja in a sandbox, as the template
is data from a download. Knows no engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as RustTokenizer

from sluice.backend.errors import InvalidRequestError, ModelUnavailableError
from sluice.backend.surrogates import whole


class Tokenizer:
    """Text to ids and back, for one model folder."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelUnavailableError if a file cannot be read."""
        self.file = folder / "tokenizer.json"
        try:
            self._tokenizer = RustTokenizer.from_file(str(self.file))
            self._config = _read_json(folder / "tokenizer_config.json")
            template = folder / "chat_template.jinja"
            source = template.read_text(encoding="utf-8") if template.exists() else self._config.get("chat_template")
            end_ids = _end_token_ids(folder)
        except Exception as error:  # the Rust reader raises bare exceptions
            raise ModelUnavailableError(str(folder), f"its tokenizer cannot be read: {error}") from None
        if isinstance(source, list):  # several named templates
            source = next((entry["template"] for entry in source if entry["name"] == "default"), None)
        self.knows_tools = "tools" in (source or "")
        """Whether the chat template has a place for tools."""
        self._template = _environment().from_string(source) if source else None
        self._special_tokens = {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in self._config.items()
            if name.endswith("_token") and isinstance(value, str | dict)
        }
        eos = self._tokenizer.token_to_id(self._special_tokens.get("eos_token", ""))
        self.end_token_ids: frozenset[int] = end_ids | ({eos} if eos is not None else set())

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids of `text`; special tokens written in it are read as such, halves of surrogate pairs as U+FFFD."""
        ids: list[int] = self._tokenizer.encode(whole(text), add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens; incomplete characters come out as U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """The prompt for the assistant's next message.

        Raises InvalidRequestError if the model has no chat template or the template refuses the messages.
        """
        if self._template is None:
            raise InvalidRequestError("this model has no chat template; use /v1/completions", "messages")
        try:
            return self._template.render(
                messages=messages, tools=tools, add_generation_prompt=True, **self._special_tokens
            )
        except (TemplateError, TypeError, RecursionError) as error:
            raise InvalidRequestError(f"the model's chat template refuses the messages: {error}", "messages") from None


def _environment() -> ImmutableSandboxedEnvironment:
    """What chat templates expect to find, by the conventions of the model hub."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    return environment


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _end_token_ids(folder: Path) -> frozenset[int]:
    """End tokens by the generation settings and the model's settings."""
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = _read_json(folder / name).get("eos_token_id")
        ids.update(value if isinstance(value, list) else [] if value is None else [value])
    return frozenset(ids)


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return value
