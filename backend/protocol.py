"""The request bodies that the server reads, checked and turned into what the engine takes.

Fields of OpenAI's API that change nothing here are ignored; those that would change the answer and are not served are
refused. Sampling fields beyond OpenAI's are named as vLLM names them.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from sluice.backend.base import SamplingParams
from sluice.backend.errors import InvalidRequestError
from sluice.backend.surrogates import decode_whole
from sluice.backend.tools import call_schema

_MAX_STOPS = 16
_MAX_LOGPROBS = 20
_MAX_TOKEN_DIGITS = 18
_LEAST = 1e-6
"""Smaller temperatures are 0, smaller shares and penalties this: float32 would make 0 of some of them."""
_MAX_TOP_K = 2**31 - 1
"""No vocabulary has as many tokens; a tensor could not hold any number."""


class StreamOptions(msgspec.Struct):
    """`stream_options` of a request."""

    include_usage: bool | None = None


class GenerationRequest(msgspec.Struct, kw_only=True):
    """What both kinds of completion have."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling_params(self) -> SamplingParams:
        """Raises InvalidRequestError that names field and value."""
        limit = self._max_tokens()
        _check("n", self.n, self.n is None or self.n >= 1, "at least 1")
        _check("max_tokens", limit, limit is None or limit >= 1, "at least 1")
        _check_range("temperature", self.temperature, 0, 2)
        _check("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1")
        _check("top_k", self.top_k, self.top_k is None or self.top_k >= -1, "at least 1, or 0 or -1 for all")
        _check("seed", self.seed, self.seed is None or -(2**63) <= self.seed < 2**64, "a number of 64 bits")
        _check_range("min_p", self.min_p, 0, 1)
        _check_range("presence_penalty", self.presence_penalty, -2, 2)
        _check_range("frequency_penalty", self.frequency_penalty, -2, 2)
        repetition = self.repetition_penalty
        _check("repetition_penalty", repetition, repetition is None or 0 < repetition <= 10, "above 0 and at most 10")
        temperature = _or(self.temperature, 1.0)
        return SamplingParams(
            n=self.n or 1,
            max_tokens=limit,
            temperature=temperature if temperature >= _LEAST else 0.0,
            top_p=max(_or(self.top_p, 1.0), _LEAST),
            top_k=min(max(_or(self.top_k, 0), 0), _MAX_TOP_K),
            min_p=_or(self.min_p, 0.0),
            presence_penalty=_or(self.presence_penalty, 0.0),
            frequency_penalty=_or(self.frequency_penalty, 0.0),
            repetition_penalty=max(_or(repetition, 1.0), _LEAST),
            logit_bias=self._biases(),
            seed=self.seed,
            num_logprobs=self._num_logprobs(),
            stop_token_ids=frozenset(self.stop_token_ids or ()),
            ignore_end=bool(self.ignore_eos),
        )

    def stops(self) -> list[str]:
        """Raises InvalidRequestError."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        _check("stop", len(stops), len(stops) <= _MAX_STOPS, f"at most {_MAX_STOPS} strings")
        _check("stop", stops, all(stops), "non-empty strings")
        return stops

    def _max_tokens(self) -> int | None:
        return self.max_tokens

    def _num_logprobs(self) -> int | None:
        return None

    def _biases(self) -> dict[int, float]:
        biases = {}
        for token, bias in (self.logit_bias or {}).items():
            is_token = token.isdecimal() and len(token) <= _MAX_TOKEN_DIGITS
            _check("logit_bias", token, is_token, "token ids as keys")
            _check_range("logit_bias", bias, -100, 100)
            biases[int(token)] = bias
        return biases


class ChatRequest(GenerationRequest, kw_only=True):
    """Body of `/v1/chat/completions`."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    prediction: dict[str, Any] | None = None

    def wanted_tools(self) -> list[dict[str, Any]]:
        """The tools that may be called."""
        return [] if self.tool_choice == "none" else self.tools or []

    def schema(self) -> tuple[dict[str, Any], str] | None:
        """JSON schema that the answer must hold, and the field that says so; None if there is none.

        Raises InvalidRequestError.
        """
        if self.tool_choice not in (None, "none", "auto"):
            return call_schema(self.wanted_tools(), self._tool_name()), "tools"
        wanted = self.response_format or {}
        kind = wanted.get("type", "text")
        if kind == "json_object":
            return {"type": "object"}, "response_format"
        if kind == "json_schema":
            form = wanted.get("json_schema")
            schema = form.get("schema") if isinstance(form, dict) else None
            _check("response_format.json_schema.schema", schema, isinstance(schema, dict), "an object")
            return schema or {}, "response_format.json_schema.schema"
        _check("response_format.type", kind, kind == "text", "'text', 'json_object' or 'json_schema'")
        return None

    def _tool_name(self) -> str | None:
        """The tool that must be called; None: any."""
        if isinstance(self.tool_choice, dict):
            function = self.tool_choice.get("function")
            name = function.get("name") if isinstance(function, dict) else None
            _check("tool_choice", self.tool_choice, isinstance(name, str), "a function with a name")
            return name
        _check("tool_choice", self.tool_choice, self.tool_choice == "required", "'none', 'auto' or 'required'")
        return None

    def plain_messages(self) -> list[dict[str, Any]]:
        """The messages with their content as one string, as chat templates expect it.

        Raises InvalidRequestError for a message without a role, for content that is not text, and for calls that are
        no list.
        """
        _check("messages", self.messages, bool(self.messages), "a list with at least one message")
        return [_plain_message(index, message) for index, message in enumerate(self.messages)]

    def predictions(self) -> list[str]:
        """Texts that the answer may repeat, in OpenAI's `prediction`. Raises InvalidRequestError."""
        if self.prediction is None:
            return []
        return [_plain_text("prediction.content", self.prediction.get("content"))]

    def _max_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def _num_logprobs(self) -> int | None:
        _check_range("top_logprobs", self.top_logprobs, 0, _MAX_LOGPROBS)
        return self.top_logprobs or 0 if self.logprobs else None


class CompletionRequest(GenerationRequest, kw_only=True):
    """Body of `/v1/completions`."""

    prompt: str | list[Any]
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
    logprobs: int | None = None

    def check(self) -> None:
        """Refuse what is not served. Raises InvalidRequestError."""
        _check("echo", self.echo, not self.echo, "false")
        _check("suffix", self.suffix, not self.suffix, "absent")
        _check("best_of", self.best_of, self.best_of in (None, 1, self.n), "absent")
        is_ids = isinstance(self.prompt, str) or all(type(token) is int for token in self.prompt)
        _check("prompt", self.prompt, is_ids, "a string or a list of token ids (one prompt in a request)")

    def _num_logprobs(self) -> int | None:
        _check_range("logprobs", self.logprobs, 0, _MAX_LOGPROBS)
        return self.logprobs


RequestT = TypeVar("RequestT")
ValueT = TypeVar("ValueT")


def decode(body: bytes, kind: type[RequestT]) -> RequestT:
    """Read a request body; halves of surrogate pairs are U+FFFD. Raises InvalidRequestError that says what is wrong."""
    try:
        return decode_whole(msgspec.json.Decoder(kind).decode, body)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise InvalidRequestError(str(error), where.rstrip("`") or _missing_field(what)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidRequestError("the body is nested too deeply") from None


def _missing_field(what: str) -> str | None:
    """Object missing required field `model` → model."""
    return what.split("`")[-2] if "missing required field" in what else None


def _plain_message(index: int, message: dict[str, Any]) -> dict[str, Any]:
    role = message.get("role")
    _check(f"messages[{index}].role", role, isinstance(role, str), "a string")
    calls = message.get("tool_calls")
    _check(f"messages[{index}].tool_calls", calls, calls is None or isinstance(calls, list), "a list")
    return {**message, "content": _plain_text(f"messages[{index}].content", message.get("content"))}


def _plain_text(where: str, content: object) -> str:
    if isinstance(content, list):
        for part in content:
            known = isinstance(part, dict) and isinstance(part.get("text", part.get("refusal")), str)
            _check(where, part, known, "text parts (this model reads text alone)")
        content = "".join(part.get("text", part.get("refusal")) for part in content)
    _check(where, content, content is None or isinstance(content, str), "a string or a list of parts")
    return str(content or "")


def _or(value: ValueT | None, default: ValueT) -> ValueT:
    return default if value is None else value


def _check_range(param: str, value: float | None, low: float, high: float) -> None:
    _check(param, value, value is None or low <= value <= high, f"from {low} to {high}")


def _check(param: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        shown = repr(value)
        shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
        raise InvalidRequestError(f"{param} is {shown}; it must be {expected}", param)
