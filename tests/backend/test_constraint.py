from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluice.backend.constraint import Grammars
from sluice.backend.errors import InvalidRequestError
from sluice.backend.tokenizer import Tokenizer
from tests.backend.asking import WIDE

SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["x", "y"]}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.fixture
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return Tokenizer(tiny_folder)


@pytest.fixture
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer.file, 258, tokenizer.end_token_ids)


def test_the_form_is_followed_to_its_end(grammars: Grammars, tokenizer: Tokenizer) -> None:
    constraint = grammars.json_schema(SCHEMA, "p")()
    text = json.dumps({"a": "y"})
    for token in tokenizer.encode(text):
        (mask,) = constraint.allowed(())
        assert len(mask) == 258
        assert mask[token]
        assert not mask[1], "it may not end before it is whole"
        constraint.advance([token])
    (mask,) = constraint.allowed(())
    assert mask[1]
    assert not mask[tokenizer.encode("}")[0]]


def test_drafts_are_looked_through_without_being_taken(grammars: Grammars, tokenizer: Tokenizer) -> None:
    constraint = grammars.json_schema(SCHEMA, "p")()
    good, bad = tokenizer.encode('{"a": "x"}'), tokenizer.encode('{"b"')
    before = constraint.allowed(())
    masks = constraint.allowed(good)
    assert len(masks) == len(good) + 1
    assert all(mask[token] for mask, token in zip(masks, good, strict=False))
    assert masks[-1][1]
    masks = constraint.allowed(bad)
    assert len(masks) == len(bad) + 1
    assert not masks[2][bad[2]]
    assert constraint.allowed(()) == before


def test_each_sequence_has_its_own(grammars: Grammars, tokenizer: Tokenizer) -> None:
    make = grammars.json_schema(SCHEMA, "p")
    first, second = make(), make()
    first.advance(tokenizer.encode("{"))
    assert first.allowed(()) != second.allowed(())


def test_a_form_that_grows_too_large_on_the_way_says_so(grammars: Grammars, tokenizer: Tokenizer) -> None:
    constraint = grammars.json_schema(WIDE, "field")()
    constraint.allowed(())
    assert constraint.failure is None
    constraint.advance(tokenizer.encode("{"))
    assert isinstance(constraint.failure, InvalidRequestError)
    assert "field cannot be held" in str(constraint.failure)
    assert constraint.failure.param == "field"


def test_a_malformed_schema_says_why(grammars: Grammars) -> None:
    with pytest.raises(InvalidRequestError, match=r"field cannot be held.*nonsense"):
        grammars.json_schema({"type": "nonsense"}, "field")
