"""Exact search: every engine gives the same lines, and only of indexed files."""

from __future__ import annotations

import sys

import pytest

from sluice.search.errors import QueryError
from sluice.search.index.exact import best_engine, find_exact, matches_glob, own_engine, ripgrep
from tests.search.trees import index_of, write_tree

ENGINES = [pytest.param(own_engine, id="own"), pytest.param(ripgrep, id="ripgrep")]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return index_of(write_tree(tmp_path_factory.mktemp("tree")))


def places(index, pattern, **options):
    return {(hit.path, hit.line) for hit in find_exact(index, index.view(60.0), pattern, **options)}


@pytest.mark.parametrize("engine", ENGINES)
def test_literals_are_literal_and_ignored_files_stay_out(index, engine):
    found = places(index, "backoff_delay", engine=engine)
    assert found == {("src/retry.py", 12), ("src/retry.py", 23), ("tests/test_retry.py", 4), ("tests/test_retry.py", 5)}
    assert places(index, "(self, attempt)", engine=engine) == {("src/retry.py", 12)}
    assert places(index, "2 ** attempt", engine=engine) == {("src/retry.py", 14)}
    assert places(index, "ackoff_dela", engine=engine) == found


@pytest.mark.parametrize("engine", ENGINES)
def test_alternatives_and_globs(index, engine):
    found = places(index, "parse_cookie_header|RetryPolicy", is_regex=True, engine=engine)
    assert {path for path, _ in found} == {"src/cookies.py", "src/retry.py", "tests/test_retry.py"}
    only = places(index, "parse_cookie_header|RetryPolicy", is_regex=True, glob="tests/*.py", engine=engine)
    assert {path for path, _ in only} == {"tests/test_retry.py"}


@pytest.mark.parametrize("pattern", ["", " ", "a\nb", "x" * 2000, "a\0b"])
def test_patterns_that_cannot_be_meant(index, pattern):
    with pytest.raises(QueryError):
        places(index, pattern)


def test_our_own_engine_refuses_what_could_run_for_ever(index):
    with pytest.raises(QueryError, match="ripgrep"):
        places(index, "(a+)+$", is_regex=True, engine=own_engine)


def test_without_the_wheel_our_own_engine_answers(index, monkeypatch):
    assert best_engine() is ripgrep
    monkeypatch.setitem(sys.modules, "python_ripgrep", None)
    assert best_engine() is own_engine
    assert places(index, "jar")


@pytest.mark.parametrize(
    ("path", "glob", "fits"),
    [("a/b.py", "*.py", True), ("a/b.py", "a/*.py", True), ("a/b.py", "**/*.py", True), ("a/b.py", "b/*.py", False)],
)
def test_globs(path, glob, fits):
    assert matches_glob(path, glob) is fits
