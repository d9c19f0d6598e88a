"""Terms: compound names are split, inflections meet, data is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.search.index.tokenizer import MAX_TOKEN_CHARS, raw_tokens, stem, terms_of


@pytest.mark.parametrize(
    ("token", "terms"),
    [
        ("HandlerStack", {"handlerstack", "handl", "stack"}),
        ("getHTTPResponse", {"gethttpresponse", "get", "http"}),
        ("max_attempts", {"max_attempts", "max", "attempt"}),
        ("__init__", {"init"}),
        ("x", {"x"}),
        ("404", {"404"}),
    ],
)
def test_terms_of_a_token(token, terms):
    assert terms <= set(terms_of(token))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("retries", "retry"),
        ("parsing", "parse"),
        ("parsed", "parses"),
        ("handlers", "handler"),
        ("serialization", "serialize"),
        ("validators", "validator"),
        ("stopped", "stopping"),
        ("classes", "class"),
        ("matches", "matching"),
    ],
)
def test_inflections_meet(one, other):
    assert stem(one) == stem(other)


def test_unlike_words_stay_apart():
    assert len({stem(word) for word in ("request", "response", "router", "render", "reader")}) == 5


def test_a_long_run_is_data():
    assert terms_of("a" * (MAX_TOKEN_CHARS + 1)) == ()


@given(st.text(max_size=60))
def test_any_text_has_lower_case_terms_without_repeats(text):
    for token in raw_tokens(text):
        terms = terms_of(token)
        assert len(set(terms)) == len(terms)
        assert all(term and term == term.lower() for term in terms)
