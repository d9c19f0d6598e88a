from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.embedded.speculation import PromptLookup


def test_what_followed_earlier_is_proposed() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 9, 1, 2, 3]
    assert list(PromptLookup().propose(tokens, 2)) == [4, 5]
    assert list(PromptLookup().propose(tokens, 16)) == [4, 5, 6, 9]


def test_the_longest_match_wins_over_the_newest() -> None:
    tokens = [7, 1, 2, 3, 4, 8, 1, 2, 3, 5, 7, 1, 2, 3]
    assert list(PromptLookup().propose(tokens, 1)) == [4]


def test_a_text_that_the_caller_names_is_found() -> None:
    drafter = PromptLookup(texts=[[10, 11, 12, 13, 14, 15]])
    assert list(drafter.propose([1, 2, 10, 11, 12], 2)) == [13, 14]


def test_nothing_is_proposed_where_nothing_matches() -> None:
    drafter = PromptLookup()
    assert not drafter.propose([1, 2, 3, 4, 5], 4)
    assert not drafter.propose([1, 2, 3, 1, 2, 3], 0)
    assert not drafter.propose([], 4)


def test_success_proposes_more_and_failure_asks_for_longer_matches() -> None:
    tokens = [*range(100), 50, 51, 52]
    drafter = PromptLookup()
    first = drafter.propose(tokens, 64)
    drafter.note(len(first), len(first))
    assert len(drafter.propose(tokens, 64)) == 2 * len(first)
    drafter.note(2 * len(first), 0)
    assert not drafter.propose(tokens, 64), "a match of three is not trusted after a failure"
    assert drafter.propose([*range(100), *range(50, 56)], 64)


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_an_index_that_grows_finds_what_a_new_one_finds(seed: int, step: int) -> None:
    rng = random.Random(seed)
    tokens = [rng.randint(0, 3) for _ in range(120)]
    growing = PromptLookup()
    for end in range(0, 120, step):
        grown = list(growing.propose(tokens[:end], 8))
        assert grown == list(PromptLookup().propose(tokens[:end], 8))
        if grown:
            text = tokens[:end]
            tail = text[-3:]
            assert any(text[i : i + 3] == tail and text[i + 3 : i + 3 + len(grown)] == grown for i in range(end - 3))
