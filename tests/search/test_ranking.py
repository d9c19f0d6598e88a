"""Questions, features, trees and the choice of lines."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.search.errors import QueryError
from sluice.search.index.symbols import find_definitions, find_references
from sluice.search.ranking.chunks import CHUNK_FEATURES, chunk_candidates
from sluice.search.ranking.evidence import gather
from sluice.search.ranking.fast import MIN_BUDGET_TOKENS, answer, rank
from sluice.search.ranking.files import FILE_FEATURES, file_candidates
from sluice.search.ranking.pieces import piece_bounds
from sluice.search.ranking.question import MAX_TERMS, parse_question
from sluice.search.ranking.rankers import hand_set_rankers, learned_rankers
from sluice.search.ranking.spans import runs
from sluice.search.ranking.trees import from_arrays, from_lightgbm
from sluice.search.tokens import result_tokens
from tests.effort import examples
from tests.search.trees import index_of, write_tree


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return index_of(write_tree(tmp_path_factory.mktemp("tree")))


def ask(index, text, **options):
    options = {"budget_tokens": 400, **options}
    return answer(index.view(60.0), text, learned_rankers(), index.read, **options)


@pytest.mark.parametrize(
    ("question", "path", "line"),
    [
        ("how long do we wait before a request is sent again", "src/retry.py", 14),
        ("backoff_delay", "src/retry.py", 12),
        ("RetryPolicy", "src/retry.py", 5),
        ("parsing of cookie headers", "src/cookies.py", 4),
        ("Router.Handle registers a handler", "src/server.go", 9),
    ],
)
def test_the_right_lines_come_first(index, question, path, line):
    first = ask(index, question)[0]
    assert first.path == path
    assert any(r.path == path and r.start <= line <= r.end for r in ask(index, question))


def test_a_question_about_tests_may_find_them(index):
    paths = [r.path for r in ask(index, "test that backoff_delay is capped")]
    assert "tests/test_retry.py" in paths


@examples(40)
@given(
    budget=st.integers(MIN_BUDGET_TOKENS, 3000),
    text=st.sampled_from(["retry backoff", "cookie", "def"]),
)
def test_answers_keep_to_their_budget_and_show_the_files_lines(index, budget, text):
    results = ask(index, text, budget_tokens=budget)
    assert sum(result_tokens(r.path, r.start, r.end, len(r.text)) for r in results) <= budget
    seen: set[tuple[str, int]] = set()
    for r in results:
        lines = index.read(r.path).decode().split("\n")
        assert r.text == "\n".join(lines[r.start - 1 : r.end])
        assert r.start <= r.end
        own = {(r.path, line) for line in range(r.start, r.end + 1)}
        assert not own & seen, "a line is shown twice"
        seen |= own


def test_small_gaps_are_closed(index):
    for text in ("retry backoff policy attempts delay", "router handler path"):
        by_path: dict[str, list[tuple[int, int]]] = {}
        for r in ask(index, text, budget_tokens=600):
            by_path.setdefault(r.path, []).append((r.start, r.end))
        for ranges in by_path.values():
            ranges.sort()
            assert all(after[0] - before[1] > 4 for before, after in pairwise(ranges))


def test_each_file_is_shown_once_before_any_is_shown_again(index):
    paths = [r.path for r in ask(index, "retry backoff delay request", budget_tokens=300)]
    first_repeat = next((at for at, path in enumerate(paths) if path in paths[:at]), len(paths))
    assert set(paths[first_repeat:]) <= set(paths[:first_repeat])


def test_max_results(index):
    assert len(ask(index, "retry", max_results=1)) == 1


def test_nothing_found_is_an_empty_answer(index):
    assert ask(index, "xylophone quux") == []


@pytest.mark.parametrize("text", ["", "   ", "?!…", "\0"])
def test_a_question_without_words_is_refused(index, text):
    with pytest.raises(QueryError):
        ask(index, text)


def test_a_question_of_stop_words_is_put_all_the_same():
    assert parse_question("what is this").weights


def test_a_long_first_sentence_is_cut_between_words(index):
    text = "- " * 63 + " backoff_delay_of_policies is where"
    assert text[127:140] == "backoff_delay"
    assert parse_question(text).words == {"backoff_delay_of_policies"}
    assert ask(index, text)[0].path == "src/retry.py"


@given(st.integers(120, 140), st.text("ab_Z9ü \u0301-", min_size=20, max_size=60))
def test_every_term_comes_from_a_word_of_the_question(num_before, rest):
    text = "?" + "-" * num_before + rest
    try:
        question = parse_question(text)
    except QueryError:
        return
    assert question.weights.keys() <= question.spoken.keys()


def test_a_very_long_question_is_bounded(index):
    text = " ".join(f"word{number} retry_{number}" for number in range(8000))
    assert len(text) > 100_000
    assert len(parse_question(text).weights) <= MAX_TERMS
    ask(index, text)


def test_a_budget_that_holds_nothing_is_refused(index):
    with pytest.raises(QueryError, match="budget of 3"):
        ask(index, "retry", budget_tokens=3)


def test_what_a_question_names_as_code():
    question = parse_question("fix `Foo::bar` when max_size is set, see getName() and .close")
    assert {"Foo", "bar", "max_size", "getName", "close"} <= set(question.identifiers)
    assert not question.is_symbol
    assert question.asks_change
    assert parse_question("Sinatra::Base").is_symbol


def test_features_have_the_columns_that_rankers_are_told(index):
    view = index.view(60.0)
    question = parse_question("retry backoff")
    evidence = gather(view, question)
    files = file_candidates(view, question, evidence)
    chunks = chunk_candidates(view, question, evidence, files)
    assert files.features.shape == (len(files.ids), len(FILE_FEATURES))
    assert chunks.features.shape == (len(chunks.ids), len(CHUNK_FEATURES))
    assert np.isfinite(files.features).all()
    assert np.isfinite(chunks.features).all()


def test_hand_set_rankers_answer_too(index):
    view = index.view(60.0)
    ranking = rank(view, "cookie header", hand_set_rankers())
    assert view.files[ranking.files[0]].path == "src/cookies.py"


def test_an_empty_tree_gives_an_empty_answer(tmp_path):
    index = index_of(tmp_path)
    assert answer(index.view(), "retry", learned_rankers(), index.read, budget_tokens=500) == []


def test_trees_score_like_the_dump_says():
    def leaf(value):
        return {"leaf_value": value}

    split = {
        "decision_type": "<=",
        "split_feature": 1,
        "threshold": 0.5,
        "left_child": leaf(1.0),
        "right_child": {
            "decision_type": "<=",
            "split_feature": 0,
            "threshold": 2.0,
            "left_child": leaf(2.0),
            "right_child": leaf(4.0),
        },
    }
    dump = {"tree_info": [{"tree_structure": split}, {"tree_structure": leaf(0.25)}]}
    trees = from_lightgbm(dump, ("a", "b"))
    rows = np.array([[0, 0.5], [2, 0.6], [3, 0.6]], np.float32)
    assert trees.score(rows).tolist() == [1.25, 2.25, 4.25]
    copy = from_arrays(trees.arrays("x"), "x", ("a", "b"))
    assert copy.score(rows).tolist() == [1.25, 2.25, 4.25]
    with pytest.raises(ValueError, match="train it again"):
        from_arrays(trees.arrays("x"), "x", ("a", "c"))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=120), st.integers(1, 20))
def test_pieces_cover_a_chunk_without_overlap(levels, start):
    start = min(start, len(levels))
    bounds = piece_bounds(levels[start - 1 :], start, len(levels))
    assert [line for low, high in bounds for line in range(low, high + 1)] == list(range(start, len(levels) + 1))


@given(st.sets(st.integers(1, 50)))
def test_runs_are_the_lines(lines):
    found = runs(lines)
    assert {line for low, high in found for line in range(low, high + 1)} == lines
    assert all(after[0] > before[1] + 1 for before, after in pairwise(found))


def test_definitions_and_references(index):
    view = index.view(60.0)
    found = find_definitions(view, "backoff_delay")
    assert [(s.path, s.definition.start) for s in found] == [("src/retry.py", 12)]
    assert find_definitions(view, "RetryPolicy.backoff_delay") == found
    assert find_definitions(view, "Other.backoff_delay") == []
    uses = {(r.path, r.line) for r in find_references(index, view, "backoff_delay")}
    assert ("tests/test_retry.py", 5) in uses
    assert ("src/retry.py", 12) not in uses
    assert find_references(index, view, "") == []
