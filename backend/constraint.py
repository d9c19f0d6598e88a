"""Holds output to a JSON schema: which tokens may come next, by llguidance.

Knows tokens and grammars; the engine only sees the `Constraint` of a sequence.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sluice.backend.errors import InvalidRequestError

# One way to write each value: where white space is free, a small model may go on with it for ever.
_FORM: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammars:
    """Makes constraints for one tokenizer."""

    def __init__(self, tokenizer_file: Path, vocab_size: int, end_token_ids: frozenset[int]) -> None:
        self._file = tokenizer_file
        self._vocab_size = vocab_size
        self._end_token_ids = sorted(end_token_ids)

    def json_schema(self, schema: dict[str, Any], param: str) -> Callable[[], JsonConstraint]:
        """What makes a fresh constraint for each sequence.

        Raises InvalidRequestError for a schema that cannot be held.
        """
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_FORM)
        first = LLMatcher(self._tokenizer, grammar)
        if first.is_error():
            raise _refusal(param, first)
        return lambda: JsonConstraint(first.deep_copy(), param)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from llguidance import LLTokenizer

        return LLTokenizer(
            self._file.read_text(encoding="utf-8"), n_vocab=self._vocab_size, eos_token=self._end_token_ids
        )


class JsonConstraint:
    """Where one sequence stands in its grammar; see `Constraint`."""

    def __init__(self, matcher: Any, param: str) -> None:
        """`param` is the field that the form comes from."""
        self._matcher = matcher
        self._param = param

    @property
    def failure(self) -> InvalidRequestError | None:
        """See `Constraint.failure`: a form may turn out too large on the way, and the matcher lets nothing but end."""
        if not self._matcher.is_error():
            return None
        return _refusal(self._param, self._matcher)

    def allowed(self, draft: Sequence[int]) -> list[bytes]:
        """See `Constraint.allowed`."""
        masks: list[bytes] = [self._matcher.compute_logit_bias()]
        num_consumed = 0
        for token in draft:
            if self._matcher.is_stopped() or not self._matcher.try_consume_tokens([token]):
                break
            num_consumed += 1
            masks.append(self._matcher.compute_logit_bias())
        self._matcher.rollback(num_consumed)
        # Behind a token that is not allowed nothing counts.
        return masks + masks[-1:] * (len(draft) + 1 - len(masks))

    def advance(self, tokens: Sequence[int]) -> None:
        """See `Constraint.advance`."""
        self._matcher.try_consume_tokens(list(tokens))


def _refusal(param: str, matcher: Any) -> InvalidRequestError:
    return InvalidRequestError(f"{param} cannot be held: {matcher.get_error()}", param)
